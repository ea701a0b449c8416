"""Metrics per lesion and per patient, beside those per image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma.evaluation.curves import CURVE_MEASURES
from melanoma.evaluation.intervals import intervals_of
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.operating_point import OperatingPoint, measure_at, measure_intervals_at
from melanoma.evaluation.predictions import BinaryTask, Bootstrap, Predictions

__all__ = ["measure_levels", "per_lesion", "per_patient"]

Intervals = dict[str, tuple[float, float]]


def measure_levels(
    rows: pd.DataFrame, predictions: Predictions, points: Sequence[OperatingPoint], bootstrap: Bootstrap
) -> tuple[dict[str, float], Intervals]:
    """Measure predictions per lesion and per patient, where these are known and some of them have several images.

    Args:
        rows: Metadata of the images, with `lesion` and `patient` if known, shape (n, columns).
        predictions: Their predictions.
        points: Operating points of the binary tasks.
        bootstrap: Settings of the intervals.

    Returns:
        Metrics and intervals: `per_lesion/lesions` and `per_lesion/left_out` (how many there are, and how many have
        several labels), `per_lesion/<metric>` for each metric of `measure`,
        `per_lesion/operating_point/<task>/<measure>` (see `measure_at`), and `per_patient/...`, which has the areas
        under and the points on the curves of the binary tasks, and the operating points.
    """
    metrics, intervals = dict[str, float](), Intervals()
    lesions = per_lesion(rows, predictions)
    if lesions is not None:
        metrics["per_lesion/lesions"] = len(lesions)
        units = _units(rows, "lesion")
        metrics["per_lesion/left_out"] = 0 if units is None else len(np.unique(units)) - len(lesions)
        metrics |= _named("per_lesion", measure(lesions))
        intervals |= _named("per_lesion", intervals_of(lesions, bootstrap))
        for point in points:
            _add_point("per_lesion", point, lesions, bootstrap, metrics, intervals)
    for task, of_task in per_patient(rows, predictions):
        metrics["per_patient/patients"] = len(of_task)
        measured, ends = measure(of_task), intervals_of(of_task, bootstrap)
        prefix = f"per_patient/{task.prefix}"
        metrics |= {f"{prefix}{name}": measured[name] for name in CURVE_MEASURES if name in measured}
        intervals |= {f"{prefix}{name}": ends[name] for name in CURVE_MEASURES if name in ends}
        for point in points:
            if point.binary_task == task.name:
                _add_point("per_patient", point, of_task, bootstrap, metrics, intervals)
    return metrics, intervals


def per_lesion(rows: pd.DataFrame, predictions: Predictions) -> Predictions | None:
    """Return one prediction per lesion: the mean of the probabilities of its images.

    An image without a lesion is a lesion of its own. Lesions whose images have different labels are left out. None if
    no lesion has several images, or if all have different labels.
    """
    units = _units(rows, "lesion")
    if units is None:
        return None
    first, unit = np.unique(units, return_index=True, return_inverse=True)[1:]
    same = np.bincount(unit, predictions.targets != predictions.targets[first][unit]) == 0
    if not same.any():
        return None
    counts = np.bincount(unit)[:, None]
    sums = np.stack([np.bincount(unit, column) for column in predictions.probabilities.T], axis=1)
    groups = first if predictions.groups is None else predictions.groups[first]
    return replace(
        predictions,
        targets=predictions.targets[first][same],
        probabilities=(sums / counts)[same],
        groups=groups[same],
    )


def per_patient(rows: pd.DataFrame, predictions: Predictions) -> Iterator[tuple[BinaryTask, Predictions]]:
    """Yield each binary task with one prediction per patient.

    A patient is positive if an image is, and has the highest score of the images. An image without a patient is a
    patient of its own. Nothing is yielded if no patient has several images.
    """
    units = _units(rows, "patient")
    if units is None:
        return
    unit = np.unique(units, return_inverse=True)[1]
    for task in predictions.binary:
        scores, positive = np.zeros(unit.max() + 1), np.zeros(unit.max() + 1, bool)
        np.maximum.at(scores, unit, task.scores)
        np.logical_or.at(positive, unit, task.positive)
        probabilities = np.stack([1 - scores, scores], axis=1)
        yield task, Predictions(positive.astype(int), probabilities, ["negative", task.name])


def _units(rows: pd.DataFrame, column: str) -> NDArray | None:
    """Return the lesion or patient of each image; None if they are not known, or if each has one image."""
    if column not in rows:
        return None
    codes = pd.factorize(rows[column])[0]  # -1 if it is missing
    units = np.where(codes >= 0, codes, codes.max() + 1 + np.arange(len(rows)))
    return None if len(np.unique(units)) == len(rows) else units


def _add_point(
    level: str,
    point: OperatingPoint,
    predictions: Predictions,
    bootstrap: Bootstrap,
    metrics: dict[str, float],
    intervals: Intervals,
) -> None:
    prefix = f"{level}/operating_point/{point.binary_task}"
    metrics |= _named(prefix, measure_at(point, predictions))
    intervals |= _named(prefix, measure_intervals_at(point, predictions, bootstrap))


def _named(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{name}": value for name, value in values.items()}
