"""Bootstrap confidence intervals. Whole groups are drawn within each class, and all metrics are computed at once."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from melanoma.evaluation.metrics import resampled_metrics
from melanoma.evaluation.predictions import Bootstrap, Predictions

__all__ = ["FEWEST_GROUPS", "bootstrap_intervals", "bootstrap_values", "bootstrap_weights"]

FEWEST_GROUPS = 10  # for a comparison: with fewer, resamples hardly differ

# Resamples computed at a time, to limit the memory to this many weights per image.
_CHUNK = 100


def bootstrap_intervals(predictions: Predictions, bootstrap: Bootstrap) -> dict[str, tuple[float, float]]:
    """Compute percentile intervals of the metrics of `measure` by a stratified bootstrap (Efron & Tibshirani 1993).

    Whole groups of images are drawn. The class of the first image of a group determines its stratum.

    Returns:
        Lower and upper bound of each metric of `measure` except `support/<class>`; empty without resamples or if a
        probability is not finite. Resamples in which a metric is not defined are ignored.
    """
    if bootstrap.resamples < 1 or not predictions.finite:
        return {}
    found = bootstrap_values(predictions, bootstrap, lambda weights: resampled_metrics(predictions, weights))
    defined = {name: values for name, values in found.items() if np.isfinite(values).any()}
    bounds = {name: np.nanquantile(values, bootstrap.tails) for name, values in defined.items()}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}


def bootstrap_values(
    predictions: Predictions,
    bootstrap: Bootstrap,
    measure: Callable[[NDArray[np.float32]], dict[str, NDArray[np.float64]]],
) -> dict[str, NDArray[np.float64]]:
    """Compute values by name in each resample, shape (resamples,). `measure` is called with `bootstrap_weights`."""
    rng = np.random.default_rng(bootstrap.seed)
    sizes = [min(_CHUNK, bootstrap.resamples - start) for start in range(0, bootstrap.resamples, _CHUNK)]
    drawn = [measure(bootstrap_weights(predictions.targets, predictions.groups, size, rng)) for size in sizes]
    return {name: np.concatenate([chunk[name] for chunk in drawn]) for name in drawn[0]}


def bootstrap_weights(
    targets: NDArray[np.integer], groups: NDArray | None, resamples: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw resamples and return how often each image is drawn in each of them, shape (resamples, n).

    Args:
        targets: Class index of each image, used for stratification, shape (n,).
        groups: Group of each image. Whole groups are drawn. None draws single images.
        resamples: Number of resamples.
        rng: Random generator.
    """
    _, first, group = np.unique(
        np.arange(len(targets)) if groups is None else groups, return_index=True, return_inverse=True
    )
    strata = targets[first]
    counts = np.zeros((resamples, len(first)), np.float32)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        drawn = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
        counts[:, members] = drawn
    return counts[:, group]
