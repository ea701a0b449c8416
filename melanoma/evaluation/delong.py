"""Errors and intervals of areas under ROC curves (DeLong et al. 1988, Obuchowski 1997)."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import rankdata

from melanoma.evaluation.proportions import Bounded, quantile

__all__ = ["auc_influence", "auc_interval", "bounded_auc"]

_LEAST_VARIANCE = 0.8  # share of the variance of Hanley & McNeil
_TINY = 1e-9


def auc_influence(
    positive: NDArray[np.bool_], scores: NDArray, groups: NDArray[np.integer]
) -> tuple[float, NDArray[np.float64]]:
    """Compute an AUC, and how much each group of images adds to its error (Obuchowski 1997).

    Args:
        positive: Whether each image is positive, shape (n,), with at least one positive and one negative.
        scores: Score of each image, shape (n,).
        groups: Group of each image, as integers from 0, shape (n,).

    Returns:
        The AUC, and values of shape (groups,), the sum of whose squares estimates its variance.
    """
    of_cases, of_controls = _components(positive, scores)
    auc = float(of_cases.mean())
    influence = np.zeros(groups.max() + 1)
    for own, parts in ((groups[positive], of_cases), (groups[~positive], of_controls)):
        count = len(np.unique(own))
        scale = np.sqrt(count / (count - 1)) if count > 1 else 0.0
        influence += scale * np.bincount(own, (parts - auc) / len(parts), minlength=len(influence))
    return auc, influence


def bounded_auc(
    positive: NDArray[np.bool_], scores: NDArray, groups: NDArray[np.integer], confidence: float = 0.95
) -> tuple[Bounded, NDArray[np.float64], int]:
    """Compute an AUC with its interval; see `auc_interval`.

    If groups have several images, the quantile is that of Student's t for as many degrees of freedom as there are
    groups of the rarer class.

    Args:
        positive: Whether each image is positive, shape (n,), with at least one positive and one negative.
        scores: Score of each image, shape (n,).
        groups: Group of each image, as integers from 0, shape (n,).
        confidence: Confidence level.

    Returns:
        The AUC and its bounds, the values of `auc_influence`, and the number of groups of the rarer class.
    """
    auc, influence = auc_influence(positive, scores, groups)
    counts = [len(np.unique(groups[own])) for own in (positive, ~positive)]
    z = quantile(confidence, None if len(np.unique(groups)) == len(groups) else min(counts))
    low, high = auc_interval(auc, float((influence**2).sum()), counts[0], counts[1], z)
    return (auc, low, high), influence, min(counts)


def _components(positive: NDArray[np.bool_], scores: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the structural components of the positives and the negatives, from midranks (Sun & Xu 2014)."""
    cases, controls = scores[positive], scores[~positive]
    among_all = rankdata(np.concatenate([cases, controls]))
    of_cases = (among_all[: len(cases)] - rankdata(cases)) / len(controls)
    return of_cases, 1 - (among_all[len(cases) :] - rankdata(controls)) / len(cases)


def auc_interval(auc: float, variance: float, positives: int, negatives: int, z: float) -> tuple[float, float]:
    """Compute the score interval of an AUC: of all values that the observed one does not contradict.

    The variance at each value is that of Hanley & McNeil (1982), as in method 5 of Newcombe (2006), scaled to be
    `variance` at the observed AUC. It is at least 0.8 of theirs for independent groups, because an estimate from few
    positives, or near an AUC of 1, is often too small; `python -m benchmarks.coverage` shows the coverage.

    Args:
        auc: Observed AUC.
        variance: Its variance; 0 where it cannot be estimated.
        positives: Number of groups with positives, at least 1.
        negatives: Number of groups with negatives, at least 1.
        z: Quantile of the normal distribution, or of another one.
    """

    def theirs(value: float) -> float:
        pairs, more = positives * negatives, (positives + negatives) / 2 - 1
        return value * (1 - value) / pairs * (1 + more * ((1 - value) / (2 - value) + value / (1 + value)))

    scale = max(variance / theirs(auc), _LEAST_VARIANCE) if 0 < auc < 1 else 1.0

    def contradicted(value: float) -> float:
        return (auc - value) ** 2 - z * z * scale * theirs(value)

    low, high = max(auc, _TINY), min(auc, 1 - _TINY)
    return (
        float(brentq(contradicted, _TINY, high)) if auc > 0 and contradicted(_TINY) > 0 else 0.0,
        float(brentq(contradicted, low, 1 - _TINY)) if auc < 1 and contradicted(1 - _TINY) > 0 else 1.0,
    )
