"""Thresholds of binary tasks, chosen on the validation images and applied unchanged to the test images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma.config.schema import OperatingPointConfig
from melanoma.evaluation.curves import curve
from melanoma.evaluation.predictions import BinaryTask, Bootstrap, Predictions
from melanoma.evaluation.proportions import rate_interval

__all__ = ["OperatingPoint", "choose_operating_points", "measure_at", "measure_intervals_at"]


@dataclass(frozen=True)
class OperatingPoint:
    """Threshold of a binary task.

    Attributes:
        binary_task: Name of the task, such as `malignant`; the second class if there are two classes.
        threshold: Images with at least this probability are referred.
        rule: Description of the rule by which the threshold was chosen.
    """

    binary_task: str
    threshold: float
    rule: str


def choose_operating_points(validation: Predictions, settings: OperatingPointConfig) -> list[OperatingPoint]:
    """Choose a threshold for each binary task that has positives and negatives among the validation images.

    The rule `sensitivity` chooses the highest threshold with at least the given sensitivity, `youden` the maximum of
    sensitivity plus specificity (Youden 1950), `cost` the minimum cost, where a missed positive costs `cost_ratio`
    times as much as a false referral, and `fixed` the given threshold.

    Args:
        validation: Predictions of the validation images.
        settings: The rule and its parameters.
    """
    return [
        OperatingPoint(task.name, *_threshold(task.positive, task.scores, settings))
        for task in validation.binary
        if task.has_both
    ]


def measure_at(point: OperatingPoint, predictions: Predictions) -> dict[str, float]:
    """Compute metrics of predictions at a threshold.

    Returns:
        `sensitivity`, `specificity`, `precision` (PPV), `npv` (share of negatives among the images that are not
        referred), `referred` (share of the images), `referrals_per_found` (referred images per referred positive) and
        `missed_per_1000` (positives not referred per 1,000 images). All but the first two depend on the share of
        positives among the images. Undefined metrics are left out. The result is empty if the predictions do not have
        the binary task.
    """
    task = _task_of(point, predictions)
    if task is None:
        return {}
    found = {name: float(hits[among].mean()) for name, (hits, among) in _rates(point, task).items() if among.any()}
    return _as_counts(found)


def measure_intervals_at(
    point: OperatingPoint, predictions: Predictions, bootstrap: Bootstrap
) -> dict[str, tuple[float, float]]:
    """Compute intervals of the metrics of `measure_at`; see `rate_interval`."""
    task = _task_of(point, predictions)
    if task is None or bootstrap.resamples < 1:
        return {}
    found = {
        name: rate_interval(hits, among, predictions.group_numbers, bootstrap.confidence)
        for name, (hits, among) in _rates(point, task).items()
    }
    low, high = (_as_counts({name: ends[end] for name, ends in found.items() if ends}) for end in (0, 1))
    return {name: (min(low[name], high[name]), max(low[name], high[name])) for name in low if name in high}


def _rates(point: OperatingPoint, task: BinaryTask) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Return which images count, and among which, for each rate."""
    positive, referred = task.positive, task.scores >= point.threshold
    everything = np.ones(len(positive), bool)
    return {
        "sensitivity": (referred, positive),
        "specificity": (~referred, ~positive),
        "precision": (positive, referred),
        "npv": (~positive, ~referred),
        "referred": (referred, everything),
        "missed": (positive & ~referred, everything),
    }


def _as_counts(rates: dict[str, float]) -> dict[str, float]:
    """Replace the share of missed images by a number per 1,000, and add the referrals for each positive found."""
    found = {name: rate for name, rate in rates.items() if name != "missed"}
    if rates.get("precision"):
        found["referrals_per_found"] = 1 / rates["precision"]
    if "missed" in rates:
        found["missed_per_1000"] = 1000 * rates["missed"]
    return found


def _task_of(point: OperatingPoint, predictions: Predictions) -> BinaryTask | None:
    """Return the binary task of a threshold. With two classes it is the only one, regardless of its name."""
    tasks = predictions.binary
    return next((task for task in tasks if not task.prefix or task.name == point.binary_task), None)


def _threshold(positive: NDArray[np.bool_], scores: NDArray, settings: OperatingPointConfig) -> tuple[float, str]:
    if settings.rule == "fixed":
        return settings.threshold, f"fixed at {settings.threshold:g}"
    found = curve(positive, scores)
    tpr, fpr = found.tpr[0, 1:], found.fpr[0, 1:]
    if settings.rule == "sensitivity":
        at = int(np.argmax(tpr >= settings.sensitivity - 1e-9))
        words = f"sensitivity of at least {settings.sensitivity:g} on validation"
    elif settings.rule == "youden":
        at, words = int(np.argmax(tpr - fpr)), "greatest sum of sensitivity and specificity on validation"
    else:
        share = positive.mean()
        cost = settings.cost_ratio * share * (1 - tpr) + (1 - share) * fpr
        at, words = int(np.argmin(cost)), f"least cost on validation, a miss costing {settings.cost_ratio:g} referrals"
    return float(found.thresholds[at]), words
