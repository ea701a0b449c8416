"""The reference experiments: published results and the runs in the tracking store."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from omegaconf import OmegaConf

from melanoma.config.arguments import flattened
from melanoma.config.diagnose import compose_config
from melanoma.data.groups import connected_groups
from melanoma.data.progress import track
from melanoma.errors import ModelError
from melanoma.evaluation.intervals import bootstrap_weights
from melanoma.evaluation.metrics import default_primary_metric
from melanoma.evaluation.proportions import quantile
from melanoma.evaluation.seeds import error_of_mean, welch_degrees
from melanoma.lineage.protocol import Shortcut
from melanoma.tracking.records import RunRecord, find_runs

__all__ = ["Interval", "Measured", "Reference", "gain", "read_references", "runs_of"]

# Keys that the command in an experiment's header may set; any other override makes it another experiment.
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
        """The interval in percentage points."""
        value, low, high = (100 * number for number in (self.value, self.low, self.high))
        return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"


@dataclass(frozen=True)
class Measured:
    """Results of a reference experiment under one protocol.

    Attributes:
        runs: The latest run of each seed.
        test: Mean accuracy on the delivered test images, with its interval for other images and seeds.
    """

    runs: list[RunRecord]
    test: Interval

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the seeds."""
        return float(np.mean([run.metrics[metric] for run in self.runs]))


@dataclass(frozen=True)
class Reference:
    """A reference experiment: an experiment that re-creates a published project.

    Attributes:
        name: Name of the experiment.
        published: Published accuracy.
        note: Note on the published result.
        reproduced: Results under `protocol=published`; None if there are no runs.
        honest: Results under the clean protocol; None if there are no runs.
        inflation: Difference between the reproduced validation accuracy, reweighted to the class shares of the test
            images, and the honest test accuracy. None if one of them or a class is missing.
    """

    name: str
    published: float
    note: str
    reproduced: Measured | None
    honest: Measured | None
    inflation: Interval | None


def read_references() -> list[Reference]:
    """Read the reference experiments from the tracking store, in the order of `published.yaml`."""
    text = resources.files("melanoma.report").joinpath("published.yaml").read_text(encoding="utf-8")
    references = []
    for name, known in track(yaml.safe_load(text).items(), "Reading the experiments"):
        runs = runs_of(name)
        reproduced, honest = (_measured(runs, protocol) for protocol in ("published", "clean"))
        inflation = _inflation(reproduced.runs, honest.runs) if reproduced and honest else None
        references.append(
            Reference(name, float(known["accuracy"]), known.get("note", ""), reproduced, honest, inflation)
        )
    return references


def runs_of(name: str, *further: str) -> list[RunRecord]:
    """Return all runs whose settings match the current file of an experiment, oldest first.

    Args:
        name: Name of the experiment.
        further: Additional keys that the command line may have set.
    """
    try:
        found = find_runs(name)
    except ModelError:
        return []  # no such experiment
    filed = _settings(OmegaConf.to_container(compose_config("train", [f"experiment={name}"]), resolve=True))
    free = _FREE | {*further}
    return [record for record in found if _changed(_settings(record.config), filed) <= free]


def _settings(config: Any) -> dict[str, Any]:
    """Return the settings without the tracking section and the `_target_` keys; the report lists the commit instead."""
    leaves = flattened(config)
    return {key: value for key, value in leaves.items() if not key.startswith("tracking.") and "_target_" not in key}


def _changed(settings: dict[str, Any], filed: dict[str, Any]) -> set[str]:
    """Return the keys with different values; a key in only one of the two comes from another version and is ignored."""
    changed = {key for key in settings.keys() & filed.keys() if settings[key] != filed[key]}
    return changed - {key for key in changed if filed[key] is None and _is_filled_in(key, settings)}


def _is_filled_in(key: str, settings: dict[str, Any]) -> bool:
    """Return whether a run has the value that it chooses for a null; see `melanoma.workflows.defaults`."""
    primary = settings.get("primary_metric")
    if key == "training.monitor":
        return bool(settings[key] == f"val/{primary}")
    defaults = {default_primary_metric(classes, published) for classes in (2, 3) for published in (False, True)}
    return key == "data.positive" or (key == "primary_metric" and primary in defaults)


def _measured(found: Sequence[RunRecord], protocol: str) -> Measured | None:
    """Measure the latest run of each seed."""
    clean = protocol == "clean"
    own = [run for run in found if (run.protocol.is_clean if clean else Shortcut.PUBLISHED in run.protocol)]
    by_seed = {run.config["seed"]: run for run in own}
    if not by_seed:
        return None
    runs = [by_seed[seed] for seed in sorted(by_seed)]
    answers = _answers(runs)
    return Measured(runs, _interval(_accuracies(answers, _weights(answers, np.random.default_rng(0)))))


