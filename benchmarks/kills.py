"""Trainings that are killed at random moments of their whole life and resumed: is the result the same, is nothing left?

`python -m benchmarks.kills [--kills 50] [--data melanoma10k.zip]`: a short training on drawn lesions is killed by
SIGKILL at 50 random moments, from its first import to its end, each time with an empty cache, and resumed. With an
archive of real images, one training on them is killed five times, too. Writes `benchmarks/kills.json`.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import LoggedModelStatus

from benchmarks.__main__ import machine
from melanoma.tracking.logged_models import models_of
from melanoma.tracking.records import RunRecord

RESULTS = Path(__file__).parent / "kills.json"
COMMAND = Path(sys.executable).parent / "melanoma"
SHORT = (
    "data.source.images=200", "data.image_size=48", "model=m1", "training.epochs=6", "training.ema=0.9",
    "augmentation=dermoscopy", "training.early_stopping.patience=4", "tracking.system_metrics=false",
)  # fmt: skip
TIMED = ("seconds", "latency", "images_per_second", "system/")
# The last line of the log that was printed, and the stage it stands for.
STAGES = (
    ("Operating point|Lowest subgroup|Result", "decisions, card, model"),
    ("Kept epoch", "evaluation and its figures"),
    (r"epoch \d", "between epochs"),
    ("training and", "first batches"),
    ("Audit", "split, decoding"),
    ("MLflow run", "audit"),
    ("", "start"),
)


class Training:
    """A training in a folder of its own: its store, its cache and its log."""

    def __init__(self, folder: Path, words: tuple[str, ...]):
        folder.mkdir(parents=True)
        self.folder, self.words, self.uri = folder, words, f"sqlite:///{folder / 'mlflow.db'}"
        self.environment = {**os.environ, "MELANOMA_CACHE_DIR": str(folder / "cache"), "MLFLOW_TRACKING_URI": self.uri}

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command, which prints into the file `log`."""
        with (self.folder / "log").open("wb") as log:
            return subprocess.Popen(
                [COMMAND, "train", *words], cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def log(self) -> str:
        """What the last command has printed."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def stage(self) -> str:
        """How far the last command came."""
        return next(name for pattern, name in STAGES if re.search(pattern, self.log))

    def runs(self) -> list[RunRecord]:
        """All runs of the store."""
        mlflow.set_tracking_uri(self.uri)
        return [RunRecord(run) for run in mlflow.search_runs(search_all_experiments=True, output_format="list")]

    def kill_after(self, seconds: float, *words: str) -> bool:
        """Start a command and kill it after some seconds; return whether it still ran."""
        process = self.start(*words)
        try:
            process.wait(seconds)
            return False
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True

    def finish(self, *words: str) -> int:
        """Run a command to its end, and return its exit code."""
        return self.start(*words).wait()

    def leftovers(self) -> list[str]:
        """What should not be there once a run has ended well: checkpoints, unfinished entries, other models."""
        cache = self.folder / "cache"
        files = [
            path for path in (*cache.glob("checkpoints/**/*"), *cache.glob("*/.*.tmp")) if ".lock" not in path.name
        ]
        left = [str(path.relative_to(cache)) for path in files]
        for record in self.runs():
            if record.run.info.status != "FINISHED":
                left.append(f"run {record.run.info.status}")
            models = models_of(record.id)
            left += [f"model {one.status}" for one in models if one.status != LoggedModelStatus.READY]
            left += ["second model"] * (len(models) - 1)
            steps = [step for step, _ in record.history("val/auc")]
            left += ["epoch twice or missing"] * (steps != list(range(len(steps))))
        return left


def results_of(record: RunRecord) -> dict[str, float]:
    """Metrics of a run that do not measure time."""
    return {name: value for name, value in record.metrics.items() if not any(word in name for word in TIMED)}


def kill_once(training: Training, seconds: float, whole: dict[str, float]) -> dict[str, Any]:
    """Kill a training after some seconds, resume it, and compare its result with that of one that was not killed."""
    killed = training.kill_after(seconds, *training.words)
    stage, runs = training.stage, training.runs() if (training.folder / "mlflow.db").exists() else []
    if not killed:
        return {
            "stage": "over",
            "seconds": seconds,
            "resumed": False,
            "equal": results_of(runs[0]) == whole,
            "left": [],
        }
    code = training.finish(f"resume={runs[0].id}") if runs else 2
    resumed = code == 0
    if not resumed:  # nothing was recorded yet
        subprocess.run([COMMAND, "runs", "clean"], env=training.environment, capture_output=True, check=False)
        for run in runs:
            mlflow.delete_run(run.id)
        code = training.finish(*training.words)
    [record] = training.runs()
    return {
        "stage": stage, "seconds": round(seconds, 2), "resumed": resumed, "equal": results_of(record) == whole,
        "left": training.leftovers(), **({} if code == 0 else {"failed": training.log[-500:]}),
    }  # fmt: skip


def killed_five_times(folder: Path, archive: Path) -> dict[str, Any]:
    """Train on real images, once without and once with five kills, and compare."""
    words = ("data=melanoma10k", f"data.path={archive}", "model=m1", "data.image_size=64", "training.epochs=6",
             "augmentation=dermoscopy", "training.ema=0.99", "tracking.system_metrics=false")  # fmt: skip
    plain = Training(folder / "plain", words)
    start = time.monotonic()
    assert plain.finish(*words) == 0, plain.log
    seconds = time.monotonic() - start
    [record] = plain.runs()
    whole = results_of(record)
    killed = Training(folder / "killed", words)
    now, places = words, []
    for epoch in (1, 2, 3, 4, 5):
        process = killed.start(*now)
        while f"epoch {epoch}/" not in killed.log:
            assert process.poll() is None, killed.log
            time.sleep(0.1)
        time.sleep(random.Random(epoch).uniform(0, 4))
        process.kill()
        process.wait()
        places.append(re.findall(r"epoch (\d+)/", killed.log)[-1])
        now = (f"resume={killed.runs()[0].id}",)
    assert killed.finish(*now) == 0, killed.log
    [again] = killed.runs()
    return {
        "images": "melanoma10k", "words": " ".join(words[2:]), "killed_in_epoch": places,
        "seconds_of_one": round(seconds),
        "auc": whole["test/auc"], "auc_of_the_killed": again.metrics["test/auc"],
        "equal": results_of(again) == whole, "left": killed.leftovers(),
    }  # fmt: skip


def main() -> None:
    """Measure, print and write `benchmarks/kills.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    folder, rng = Path(tempfile.mkdtemp(prefix="melanoma-kills-")), random.Random(options.seed)
    plain = Training(folder / "whole", SHORT)
    start = time.monotonic()
    assert plain.finish(*SHORT) == 0, plain.log
    life = time.monotonic() - start
    [record] = plain.runs()
    whole, kills = results_of(record), []
    for number in range(options.kills):
        kills.append(kill_once(Training(folder / str(number), SHORT), rng.uniform(0, life), whole))
        print(number, kills[-1], flush=True)
    stages = [name for _, name in reversed(STAGES)] + ["over"]
    by_stage = {
        name: {
            "kills": len(own), "resumed": sum(one["resumed"] for one in own), "equal": sum(one["equal"] for one in own),
            "left": dict(Counter(what for one in own for what in one["left"])),
        }
        for name in stages
        if (own := [one for one in kills if one["stage"] == name])
    }  # fmt: skip
    found: dict[str, Any] = {"machine": machine(), "seed": options.seed, "seconds_of_one": round(life, 1)}
    found |= {"by_stage": by_stage, "kills": kills}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    if options.data is not None:
        found["real_images"] = killed_five_times(folder, options.data.absolute())
        print(found["real_images"], flush=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
