"""Intervals of proportions of images that come in groups, such as lesions."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

__all__ = ["mean_interval", "proportion_interval", "quantile"]

_DEGREES = 3  # degrees of freedom for each group with the rarer outcome


def proportion_interval(
    hits: NDArray[np.bool_], groups: NDArray[np.integer], confidence: float = 0.95
) -> tuple[float, float]:
    """Compute the interval of a proportion by Wilson's score method (1927) on the effective number of images.

    That number is the one of independent images with the same variance of the proportion, where the variance is that of
    a ratio over groups (Kish 1965). It is at most the number of images; if all or no images are hits, it is the number
    of groups. With groups of several images, the quantile is that of Student's t, as in Korn & Graubard (1998). Few
    groups with the rarer outcome say little about the variance, so that the degrees of freedom are at most three times
    their number, a factor that was chosen by simulation (`python -m benchmarks.coverage`).

    Args:
        hits: Whether each image is a hit, shape (n,), with n >= 1.
        groups: Group of each image, as integers from 0, shape (n,).
        confidence: Confidence level.
    """
    sizes = np.bincount(groups)
    found = np.bincount(groups, weights=hits)[sizes > 0]
    sizes = sizes[sizes > 0]
    count, images = len(sizes), int(sizes.sum())
    share = float(found.sum() / images)
    effective = float(count)
    if 0 < share < 1 and count > 1:
        variance = count / (count - 1) * float(((found - share * sizes) ** 2).sum()) / images**2
        independent = share * (1 - share) / (images - 1)
        effective = images * min(independent / variance, 1.0) if variance > 0 else float(images)
    if images == count:
        return _wilson(share, effective, quantile(confidence))
    rarer = int(min((found > 0).sum(), (found < sizes).sum())) if 0 < share < 1 else count
    return _wilson(share, effective, quantile(confidence, min(count - 1, _DEGREES * rarer)))


def mean_interval(
    values: NDArray[np.float64], lows: NDArray[np.float64], highs: NDArray[np.float64]
) -> tuple[float, float]:
    """Combine intervals of independent values to one of their mean (Zou & Donner 2008), shapes (k,)."""
    mean = float(values.mean())
    low, high = (float(np.sqrt(((values - ends) ** 2).sum())) / len(values) for ends in (lows, highs))
    return mean - low, mean + high


def quantile(confidence: float, degrees: int | None = None) -> float:
    """Return the two-sided quantile of the normal distribution, or of Student's t with some degrees of freedom."""
    tail = (1 + confidence) / 2
    return float(ndtri(tail) if degrees is None else stdtrit(max(degrees, 1), tail))


def _wilson(share: float, images: float, z: float) -> tuple[float, float]:
    centre = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * np.sqrt(share * (1 - share) / images + (z / (2 * images)) ** 2)
    return float(max(centre - half, 0)), float(min(centre + half, 1))
