"""The metrics that a trial logs, so that a sweep with any other objective is refused before it starts."""

import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from melanoma.errors import ConfigError
from melanoma.evaluation.metrics import measured_names
from melanoma.evaluation.uncertain import Abstention, PredictionSets

__all__ = ["check_metrics", "logged_metrics"]

_EPOCH = (
    "train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/balanced_accuracy", "val/auc", "learning_rate",
    "seconds_per_epoch", "images_per_second", "fit/seconds", "evaluation/seconds", "fit/epochs",
    "fit/best_epoch", "model/latency_ms", "model/megabytes",
)  # fmt: skip


def logged_metrics(classes: Sequence[str], binary_tasks: Mapping[str, Sequence[str]], *, folds: bool) -> set[str]:
    """Return the names of the metrics that a run on such data logs; with `folds`, those of its parent run."""
    targets = np.repeat(np.arange(len(classes)), 2)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(len(classes)), len(targets))
    measured = measured_names(classes, binary_tasks)
    if folds:
        return {f"{part}/{name}_mean" for part in ("validation", "test") for name in measured} | {
            f"test/{name}" for name in measured
        }
    sets = PredictionSets(0.9, 0.5).measured(targets, probabilities, classes)
    left = Abstention(0.1, 0.0).measured(targets, probabilities)
    measured |= {f"prediction_set/{name}" for name in sets} | {f"abstention/{name}" for name in left}
    return {f"{part}/{name}" for part in ("validation", "test") for name in measured} | set(_EPOCH)


def check_metrics(wanted: Sequence[str], known: set[str]) -> None:
    """Refuse objectives that no trial logs.

    Raises:
        ConfigError: If a metric is unknown, with similar names.
    """
    faults = []
    for name in wanted:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f" Did you mean {', '.join(close)}?" if close else ""
            faults.append(f"No trial logs this metric.{hint} Received: sweep.metric={name}")
    if faults:
        raise ConfigError(faults)
