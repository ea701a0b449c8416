"""Covariance of areas under ROC curves, and test of their difference on the same images (DeLong et al. 1988)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

__all__ = ["Difference", "auc_covariance", "auc_difference", "auc_interval"]


@dataclass(frozen=True)
class Difference:
    """Difference of two models on the same images (first minus second), its interval and two-sided p-value."""

    value: float
    low: float
    high: float
    p_value: float


def auc_covariance(positive: NDArray[np.bool_], scores: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the AUCs of several scores of the same images, and their covariance matrix.

    Uses the fast algorithm of Sun & Xu (2014), which computes structural components from midranks.

    Args:
        positive: Whether each image is positive, shape (n,), with at least two positives and two negatives.
        scores: Scores, higher for positives, shape (models, n).

    Returns:
        AUCs of shape (models,) and covariances of shape (models, models).

    Raises:
        ValueError: If there are fewer than two positives or negatives.
    """
    cases, controls = scores[:, positive], scores[:, ~positive]
    m, n = cases.shape[1], controls.shape[1]
    if min(m, n) < 2:
        raise ValueError(f"A variance needs two positives and two negatives or more. Received: {m} and {n}")
    among_all = rankdata(np.concatenate([cases, controls], axis=1), axis=1)
    of_cases = (among_all[:, :m] - rankdata(cases, axis=1)) / n
    of_controls = 1 - (among_all[:, m:] - rankdata(controls, axis=1)) / m
    return of_cases.mean(axis=1), np.atleast_2d(np.cov(of_cases)) / m + np.atleast_2d(np.cov(of_controls)) / n


def auc_interval(positive: NDArray[np.bool_], scores: NDArray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Compute the AUC of one score, shape (n,), with the lower and upper bound of its interval, clipped to 0 and 1."""
    aucs, covariance = auc_covariance(positive, scores[None])
    half = norm.ppf((1 + confidence) / 2) * np.sqrt(covariance[0, 0])
    return float(aucs[0]), float(max(aucs[0] - half, 0)), float(min(aucs[0] + half, 1))


def auc_difference(
    positive: NDArray[np.bool_], first: NDArray, second: NDArray, confidence: float = 0.95
) -> Difference:
    """Compute the difference of two AUCs on the same images. The p-value is 1 if both rank the images alike."""
    aucs, covariance = auc_covariance(positive, np.stack([first, second]))
    value = float(aucs[0] - aucs[1])
    spread = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0)))
    half = norm.ppf((1 + confidence) / 2) * spread
    p_value = float(2 * norm.sf(abs(value) / spread)) if spread > 1e-12 else 1.0
    return Difference(value, float(value - half), float(value + half), p_value)
