"""The reference studies: what was published, and what the tracking store knows of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from omegaconf import OmegaConf

from melanoma.config.diagnose import compose_config
from melanoma.data.groups import grouped
from melanoma.data.progress import Progress
from melanoma.errors import ModelError
from melanoma.evaluation.intervals import draws
from melanoma.tracking.predictions import ComparedRun, config_of, find_runs, load_run
from melanoma.tracking.run import flattened

__all__ = ["Interval", "Measured", "Study", "gain", "read_studies", "runs_of"]

# What a command in the header of a study may set: anything else makes it another study.
_FREE = {"data.path", "data.metadata.path", "protocol", "seed"}
_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A difference or a share, with the bounds of its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"

    @property
    def points(self) -> str:
        """As a difference of percentages."""
        value, low, high = (100 * number for number in (self.value, self.low, self.high))
        return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"


@dataclass(frozen=True)
class Measured:
    """One protocol of a study.

    Attributes:
        runs: the latest of each seed, with their predictions of test images.
        test: accuracy on the delivered test images.
    """

    runs: list[ComparedRun]
    test: Interval

    def mean(self, metric: str) -> float:
        """Of a metric over the seeds."""
        return float(np.mean([run.metrics[metric] for run in self.runs]))


@dataclass(frozen=True)
class Study:
    """A reference study.

    Attributes:
        name: of the experiment.
        published: accuracy.
        note: to what was published.
        reproduced: under `protocol=published`; None where it was not run.
        honest: under the clean protocol.
        inflation: by how much the reproduced accuracy on validation images exceeds the honest one on test images, with
            the classes in the shares of these; None where one is missing, or a class.
    """

    name: str
    published: float
    note: str
    reproduced: Measured | None
    honest: Measured | None
    inflation: Interval | None


def read_studies(progress: Progress) -> list[Study]:
    """What the tracking store knows of each reference study, in the order of `published.yaml`."""
    text = resources.files("melanoma.report").joinpath("published.yaml").read_text(encoding="utf-8")
    studies = []
    for name, known in progress.track(yaml.safe_load(text).items(), "Reading the studies"):
        runs = runs_of(name)
        reproduced, honest = (_measured(runs, protocol) for protocol in ("published", "clean"))
        inflation = _inflation(reproduced.runs, honest.runs) if reproduced and honest else None
        studies.append(Study(name, float(known["accuracy"]), known.get("note", ""), reproduced, honest, inflation))
    return studies


def runs_of(name: str, *further: str) -> list[ComparedRun]:
    """All runs with the settings that a study's file has today, and their predictions of test images; oldest first.

    Args:
        name: of the study.
        further: keys that the command line may have set, beside those of any study.
    """
    try:
        found = find_runs(name, None)
    except ModelError:
        return []  # no such experiment
    filed = _settings(OmegaConf.to_container(compose_config("train", [f"experiment={name}"]), resolve=True))
    free = _FREE | {*further}
    return [load_run(run_id, "test") for run_id in found if _changed(_settings(config_of(run_id)), filed) <= free]


def _settings(config: Any) -> dict[str, Any]:
    """All but where it is tracked, and by which code of ours: the commit is in the table."""
    leaves = flattened(config)
    return {key: value for key, value in leaves.items() if not key.startswith("tracking.") and "_target_" not in key}


def _changed(settings: dict[str, Any], filed: dict[str, Any]) -> set[str]:
    """Keys of another value; one that only one of them has came with another version."""
    return {key for key in settings.keys() & filed.keys() if settings[key] != filed[key]}


def _measured(found: Sequence[ComparedRun], protocol: str) -> Measured | None:
    """The latest run of each seed."""
    own = [run for run in found if run.tags.get("melanoma.protocol", "").split(",")[0] == protocol]
    by_seed = {run.config["seed"]: run for run in own}
    if not by_seed:
        return None
    runs = [by_seed[seed] for seed in sorted(by_seed)]
    answers = _answers(runs)
    return Measured(runs, _interval(_accuracy(answers, _weights(answers, np.random.default_rng(0)))))


def _answers(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    """All predictions of some runs, a row for each image and run: `run` (its position), `label`, `hit` and `group`.

    The groups of two runs that have an image in common are one, so that its rows are drawn together.
    """
    tables = []
    for number, run in enumerate(runs):
        table = run.predictions
        own = table["group"] if "group" in table else pd.Series(range(len(table)))
        table = table[["label", "sha256"]].assign(run=number, hit=table.predicted == table.label)
        tables.append(table.assign(own=f"{number}-" + own.astype(str)))
    answers = pd.concat(tables, ignore_index=True)
    return answers.assign(group=grouped(answers, ["sha256", "own"]))


def _weights(answers: pd.DataFrame, rng: np.random.Generator) -> NDArray[np.float32]:
    """How often each row is drawn: once in the first line, in the others as in the resamples of a bootstrap."""
    targets = answers.label.astype("category").cat.codes.to_numpy()
    drawn = draws(targets, answers.group.to_numpy(), _RESAMPLES, rng)
    return np.concatenate([np.ones((1, len(answers)), np.float32), drawn])


def _accuracy(
    answers: pd.DataFrame, weights: NDArray[np.float32], shares: pd.Series | None = None
) -> NDArray[np.float64]:
    """Accuracy in each line of weights; with shares, that of classes in these shares."""
    hit = answers.hit.to_numpy(np.float64)
    if shares is None:
        return weights @ hit / weights.sum(axis=1)
    of_class = {label: (answers.label == label).to_numpy(np.float64) for label in shares.index}
    recalls = [weights @ (hit * rows) / (weights @ rows) for rows in of_class.values()]
    return shares.to_numpy() @ np.array(recalls)


def _interval(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Interval(float(values[0]), float(low), float(high))


def _inflation(theirs: Sequence[ComparedRun], ours: Sequence[ComparedRun]) -> Interval | None:
    told, honest = _answers([load_run(run.id, "validation") for run in theirs]), _answers(ours)
    shares = honest.label.value_counts(normalize=True)
    if not set(shares.index) <= set(told.label):
        return None
    rng = np.random.default_rng(0)
    first, second = (_accuracy(answers, _weights(answers, rng), shares) for answers in (told, honest))
    return _interval(first - second)


def gain(before: Measured, after: Measured) -> Interval:
    """Accuracy on the same test images, of two studies with the seeds that both have."""
    seeds = {run.config["seed"] for run in before.runs} & {run.config["seed"] for run in after.runs}
    pairs = [[run for run in measured.runs if run.config["seed"] in seeds] for measured in (after, before)]
    answers = _answers([*pairs[0], *pairs[1]])
    weights, later = _weights(answers, np.random.default_rng(0)), (answers.run < len(pairs[0])).to_numpy()
    first, second = (_accuracy(answers[rows], weights[:, rows]) for rows in (later, ~later))
    return _interval(first - second)
