"""Calibration of the probabilities of a binary task: intercept and slope of a logistic line (Cox 1958)."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from melanoma.evaluation.proportions import t_interval

__all__ = ["CALIBRATION_MEASURES", "calibration_intervals", "calibration_line", "smooth_calibration"]

CALIBRATION_MEASURES = ("calibration_intercept", "calibration_slope")

_LEAST = 1e-6  # probabilities nearer to 0 or 1 are set to this distance
_STEPS = 50
_MOST = 50.0  # a coefficient beyond this does not exist: the probabilities separate the classes


def calibration_line(positive: NDArray[np.bool_], scores: NDArray) -> dict[str, tuple[float, NDArray[np.float64]]]:
    """Fit the log odds of the outcome to those of the probabilities by maximum likelihood.

    `calibration_intercept`, calibration in the large, is that of a line with slope 1: above 0, there are more positives
    than the probabilities say. `calibration_slope` is that of a line with an intercept: below 1, the probabilities are
    too extreme (Van Calster et al. 2019).

    Args:
        positive: Whether each image is positive, shape (n,).
        scores: Probabilities, shape (n,).

    Returns:
        For each, the value, and how much each image adds to its error, shape (n,). What does not exist is left out:
        both if all images are of one kind, the slope if the probabilities separate the two kinds.
    """
    odds = logit(np.clip(scores.astype(np.float64), _LEAST, 1 - _LEAST))
    designs = {
        "calibration_intercept": (np.ones((len(odds), 1)), odds),
        "calibration_slope": (np.stack([np.ones(len(odds)), odds], axis=1), np.zeros(len(odds))),
    }
    found = {}
    for name, (design, offset) in designs.items():
        fitted = _fitted(design, positive.astype(float), offset) if 0 < positive.sum() < len(positive) else None
        if fitted is not None:
            found[name] = (float(fitted[0][-1]), fitted[1][:, -1])
    return found


def calibration_intervals(
    positive: NDArray[np.bool_], scores: NDArray, groups: NDArray[np.integer], confidence: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Compute intervals of the measures of `calibration_line` by Student's t, with the variance over groups.

    Args:
        positive: Whether each image is positive, shape (n,).
        scores: Probabilities, shape (n,).
        groups: Group of each image, as integers from 0, shape (n,).
        confidence: Confidence level.
    """
    count = len(np.unique(groups))
    degrees = min(len(np.unique(groups[side])) for side in (positive, ~positive)) - 1
    found = {}
    for name, (value, influence) in calibration_line(positive, scores).items():
        errors = np.bincount(groups, influence) * np.sqrt(count / (count - 1))
        low, high, _ = t_interval(value, errors, degrees, confidence)
        found[name] = (low, high)
    return found


def smooth_calibration(
    positive: NDArray[np.bool_], scores: NDArray, groups: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Estimate the share of positives at probabilities, by a normal kernel on the scale of log odds.

    Args:
        positive: Whether each image is positive, shape (n,).
        scores: Probabilities, not all the same, shape (n,).
        groups: Group of each image, as integers from 0, shape (n,).

    Returns:
        100 probabilities from the 1st to the 99th percentile, the share at each, and its standard error over groups.
    """
    odds = logit(np.clip(scores.astype(np.float64), _LEAST, 1 - _LEAST))
    low, high = np.percentile(odds, [1, 99])
    at = np.linspace(low, high, 100)
    width = max(1.06 * odds.std() * len(np.unique(groups)) ** -0.2, 1e-3)
    weights = np.exp(-0.5 * ((at[:, None] - odds) / width) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    share = weights @ positive
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(groups[order]) > 0])
    errors = np.add.reduceat((weights * (positive - share[:, None]))[:, order], starts, axis=1)
    return expit(at), share, np.sqrt((errors**2).sum(axis=1))


def _fitted(
    design: NDArray[np.float64], outcome: NDArray[np.float64], offset: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the coefficients of a logistic regression, and the influence of each row on them; None if none exist."""
    beta = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        chance = expit(design @ beta + offset)
        information = (design * (chance * (1 - chance))[:, None]).T @ design
        if np.linalg.cond(information) > 1e12:
            return None
        step = np.linalg.solve(information, design.T @ (outcome - chance))
        beta = beta + np.clip(step, -2, 2)
        if np.abs(beta).max() > _MOST:
            return None
        if np.abs(step).max() < 1e-9:
            return beta, np.linalg.solve(information, (design * (outcome - chance)[:, None]).T).T
    return None