def _answers(runs: Sequence[RunRecord], part: str = "test") -> pd.DataFrame:
    """Return the predictions of runs, a row for each image and run: `run` (its position), `label`, `hit` and `group`.

    Groups of different runs that share an image are merged, so that its rows are drawn together.
    """
    tables = []
    for number, run in enumerate(runs):
        table = run.predictions(part)
        own = table["group"] if "group" in table else pd.Series(range(len(table)))
        table = table[["label", "sha256"]].assign(run=number, hit=table.predicted == table.label)
        tables.append(table.assign(own=f"{number}-" + own.astype(str)))
    answers = pd.concat(tables, ignore_index=True)
    return answers.assign(group=connected_groups(answers, ["sha256", "own"]))


def _weights(answers: pd.DataFrame, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the weight of each row: 1 in the first line, and the counts of a bootstrap resample in each other line."""
    targets = answers.label.astype("category").cat.codes.to_numpy()
    drawn = bootstrap_weights(targets, answers.group.to_numpy(), _RESAMPLES, rng)
    return np.concatenate([np.ones((1, len(answers)), np.float32), drawn])


class _Accuracies(NamedTuple):
    """Accuracies for each line of weights: of all runs together, shape (lines,), and of each, shape (lines, runs)."""

    pooled: NDArray[np.float64]
    runs: NDArray[np.float64]


def _accuracies(answers: pd.DataFrame, weights: NDArray[np.float32], shares: pd.Series | None = None) -> _Accuracies:
    """Compute accuracies; with `shares`, the classes are reweighted to these shares. NaN for a run without a class."""
    hit, run = answers.hit.to_numpy(np.float64), answers.run.to_numpy()
    kept = [np.ones(len(answers)), *((run == one).astype(np.float64) for one in np.unique(run))]
    columns = []
    for own in kept:
        if shares is None:
            columns.append(weights @ (hit * own) / (weights @ own))
            continue
        of_class = [own * (answers.label == label).to_numpy() for label in shares.index]
        with np.errstate(invalid="ignore"):
            recalls = [weights @ (hit * rows) / (weights @ rows) for rows in of_class]
        columns.append(shares.to_numpy() @ np.array(recalls))
    return _Accuracies(columns[0], np.stack(columns[1:], axis=1))


def _interval(first: _Accuracies, second: _Accuracies | None = None) -> Interval:
    """Return an accuracy, or the difference of two, with an interval for other images and other seeds.

    The variance of a mean over seeds has the parts that `over_seeds` describes; here the bootstrap gives them. With one
    seed, or one run that has a class at all, there is no part for other seeds.
    """
    values = first.pooled if second is None else first.pooled - second.pooled
    low, high = np.quantile(values[1:], [0.025, 0.975])
    variances, degrees, own = [], [], 0.0
    for side in (first, *(() if second is None else (second,))):
        known = side.runs[:, np.isfinite(side.runs[0])]
        number = known.shape[1]
        if number < 2:
            continue
        variances.append(float(known[0].var(ddof=1)) / number)
        degrees.append(number - 1)
        apart = (known[1:] - known[0])[np.isfinite(known[1:]).all(axis=1)]
        own += float(apart.var(axis=1, ddof=1).mean()) / number if len(apart) else 0.0
    same = float(values[1:].var())
    error, all_degrees = error_of_mean(same, max(same - own, 0.0), sum(variances), welch_degrees(variances, degrees))
    wider = 1.0 if same == 0 else error / np.sqrt(same) * quantile(0.95, all_degrees) / quantile(0.95)
    value = float(values[0])
    return Interval(value, value - wider * (value - float(low)), value + wider * (float(high) - value))


def _inflation(theirs: Sequence[RunRecord], ours: Sequence[RunRecord]) -> Interval | None:
    reported, honest = _answers(theirs, "validation"), _answers(ours)
    shares = honest.label.value_counts(normalize=True)
    if not set(shares.index) <= set(reported.label):
        return None
    rng = np.random.default_rng(0)
    return _interval(*(_accuracies(answers, _weights(answers, rng), shares) for answers in (reported, honest)))


def gain(before: Measured, after: Measured) -> Interval:
    """Compute the difference in accuracy of two experiments on the same test images, over their common seeds."""
    seeds = {run.config["seed"] for run in before.runs} & {run.config["seed"] for run in after.runs}
    pairs = [[run for run in measured.runs if run.config["seed"] in seeds] for measured in (after, before)]
    answers = _answers([*pairs[0], *pairs[1]])
    weights, later = _weights(answers, np.random.default_rng(0)), (answers.run < len(pairs[0])).to_numpy()
    return _interval(*(_accuracies(answers[rows], weights[:, rows]) for rows in (later, ~later)))
