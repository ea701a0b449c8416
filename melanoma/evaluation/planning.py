"""What a test set can show: expected intervals, and how often gates and comparisons succeed, by simulation.

Scores are drawn from normal distributions with a given AUC, and judged as by `melanoma promote` and `melanoma compare`.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, softmax
from scipy.stats import binom

from melanoma.evaluation.delong import bounded_auc
from melanoma.evaluation.intervals import auc_intervals
from melanoma.evaluation.metrics import area_under_roc
from melanoma.evaluation.predictions import Predictions
from melanoma.evaluation.proportions import (
    FEWEST_GROUPS,
    Bounded,
    correlated_difference,
    mean_interval,
    quantile,
    score_interval,
)

__all__ = [
    "chance_of_auc",
    "chance_of_difference",
    "chance_of_mean",
    "chance_of_mean_auc",
    "chance_of_rate",
    "detectable_difference",
    "expected_auc",
    "expected_mean",
    "expected_mean_auc",
    "expected_rate",
    "mean_auc",
    "smallest_multiple",
    "specificity_at",
]

_MOST = 1000.0  # times the images, beyond which no size is searched
_BISECTIONS = 7
_MANY = 50  # times the images, for a true value
_FEW_DRAWS = 3000  # images from which fewer samples are drawn, as their results vary less


def expected_auc(auc: float, positives: int, negatives: int, seed: int = 0) -> Bounded | None:
    """Return an AUC with the median bounds of its 95% interval; None if there are too few images for an interval.

    Args:
        auc: True AUC, from 0.5 to below 1.
        positives: Number of positive lesions, or images if lesions are not known.
        negatives: Number of negative ones.
        seed: Seed of the draws.
    """
    if min(positives, negatives) < FEWEST_GROUPS:
        return None
    bounds = np.array([bounded_auc(*one)[0] for one in _drawn([auc], positives, negatives, seed)])
    return auc, float(np.median(bounds[:, 1])), float(np.median(bounds[:, 2]))


def chance_of_auc(auc: float, floor: float, positives: int, negatives: int, seed: int = 0) -> float:
    """Return how often the lower bound of an AUC is at least a floor; for the arguments see `expected_auc`."""
    if min(positives, negatives) < FEWEST_GROUPS:
        return 0.0
    return float(np.mean([bounded_auc(*one)[0][1] >= floor for one in _drawn([auc], positives, negatives, seed)]))


def expected_mean_auc(auc: float, images: Sequence[int], seed: int = 0) -> Bounded | None:
    """Return the mean AUC of more than two classes with the median bounds of its interval; None if it has none.

    Args:
        auc: True AUC of each pair of classes.
        images: Number of images of each class that occurs.
        seed: Seed of the draws.
    """
    if not _mean_is_shown(images):
        return None
    bounds = np.array([auc_intervals(one, 0.95)["auc"] for one in _samples(auc, images, seed)])
    return mean_auc(auc, images, seed), float(np.median(bounds[:, 0])), float(np.median(bounds[:, 1]))


def mean_auc(auc: float, images: Sequence[int], seed: int = 0) -> float:
    """Return the mean AUC of classes, each against the rest; for the arguments see `expected_mean_auc`."""
    return area_under_roc(_drawn_classes(auc, [_MANY * n for n in images], np.random.default_rng(seed)))


def chance_of_mean_auc(auc: float, floor: float, images: Sequence[int], seed: int = 0) -> float:
    """Return how often the lower bound of a mean AUC is at least a floor; see `expected_mean_auc`."""
    if not _mean_is_shown(images):
        return 0.0
    return float(np.mean([auc_intervals(one, 0.95)["auc"][0] >= floor for one in _samples(auc, images, seed)]))


def specificity_at(auc: float, sensitivity: float) -> float:
    """Return the specificity of normal scores with an AUC at the threshold with a sensitivity."""
    return float(ndtr(np.sqrt(2) * ndtri(auc) - ndtri(sensitivity)))


def expected_rate(share: float, images: int) -> Bounded | None:
    """Return a proportion with the bounds of its interval; None if there are too few images."""
    return None if images < FEWEST_GROUPS else (share, *score_interval(share, images, quantile(0.95)))


def chance_of_rate(share: float, floor: float, images: int) -> float:
    """Return how often the lower bound of a proportion is at least a floor."""
    if images < FEWEST_GROUPS:
        return 0.0

    def passes(hits: int) -> bool:
        return score_interval(hits / images, images, quantile(0.95))[0] >= floor

    fewest = bisect_left(range(images + 1), True, key=passes)  # the lower bound rises with the hits
    return float(binom.sf(fewest - 1, images, share))


def expected_mean(share: float, images: Sequence[int]) -> Bounded | None:
    """Return the mean of equal proportions of classes with its bounds; None if too many classes have too few images.

    Args:
        share: True proportion of each class, such as its sensitivity.
        images: Number of images of each class.
    """
    if not _mean_is_shown(images):
        return None
    return share, *mean_interval([(share, *score_interval(share, n, quantile(0.95))) for n in images])


def chance_of_mean(share: float, floor: float, images: Sequence[int], seed: int = 0) -> float:
    """Return how often the lower bound of a mean of proportions is at least a floor; see `expected_mean`."""
    if not _mean_is_shown(images):
        return 0.0
    rng, passed = np.random.default_rng(seed), []
    for _ in range(_draws(sum(images))):
        shares = rng.binomial(images, share) / np.array(images)
        bounded = [
            (float(own), *score_interval(float(own), n, quantile(0.95))) for own, n in zip(shares, images, strict=True)
        ]
        passed.append(mean_interval(bounded)[0] >= floor)
    return float(np.mean(passed))


def chance_of_difference(
    auc: float,
    difference: float,
    positives: int,
    negatives: int,
    *,
    correlation: float,
    margin: float | None = None,
    seed: int = 0,
) -> float:
    """Return how often a model is found to have a higher AUC than another, or one that is not lower by a margin.

    Args:
        auc: True AUC of the other model.
        difference: How much higher that of the model is.
        positives: Number of positive lesions.
        negatives: Number of negative ones.
        correlation: Correlation of the errors of both models on an image.
        margin: Margin of non-inferiority; None to ask for a difference with p < 0.05.
        seed: Seed of the draws.
    """
    if min(positives, negatives) < FEWEST_GROUPS:
        return 0.0
    better, found = min(auc + difference, 0.999), []
    pairs = _drawn([better, auc], positives, negatives, seed, correlation)
    for (positive, ours, groups), (_, theirs, _) in zip(pairs, pairs, strict=True):
        (one, first, rarer), (other, second, _) = (bounded_auc(positive, s, groups) for s in (ours, theirs))
        low, _, p_value = correlated_difference([one, other], [first, second], rarer)
        found.append(p_value < 0.05 and one[0] > other[0] if margin is None else low >= -margin)
    return float(np.mean(found))


def detectable_difference(
    auc: float, positives: int, negatives: int, *, correlation: float, power: float, seed: int = 0
) -> float | None:
    """Return the difference in AUC that is found with some power; None if none is, up to an AUC of 0.999.

    The arguments are those of `chance_of_difference`.
    """

    def chance(difference: float) -> float:
        return chance_of_difference(auc, difference, positives, negatives, correlation=correlation, seed=seed)

    low, high = 0.0, 0.999 - auc
    if chance(high) < power:
        return None
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if chance(middle) >= power else (middle, high)
    return high


def smallest_multiple(chance: Callable[[float], float], power: float) -> float | None:
    """Return by how much a number of images must be multiplied for some power; None if 1,000 times is too few.

    Args:
        chance: Chance of success for a multiple of the images.
        power: Wanted chance.
    """
    low, high = 0.0, 1.0
    while chance(high) < power:
        low, high = high, 2 * high
        if high > _MOST:
            return None
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if chance(middle) >= power else (middle, high)
    return high


def _mean_is_shown(images: Sequence[int]) -> bool:
    few = sum(n < FEWEST_GROUPS for n in images)
    return bool(images) and few <= len(images) / 4 and sum(images) >= FEWEST_GROUPS


def _draws(images: int) -> int:
    return 200 if images <= _FEW_DRAWS else 60


def _samples(auc: float, images: Sequence[int], seed: int) -> Iterator[Predictions]:
    rng = np.random.default_rng(seed)
    for _ in range(_draws(sum(images)) // 2):
        yield _drawn_classes(auc, images, rng)


def _drawn_classes(auc: float, images: Sequence[int], rng: np.random.Generator) -> Predictions:
    """Draw scores whose means have the same distance for each pair of classes."""
    targets, classes = np.repeat(np.arange(len(images)), images), len(images)
    corners = np.eye(classes) * ndtri(auc)
    places = (corners[targets] + rng.normal(size=(len(targets), classes))) @ corners
    return Predictions(targets, softmax(places, axis=1), [str(c) for c in range(classes)])


def _drawn(
    aucs: Sequence[float], positives: int, negatives: int, seed: int, correlation: float = 0.0
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.integer]]]:
    """Yield for each sample the arguments of `bounded_auc`, one after the other for each of the models."""
    rng = np.random.default_rng(seed)
    positive, groups = np.arange(positives + negatives) < positives, np.arange(positives + negatives)
    for _ in range(_draws(positives + negatives)):
        common = np.sqrt(correlation) * rng.normal(size=len(positive))
        for auc in aucs:
            own = np.sqrt(1 - correlation) * rng.normal(size=len(positive))
            yield positive, np.sqrt(2) * ndtri(auc) * positive + common + own, groups
