"""Intervals of proportions and means of images that come in groups, such as lesions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, gammaincinv, logit, ndtr, ndtri, stdtr, stdtrit

__all__ = [
    "FEWEST_GROUPS",
    "Bounded",
    "average_interval",
    "correlated_difference",
    "difference_interval",
    "effective_number",
    "mean_influence",
    "mean_interval",
    "proportion_interval",
    "quantile",
    "rate_interval",
    "score_interval",
    "t_interval",
    "widened",
]

FEWEST_GROUPS = 10  # of positives, of negatives, or of all images, for an interval
Bounded = tuple[float, float, float]  # a value, and the lower and the upper bound of its interval
_DEGREES = 3  # degrees of freedom for each group with the rarer outcome


def proportion_interval(
    hits: NDArray[np.bool_], groups: NDArray[np.integer], confidence: float = 0.95
) -> tuple[float, float]:
    """Compute the interval of a proportion by Wilson's score method (1927) on the effective number of images.

    With groups of several images, the quantile is that of Student's t, as in Korn & Graubard (1998). Few groups with
    the rarer outcome say little about the variance, so that the degrees of freedom are at most three times their
    number, a factor that was chosen by simulation (`python -m benchmarks.coverage`).

    Args:
        hits: Whether each image is a hit, shape (n,), with n >= 1.
        groups: Group of each image, as integers from 0, shape (n,).
        confidence: Confidence level.
    """
    sizes = np.bincount(groups)
    found = np.bincount(groups, weights=hits)[sizes > 0]
    sizes = sizes[sizes > 0]
    share, effective, count = float(hits.mean()), effective_number(hits, groups), len(sizes)
    if len(hits) == count:
        return score_interval(share, effective, quantile(confidence))
    rarer = int(min((found > 0).sum(), (found < sizes).sum())) if 0 < share < 1 else count
    return score_interval(share, effective, quantile(confidence, min(count - 1, _DEGREES * rarer)))


def rate_interval(
    hits: NDArray[np.bool_], among: NDArray[np.bool_], groups: NDArray[np.integer], confidence: float = 0.95
) -> tuple[float, float] | None:
    """Compute the interval of a proportion of some of the images; None for fewer than `FEWEST_GROUPS` groups.

    Args:
        hits: Whether each image is a hit, shape (n,).
        among: The images of which the proportion is computed, shape (n,).
        groups: Group of each image, as integers from 0, shape (n,).
        confidence: Confidence level.
    """
    own = groups[among]
    return proportion_interval(hits[among], own, confidence) if len(np.unique(own)) >= FEWEST_GROUPS else None


def effective_number(values: NDArray, groups: NDArray[np.integer]) -> float:
    """Compute the number of independent images whose mean would have the same variance.

    The variance is that of a ratio over groups (Kish 1965). The number is at most that of images; if all values are the
    same, it is the number of groups.

    Args:
        values: A number for each image, shape (n,).
        groups: Group of each image, as integers from 0, shape (n,).
    """
    sizes = np.bincount(groups)
    totals = np.bincount(groups, weights=values)[sizes > 0]
    sizes = sizes[sizes > 0]
    count, images = len(sizes), len(values)
    mean = float(totals.sum() / images)
    spread = float((values**2).mean()) - mean**2 if values.dtype != bool else mean * (1 - mean)
    if spread <= 0 or count < 2:
        return float(count)
    variance = count / (count - 1) * float(((totals - mean * sizes) ** 2).sum()) / images**2
    return images * min(spread / (images - 1) / variance, 1.0) if variance > 0 else float(images)


def mean_influence(values: NDArray, groups: NDArray[np.integer]) -> tuple[float, NDArray[np.float64]]:
    """Compute a mean over images, and how much each group of images adds to its error, shape (groups,)."""
    mean, count = float(values.mean()), len(np.unique(groups))
    errors = np.bincount(groups, weights=values - mean) / len(values)
    return mean, errors * np.sqrt(count / max(count - 1, 1))


def average_interval(
    values: NDArray[np.floating], groups: NDArray[np.integer], confidence: float = 0.95
) -> tuple[float, float]:
    """Compute the interval of a mean of values that are not negative, such as losses, on a logarithmic scale.

    The variance is that of a ratio over groups, the quantile that of Student's t. A few large values can make up most
    of the sum; the degrees of freedom are therefore half of Kish's effective number of groups, (sum of their totals)^2
    / sum of their squares, a factor that was chosen by simulation (`python -m benchmarks.coverage`).

    Args:
        values: Value of each image, shape (n,), with a positive sum.
        groups: Group of each image, as integers from 0, shape (n,), with at least two groups.
        confidence: Confidence level.
    """
    mean, influence = mean_influence(values, groups)
    totals, error = np.bincount(groups, weights=values), float(np.sqrt((influence**2).sum()))
    few = float(totals.sum() ** 2 / (totals**2).sum()) / 2
    ratio = float(np.exp(quantile(confidence, few) * error / mean))
    return mean / ratio, mean * ratio


def mean_interval(
    bounded: Sequence[Bounded], influences: Sequence[NDArray[np.float64]] | None = None
) -> tuple[float, float]:
    """Combine intervals of several values from 0 to 1 to one of their mean (Zou & Donner 2008).

    The values count as independent, unless their influences are given: the interval is then as much wider as the
    standard error of the mean is greater than that of independent values.

    Args:
        bounded: Each value, with the lower and the upper bound of its interval.
        influences: For each value, how much each group of images adds to its error, shape (groups,).
    """
    values, lows, highs = np.array(bounded).T
    mean, wider = float(values.mean()), 1.0
    if influences is not None:
        together = np.array(influences)
        apart = float((together**2).sum())
        wider = max(float(np.sqrt((together.sum(axis=0) ** 2).sum() / apart)), 1.0) if apart > 0 else 1.0
    low, high = (wider * float(np.sqrt(((values - ends) ** 2).sum())) / len(values) for ends in (lows, highs))
    return max(mean - low, 0.0), min(mean + high, 1.0)


def difference_interval(first: Bounded, second: Bounded, correlation: float = 0.0) -> tuple[float, float]:
    """Combine the intervals of two values to one of their difference (Zou & Donner 2008).

    Args:
        first: Value, and lower and upper bound of its interval.
        second: The same of the value that is subtracted.
        correlation: Correlation of the errors of the two; 0 for values of different images.
    """
    (value, low, high), (other, other_low, other_high) = first, second
    below, above = (
        np.sqrt(max(one**2 + two**2 - 2 * correlation * one * two, 0.0))
        for one, two in ((value - low, other_high - other), (high - value, other - other_low))
    )
    return float(value - other - below), float(value - other + above)


def correlated_difference(
    bounded: Sequence[Bounded], influences: Sequence[NDArray[np.float64]], degrees: float
) -> tuple[float, float, float]:
    """Compute the bounds and the p-value of the difference of two values whose errors come from the same groups.

    Args:
        bounded: Both values, each with the lower and the upper bound of its interval.
        influences: For each, how much each group of images adds to its error, shape (groups,).
        degrees: Degrees of freedom of the p-value; see `t_interval`.
    """
    first, second = influences
    spread = np.sqrt((first @ first) * (second @ second))
    low, high = difference_interval(bounded[0], bounded[1], float(first @ second / spread) if spread > 0 else 0.0)
    return low, high, t_interval(bounded[0][0] - bounded[1][0], first - second, degrees)[2]


def widened(value: float, bound: float, factor: float) -> float:
    """Return the bound of an interval of a higher confidence level.

    The distance to the value is multiplied on the scale of log odds, for values from 0 to 1, or else as it is. This is
    near the interval that would be computed anew, or wider.

    Args:
        value: Value.
        bound: Lower or upper bound of its interval.
        factor: Ratio of the two quantiles of the normal distribution.
    """
    if not (0 <= value <= 1 and 0 <= bound <= 1):
        return value + factor * (bound - value)
    if bound in (0, 1):
        return bound
    if value in (0, 1):  # as Wilson's interval
        odds = (bound / (1 - bound) if value == 0 else (1 - bound) / bound) * factor**2
        return odds / (1 + odds) if value == 0 else 1 / (1 + odds)
    return float(expit(logit(value) + factor * (logit(bound) - logit(value))))


def t_interval(
    value: float, influence: NDArray[np.float64], degrees: float, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Compute the interval of a value and the two-sided p-value of zero by Student's t.

    Args:
        value: The value, such as a difference.
        influence: How much each group of images adds to its error, shape (groups,).
        degrees: Degrees of freedom.
        confidence: Confidence level.

    Returns:
        Lower bound, upper bound and p-value, which is 1 without any error.
    """
    error = float(np.sqrt((influence**2).sum()))
    half = quantile(confidence, degrees) * error
    p_value = float(2 * stdtr(max(degrees, 1), -abs(value) / error)) if error > 1e-12 else 1.0
    return value - half, value + half, p_value


def score_interval(share: float, images: float, z: float) -> tuple[float, float]:
    """Compute Wilson's score interval of a proportion of independent images, for a quantile `z`.

    With at most two or three hits, or as few misses, it is widened as by Brown, Cai & DasGupta (2001), because it too
    often excludes a proportion that is very near 0 or 1.
    """
    centre = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * np.sqrt(share * (1 - share) / images + (z / (2 * images)) ** 2)
    low, high, few, tail = centre - half, centre + half, 2 if images <= 50 else 3, 2 * ndtr(-z)
    hits, misses = share * images, (1 - share) * images
    if hits <= few:
        low = min(low, gammaincinv(hits, tail) / images) if hits > 0 else 0.0
    if misses <= few:
        high = max(high, 1 - gammaincinv(misses, tail) / images) if misses > 0 else 1.0
    return float(low), float(high)


def quantile(confidence: float, degrees: float | None = None) -> float:
    """Return the two-sided quantile of the normal distribution, or of Student's t with some degrees of freedom."""
    tail = (1 + confidence) / 2
    return float(ndtri(tail) if degrees is None else stdtrit(max(degrees, 1), tail))
