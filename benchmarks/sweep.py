"""Sweeps: what a trial costs beside its fit and evaluation, what a second worker brings, and whether memory grows.

`python -m benchmarks.sweep`: 8 short trials on drawn lesions with one worker and with two, then 30 of the shortest.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import mlflow
import psutil

from benchmarks.__main__ import machine
from melanoma.tracking.records import RunRecord

RESULTS = Path(__file__).parent / "sweep.json"
SHORT = (
    "data.source.images=400",
    "data.image_size=64",
    "model=m1",
    "training.epochs=3",
    "tracking.system_metrics=false",
)
SHORTEST = ("data.source.images=40", "data.source.size=32", "data.image_size=32", "model=m1", "training.epochs=1",
            "evaluation.bootstrap=0", "tracking.system_metrics=false")  # fmt: skip


def swept(uri: str, *arguments: str) -> tuple[float, list[float]]:
    """Seconds a sweep takes, and the memory of its own process in MB, every two seconds."""
    command = [Path(sys.executable).parent / "melanoma", "sweep", *arguments, f"tracking.uri={uri}"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    memory: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(2):
            try:
                memory.append(psutil.Process(process.pid).memory_info().rss / 1e6)
            except psutil.NoSuchProcess:
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    if code:
        sys.exit(f"The sweep ended with exit code {code}: {command}")
    return time.perf_counter() - start, memory


def overheads(uri: str) -> list[float]:
    """Seconds of each trial, from before its process starts to its end, less those of fit and evaluation."""
    mlflow.set_tracking_uri(uri)
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    trials = [RunRecord(run) for run in runs if "melanoma.trial" in run.data.tags]
    return [
        (one.run.info.end_time - one.run.info.start_time) / 1000
        - one.metrics["fit/seconds"]
        - one.metrics["evaluation/seconds"]
        for one in trials
    ]


def main() -> None:
    """Measure, print and write `benchmarks/sweep.json`."""
    folder = Path(tempfile.mkdtemp(prefix="melanoma-sweep-"))
    swept(f"sqlite:///{folder / 'warm' / 'mlflow.db'}", *SHORT, "seed=0,1")  # decodes the images
    results: dict = {"machine": machine()}
    for workers in (1, 2):
        uri = f"sqlite:///{folder / str(workers) / 'mlflow.db'}"
        seconds, _ = swept(uri, *SHORT, "seed=range(0,8)", f"launcher.workers={workers}")
        results[f"seconds_of_8_trials_{workers}_workers"] = round(seconds, 1)
        results[f"overhead_seconds_a_trial_{workers}_workers"] = round(median(overheads(uri)), 2)
    ratio = results["seconds_of_8_trials_1_workers"] / results["seconds_of_8_trials_2_workers"]
    results["speed_of_2_workers"] = round(ratio, 2)
    _, memory = swept(f"sqlite:///{folder / '30' / 'mlflow.db'}", *SHORTEST, "seed=range(0,30)", "launcher.workers=2")
    third = len(memory) // 3
    results["sweep_megabytes_first_third"] = round(median(memory[third // 2 : third]), 1)
    results["sweep_megabytes_last_third"] = round(median(memory[-third:]), 1)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
