"""Thresholds of binary tasks, chosen on the validation images and applied unchanged to the test images."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, expit, logit

from melanoma.config.schema import OperatingPointConfig
from melanoma.evaluation.curves import curve
from melanoma.evaluation.predictions import BinaryTask, Bootstrap, Predictions
from melanoma.evaluation.proportions import Bounded, difference_interval, rate_interval

__all__ = ["OperatingPoint", "choose_operating_points", "measure_at", "measure_intervals_at"]


_TINY = 1e-9  # instead of zero, of which there is no logarithm
log = logging.getLogger("melanoma")


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

    The rule `sensitivity` chooses the highest threshold with at least the given sensitivity on these images; on new
    images it is lower in about half of the cases, but in few with `confidence`, which makes the threshold a tolerance
    bound (Wilks 1941). `youden` chooses the maximum of sensitivity plus specificity (Youden 1950), `cost` the
    minimum cost, where a missed positive costs `cost_ratio` times as much as a false referral, and `fixed` the given
    threshold.

    Args:
        validation: Predictions of the validation images.
        settings: The rule and its parameters.
    """
    return [
        OperatingPoint(task.name, *_threshold(task, validation.group_numbers, settings))
        for task in validation.binary
        if task.has_both
    ]


def measure_at(
    point: OperatingPoint, predictions: Predictions, prevalence: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Compute metrics of predictions at a threshold.

    Args:
        point: The threshold.
        predictions: Predictions of the images.
        prevalence: Share of positives of each binary task where the model will be used.

    Returns:
        `sensitivity`, `specificity`, `precision` (PPV), `npv` (share of negatives among the images that are not
        referred), `referred` (share of the images), `referrals_per_found` (referred images per referred positive) and
        `missed_per_1000` (positives not referred per 1,000 images). All but the first two depend on the share of
        positives among the images; `at_prevalence/...` are those at the given one. Undefined metrics are left out. The
        result is empty if the predictions do not have the binary task.
    """
    task = _task_of(point, predictions)
    if task is None:
        return {}
    found = {name: float(hits[among].mean()) for name, (hits, among) in _rates(point, task).items() if among.any()}
    share = (prevalence or {}).get(point.binary_task)
    elsewhere = (
        {} if share is None or not task.has_both else _at_prevalence(found["sensitivity"], found["specificity"], share)
    )
    return _as_counts(found) | {f"at_prevalence/{name}": value for name, value in _as_counts(elsewhere).items()}


def measure_intervals_at(
    point: OperatingPoint,
    predictions: Predictions,
    bootstrap: Bootstrap,
    prevalence: Mapping[str, float] | None = None,
) -> dict[str, tuple[float, float]]:
    """Compute intervals of the metrics of `measure_at`; see `rate_interval`.

    Those at another prevalence combine the intervals of sensitivity and specificity on the scale of likelihood ratios.
    """
    task = _task_of(point, predictions)
    if task is None or bootstrap.resamples < 1:
        return {}
    rates = _rates(point, task)
    found = {
        name: rate_interval(hits, among, predictions.group_numbers, bootstrap.confidence)
        for name, (hits, among) in rates.items()
    }
    known = {name: ends for name, ends in found.items() if ends is not None}
    intervals = _interval_of_counts(known)
    share = (prevalence or {}).get(point.binary_task)
    if share is not None and {"sensitivity", "specificity"} <= set(known):
        bounded = {
            name: (float(rates[name][0][rates[name][1]].mean()), *known[name])
            for name in ("sensitivity", "specificity")
        }
        elsewhere = _interval_of_counts(_interval_at_prevalence(bounded["sensitivity"], bounded["specificity"], share))
        intervals |= {f"at_prevalence/{name}": ends for name, ends in elsewhere.items()}
    return intervals


def _at_prevalence(sensitivity: float, specificity: float, share: float) -> dict[str, float]:
    """Apply Bayes' rule."""
    found, false = sensitivity * share, (1 - specificity) * (1 - share)
    rejected = specificity * (1 - share) + (1 - sensitivity) * share
    rates = {"referred": found + false, "missed": (1 - sensitivity) * share}
    if found + false > 0:
        rates["precision"] = found / (found + false)
    if rejected > 0:
        rates["npv"] = specificity * (1 - share) / rejected
    return rates


def _interval_at_prevalence(sensitivity: Bounded, specificity: Bounded, share: float) -> dict[str, tuple[float, float]]:
    def logs(bounded: Sequence[float]) -> Bounded:
        value, low, high = np.log(np.clip(bounded, _TINY, 1))
        return float(value), float(low), float(high)

    def inverse(bounded: Bounded) -> Bounded:
        return 1 - bounded[0], 1 - bounded[2], 1 - bounded[1]

    odds = float(logit(share))
    positive = difference_interval(logs(sensitivity), logs(inverse(specificity)))
    negative = difference_interval(logs(specificity), logs(inverse(sensitivity)))
    return {
        "precision": (float(expit(positive[0] + odds)), float(expit(positive[1] + odds))),
        "npv": (float(expit(negative[0] - odds)), float(expit(negative[1] - odds))),
        "missed": (share * (1 - sensitivity[2]), share * (1 - sensitivity[1])),
    }


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


def _as_counts(rates: Mapping[str, float]) -> dict[str, float]:
    """Replace the share of missed images by a number per 1,000, and add the referrals for each positive found."""
    found = {name: rate for name, rate in rates.items() if name != "missed"}
    if rates.get("precision"):
        found["referrals_per_found"] = 1 / rates["precision"]
    if "missed" in rates:
        found["missed_per_1000"] = 1000 * rates["missed"]
    return found


def _interval_of_counts(intervals: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    low, high = (_as_counts({name: ends[end] for name, ends in intervals.items()}) for end in (0, 1))
    return {name: (min(low[name], high[name]), max(low[name], high[name])) for name in low if name in high}


def _task_of(point: OperatingPoint, predictions: Predictions) -> BinaryTask | None:
    """Return the binary task of a threshold. With two classes it is the only one, regardless of its name."""
    tasks = predictions.binary
    return next((task for task in tasks if not task.prefix or task.name == point.binary_task), None)


def _threshold(task: BinaryTask, groups: NDArray[np.integer], settings: OperatingPointConfig) -> tuple[float, str]:
    if settings.rule == "fixed":
        return settings.threshold, f"fixed at {settings.threshold:g}"
    if settings.rule == "sensitivity" and settings.confidence is not None:
        return _tolerance_bound(task, groups, settings.sensitivity, settings.confidence)
    positive = task.positive
    found = curve(positive, task.scores)
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


def _tolerance_bound(
    task: BinaryTask, groups: NDArray[np.integer], sensitivity: float, confidence: float
) -> tuple[float, str]:
    """Return the highest threshold whose sensitivity on new images is known to be high enough, and a description.

    The r-th lowest of n independent positives leaves out a share with a beta distribution. A lesion counts as one
    positive, with the score of its least suspicious image.
    """
    scores, own = task.scores[task.positive], groups[task.positive]
    lowest = np.full(own.max() + 1, np.inf)
    np.minimum.at(lowest, own, scores)
    lowest = np.sort(lowest[np.isfinite(lowest)])
    ranks = np.arange(1, len(lowest) + 1)
    sure = 1 - betainc(len(lowest) - ranks + 1, ranks, sensitivity) >= confidence
    words = f"sensitivity of at least {sensitivity:g} on new images with {confidence:.0%} confidence"
    if sure.any():
        return float(lowest[np.flatnonzero(sure).max()]), words
    needed = ceil(np.log(1 - confidence) / np.log(sensitivity)) if sensitivity < 1 else inf
    log.warning(
        "Too few positives of %s for a sensitivity of %g with %.0f%% confidence: %d, where %s are needed. "
        "The threshold is the lowest score of a positive",
        task.name, sensitivity, 100 * confidence, len(lowest), needed,
    )  # fmt: skip
    return float(lowest[0]), f"lowest score of {len(lowest)} positives, too few for: {words}"
