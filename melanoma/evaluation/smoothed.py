"""Smoothed bootstrap of partial areas under the ROC curve and of points on it."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from melanoma.evaluation.curves import Curve
from melanoma.evaluation.predictions import BinaryTask, Bootstrap

__all__ = ["smoothed_intervals"]

# Multiples of Silverman's bandwidth for each kind of measure, chosen by simulation (`python -m benchmarks.coverage`).
_OF_AREA, _OF_POINT = 1.06, 0.45
_MANY = 100  # groups of the rarer class, up to which smoothing is needed
_LEAST = 1e-6  # breaks ties at random
_CHUNK = 100  # resamples at a time, to limit memory


def smoothed_intervals(
    task: BinaryTask, groups: NDArray[np.integer], bootstrap: Bootstrap
) -> dict[str, tuple[float, float]]:
    """Compute percentile intervals of the measures of a curve that depend on a few images near one threshold.

    In each resample, whole groups are drawn, and the scores are those of a kernel estimate of their distribution
    (Silverman & Young 1987) in the positives and in the negatives, on the scale of normal ranks. Without smoothing, the
    intervals are too narrow: a threshold that leaves out one of ten positives can only be one of few values.

    Args:
        task: The binary task, with at least two positive and two negative groups.
        groups: Group of each image, as integers from 0, shape (n,).
        bootstrap: Settings of the bootstrap.

    Returns:
        Bounds of `partial_auc` and of the sensitivity or specificity at a level of the other.
    """
    rng = np.random.default_rng(bootstrap.seed)
    places = ndtri(rankdata(task.scores) / (len(task.scores) + 1)).astype(np.float32)
    count, side = groups.max() + 1, task.positive.astype(int)
    rarer = min(len(np.unique(groups[side == s])) for s in (0, 1))
    # With many groups the bias of a smoothed area would be greater than its error, so that smoothing fades out.
    of_area = _OF_AREA * min(1.0, (_MANY / rarer) ** 0.6)
    width = np.array([_bandwidth(places[side == s], groups[side == s]) for s in (0, 1)], np.float32)[side]
    drawn: dict[str, list[NDArray]] = {}
    for start in range(0, bootstrap.resamples, _CHUNK):
        size = min(_CHUNK, bootstrap.resamples - start)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=size)[:, groups]
        # Images of one lesion are alike, so that they move together.
        noise = rng.standard_normal((size, count, 2), np.float32)[:, groups, side] * width
        area, points = (_curves(task.positive, places + x * noise, weights) for x in (of_area, _OF_POINT))
        for name, values in {"partial_auc": area.partial_auc(), **points.points()}.items():
            drawn.setdefault(name, []).append(values)
    tails = bootstrap.tails
    found = {name: np.nanquantile(np.concatenate(values), tails) for name, values in drawn.items()}
    return {name: (float(low), float(high)) for name, (low, high) in found.items()}


def _bandwidth(places: NDArray[np.float32], groups: NDArray[np.integer]) -> float:
    """Return Silverman's rule of thumb (1986) for as many values as there are groups, without its factor."""
    spread, (low, high) = float(places.std(ddof=1)), np.percentile(places, [25, 75])
    robust = float(high - low) / 1.349
    return max(min(spread, robust or spread) * len(np.unique(groups)) ** -0.2, _LEAST)


def _curves(positive: NDArray[np.bool_], scores: NDArray[np.float32], weights: NDArray[np.integer]) -> Curve:
    """Return the curves of resamples that have their own scores, all of shape (resamples, n)."""
    order = np.argsort(-scores, axis=1)
    start = np.zeros((len(scores), 1))
    counts = []
    for side in (positive, ~positive):
        own = np.take_along_axis(weights * side, order, axis=1)
        counts.append(np.concatenate([start, np.cumsum(own, axis=1)], axis=1))
    return Curve(np.zeros(0), *counts)
