"""The learning rate that `lr=find` chooses: how much it varies from seed to seed, and what a training makes of it.

`python -m benchmarks.learning_rate` (needs MELANOMA_DATA). For each of five networks and data sets, range tests with
three seeds, and where three rules put the learning rate. For three of them, one short training with the chosen learning
rate and one with each of five others: the primary metric on validation.
"""

import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

import melanoma
from benchmarks.__main__ import machine
from melanoma.config.diagnose import diagnose
from melanoma.config.launch import register_resolvers, typed
from melanoma.config.schema import TrainConfig
from melanoma.training.network import find_learning_rate
from melanoma.workflows.defaults import with_defaults
from melanoma.workflows.fitting import parts_of
from melanoma.workflows.stages import prepare_once, read_source

RESULTS = Path(__file__).parent / "learning_rate.json"
GRID = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
COMMON = ("data.image_size=64", "balance=none", "tracking.figures=false", "tracking.system_metrics=false",
          "evaluation.bootstrap=0")  # fmt: skip
NETWORKS = {
    "m1, drawn lesions": ("model=m1", "training.epochs=6"),
    "m3, isic9": ("model=m3", "data=isic9", "training.epochs=8"),
    "resnet_small_fast, melanoma10k": ("model=resnet_small_fast", "data=melanoma10k", "training.epochs=4"),
    "resnet_small_fast, isic9": ("model=resnet_small_fast", "data=isic9"),
    "resnet_small_fast with SGD, melanoma10k": ("model=resnet_small_fast", "optimizer=sgd", "data=melanoma10k"),
}
TRAINED = tuple(NETWORKS)[:3]


def words_of(name: str, data: Path) -> list[str]:
    """The overrides of a network, with the path of its data."""
    words = [*COMMON, *NETWORKS[name]]
    sets = [word.removeprefix("data=") for word in words if word.startswith("data=")]
    return [*words, *(f"data.path={data / f'{one}.zip'}" for one in sets)]


def rules(rates: np.ndarray, losses: np.ndarray) -> dict[str, float]:
    """Where other rules put the learning rate: the steepest point, and a tenth of the lowest point."""
    lowest = int(np.argmin(losses))
    slopes = np.gradient(losses, np.log(rates))[: max(lowest, 1)]
    return {"steepest": float(rates[np.argmin(slopes)]), "a tenth of the lowest": float(rates[lowest]) / 10}


def range_tests(words: list[str]) -> list[dict[str, float | None]]:
    """What three rules choose, with three seeds."""
    config, faults = diagnose("train", TrainConfig, words)
    if config is None or faults:
        sys.exit("\n".join(faults))
    settings = typed(TrainConfig, config)
    resolved = OmegaConf.to_container(config, resolve=True)
    settings, source = with_defaults(settings, read_source(settings.data))
    _, dataset = prepare_once(settings, source)
    found = []
    for seed in range(3):
        seeded = replace(settings, seed=seed)
        test = find_learning_rate(dataset, seeded, parts_of(seeded, resolved, dataset, None))
        found.append({"chosen": test.chosen, **rules(test.rates, test.losses)})
    return found


def main() -> None:
    """Measure all of it, and write the file."""
    folder = os.environ.get("MELANOMA_DATA")
    if not folder:
        sys.exit("MELANOMA_DATA must name the folder of melanoma10k.zip and isic9.zip")
    register_resolvers()
    tests, trainings = {}, []
    for name in NETWORKS:
        tests[name] = range_tests(words_of(name, Path(folder)))
        sys.stdout.write(f"{name}: {tests[name]}\n")
    with tempfile.TemporaryDirectory() as store:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{store}/mlflow.db"
        for name in TRAINED:
            for rate in ("find", *GRID):
                words = dict(word.split("=", 1) for word in words_of(name, Path(folder)))
                run = melanoma.train(**words, lr=rate)
                used = float(run.record.params["optimizer.learning_rate"])
                value = float(run.metrics.value[f"validation/{run.primary_metric}"])
                trainings.append({"network": name, "asked": rate, "used": used, run.primary_metric: value})
                sys.stdout.write(f"{trainings[-1]}\n")
                sys.stdout.flush()
    content = {"machine": machine(), "range_tests": tests, "trainings": trainings}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
