"""Thresholds for questions with two answers: chosen on validation, frozen, applied to test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from melanoma.config.schema import OperatingPointConfig
from melanoma.evaluation.curves import curve
from melanoma.evaluation.intervals import draws
from melanoma.evaluation.metrics import problems

__all__ = ["OperatingPoint", "applied", "applied_intervals", "chosen_points"]


@dataclass(frozen=True)
class OperatingPoint:
    """Where a score becomes a referral.

    Attributes:
        question: `malignant` and so on; of two classes the second.
        threshold: an image whose probability is at least this is referred.
        rule: by which it was chosen, in words.
    """

    question: str
    threshold: float
    rule: str


def chosen_points(
    targets: NDArray[np.integer],
    probabilities: NDArray,
    classes: Sequence[str],
    views: Mapping[str, Sequence[str]],
    settings: OperatingPointConfig,
) -> list[OperatingPoint]:
    """A threshold for each question that has both answers among the validation images.

    The rules: `sensitivity` takes the highest threshold that finds at least that share; `youden` the greatest sum of
    sensitivity and specificity (Youden 1950); `cost` the least cost, a missed positive costing `cost_ratio` times a
    false referral; `fixed` the given threshold.

    Args:
        targets: class index of each validation image, shape (n,).
        probabilities: shape (n, len(classes)).
        classes: class names.
        views: see `melanoma.evaluation.metrics.metrics_of`.
        settings: the rule and its numbers.
    """
    points = []
    for prefix, (positive, scores) in problems(targets, probabilities, classes, views).items():
        if 0 < positive.sum() < len(positive):
            threshold, words = _threshold(positive, scores, settings)
            points.append(OperatingPoint(prefix.rstrip("/") or classes[1], threshold, words))
    return points


def applied(
    point: OperatingPoint,
    targets: NDArray[np.integer],
    probabilities: NDArray,
    classes: Sequence[str],
    views: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """What a threshold costs and finds on some images.

    Returns:
        `sensitivity`, `specificity`, `precision`, `referred` (share of the images), `referrals_per_found` (images
        referred for each positive found) and `missed_per_1000` (positives not referred of 1,000 images); those that
        are not defined are left out.
    """
    asked = _asked(point, targets, probabilities, classes, views)
    if asked is None:
        return {}
    positive, scores = asked
    referred = scores >= point.threshold
    found, referrals = int((referred & positive).sum()), int(referred.sum())
    measures = {
        "sensitivity": (found, positive.sum()),
        "specificity": ((~referred & ~positive).sum(), (~positive).sum()),
        "precision": (found, referrals),
        "referred": (referrals, len(scores)),
        "referrals_per_found": (referrals, found),
        "missed_per_1000": (1000 * (positive.sum() - found), len(scores)),
    }
    return {name: float(part / whole) for name, (part, whole) in measures.items() if whole}


def applied_intervals(
    point: OperatingPoint,
    targets: NDArray[np.integer],
    probabilities: NDArray,
    classes: Sequence[str],
    views: Mapping[str, Sequence[str]],
    *,
    groups: NDArray | None,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """Intervals of `sensitivity` and `specificity` at a threshold.

    The wider, at each end, of the bootstrap's (see `bootstrap_intervals`) and Wilson's (1927): where all are right the
    bootstrap has no width, however few they are.
    """
    asked = _asked(point, targets, probabilities, classes, views)
    if asked is None or resamples < 1:
        return {}
    positive, scores = asked
    weights = draws(targets, groups, resamples, np.random.default_rng(seed))
    right = (scores >= point.threshold) == positive
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    found = {}
    for name, those in {"sensitivity": positive, "specificity": ~positive}.items():
        if those.any():
            with np.errstate(invalid="ignore"):  # a resample may hold none of them
                shares = (weights @ (right & those)) / (weights @ those)
            low, high = np.nanquantile(shares, tails)
            hits = binomtest(int((right & those).sum()), int(those.sum()))
            wilson = hits.proportion_ci(confidence, method="wilson")
            found[name] = (min(float(low), wilson.low), max(float(high), wilson.high))
    return found


def _asked(
    point: OperatingPoint,
    targets: NDArray[np.integer],
    probabilities: NDArray,
    classes: Sequence[str],
    views: Mapping[str, Sequence[str]],
) -> tuple[NDArray[np.bool_], NDArray] | None:
    """Which images are positive, and their scores; None where other data does not ask this."""
    asked = problems(targets, probabilities, classes, views)
    return asked.get("") or asked.get(f"{point.question}/")


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
