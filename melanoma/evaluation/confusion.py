"""Draws from the posterior of confusion matrices, for metrics that are no means over images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from melanoma.evaluation.predictions import Bootstrap

__all__ = ["correlation", "drawn_matrices", "f1_scores"]

_MOST_CELLS = 10_000  # above, what is added to a cell no longer matters


def drawn_matrices(
    counts: NDArray[np.floating], axes: Sequence[tuple[int, int]], added: float, bootstrap: Bootstrap
) -> list[NDArray[np.float64]]:
    """Draw shares of images from the Dirichlet posterior of a table of counts (Rubin 1981, the Bayesian bootstrap).

    Args:
        counts: Number of images by true class and by the predictions of one or more models, shape (k, k, ...).
        axes: The axes of the table that each returned matrix has.
        added: Number of images that are spread over all cells, so that what was not seen is not ruled out.
        bootstrap: Number of draws, and seed.

    Returns:
        For each pair of axes, matrices of shares with the sum 1, shape (draws, k, k).
    """
    cells = counts.size
    seen = np.arange(cells) if cells <= _MOST_CELLS else np.flatnonzero(counts)
    rng = np.random.default_rng(bootstrap.seed)
    drawn = rng.standard_gamma(counts.ravel()[seen] + added / cells, size=(bootstrap.resamples, len(seen)))
    drawn /= drawn.sum(axis=1, keepdims=True)
    k, places = len(counts), np.unravel_index(seen, counts.shape)
    found = []
    for row, column in axes:
        matrices = np.zeros((k * k, bootstrap.resamples))
        np.add.at(matrices, places[row] * k + places[column], drawn.T)
        found.append(matrices.T.reshape(-1, k, k))
    return found


def f1_scores(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the F1 of each class from confusion matrices of shape (draws, k, k): shape (draws, k)."""
    both = shares.sum(axis=2) + shares.sum(axis=1)
    hits = np.einsum("rcc->rc", shares)
    return np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)


def correlation(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute Matthews' correlation coefficient (Gorodkin 2004) of confusion matrices of shares, shape (draws,)."""
    actual, named = shares.sum(axis=2), shares.sum(axis=1)
    spread = np.sqrt((1 - (actual**2).sum(axis=1)) * (1 - (named**2).sum(axis=1)))
    found = np.einsum("rcc->r", shares) - (actual * named).sum(axis=1)
    return np.divide(found, spread, out=np.zeros_like(found), where=spread > 0)
