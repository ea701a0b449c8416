"""Bootstrap intervals: whole groups are drawn, within each class, and all metrics are computed at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["bootstrap_intervals"]

# Resamples at a time: memory is this many weights an image, whatever the number of resamples.
_CHUNK = 100


def bootstrap_intervals(
    targets: NDArray[np.integer],
    probabilities: NDArray,
    classes: Sequence[str],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    groups: NDArray | None = None,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the metrics of `metrics_of`, by a stratified bootstrap (Efron & Tibshirani 1993).

    Args:
        targets: class index of each image, shape (n,).
        probabilities: shape (n, len(classes)).
        classes: class names.
        resamples: how many times the images are drawn anew.
        confidence: share of resamples inside the interval.
        seed: of the draws.
        groups: lesion or patient of each image, drawn together; None draws images. A group stands in the stratum of
            its first image's class.

    Returns:
        Lower and upper bound of `accuracy`, `balanced_accuracy`, `macro_f1`, `auc` and `sensitivity/<class>`; empty
        without resamples or where a probability is not finite.
    """
    if resamples < 1 or not np.isfinite(probabilities).all():
        return {}
    rng = np.random.default_rng(seed)
    chunks = [min(_CHUNK, resamples - start) for start in range(0, resamples, _CHUNK)]
    drawn = [_resampled(targets, probabilities, classes, _draws(targets, groups, size, rng)) for size in chunks]
    found = {name: np.concatenate([chunk[name] for chunk in drawn]) for name in drawn[0]}
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    bounds = {name: np.nanquantile(values, tails) for name, values in found.items()}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}


def _resampled(
    targets: NDArray[np.integer], probabilities: NDArray, classes: Sequence[str], weights: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """Each metric in each resample, given how often each image was drawn: weights (resamples, n)."""
    count = len(classes)
    present = np.unique(targets)
    cells = np.eye(count * count, dtype=np.float32)[targets * count + probabilities.argmax(axis=1)]
    confusion = (weights @ cells).reshape(len(weights), count, count)[:, present]
    hits = confusion[:, np.arange(len(present)), present]
    support, predicted = confusion.sum(axis=2), confusion.sum(axis=1)[:, present]
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = hits / support
        f1 = np.where(support + predicted > 0, 2 * hits / (support + predicted), 0.0)
    found = {
        "accuracy": hits.sum(axis=1) / weights.sum(axis=1),
        "balanced_accuracy": np.nanmean(recall, axis=1),
        "macro_f1": f1.mean(axis=1),
        **{f"sensitivity/{classes[c]}": recall[:, i] for i, c in enumerate(present)},
    }
    if len(present) > 1:
        columns = [1] if count == 2 else list(present)
        found["auc"] = np.mean([_auc(weights, targets == c, probabilities[:, c]) for c in columns], axis=0)
    return found


def _draws(
    targets: NDArray[np.integer], groups: NDArray | None, resamples: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """How often each image is drawn in each resample, shape (resamples, n)."""
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


def _auc(weights: NDArray[np.float32], positive: NDArray[np.bool_], scores: NDArray) -> NDArray[np.float64]:
    """Weighted AUC of each resample: the Mann-Whitney statistic, ties counting half."""
    _, rank = np.unique(scores, return_inverse=True)
    order = np.argsort(rank, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(rank[order]) > 0])
    sorted_weights = weights[:, order].astype(np.float64)
    sorted_positive = positive[order]
    of_positive = np.add.reduceat(sorted_weights * sorted_positive, starts, axis=1)
    of_negative = np.add.reduceat(sorted_weights * ~sorted_positive, starts, axis=1)
    below = np.cumsum(of_negative, axis=1) - of_negative / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return (of_positive * below).sum(axis=1) / (of_positive.sum(axis=1) * of_negative.sum(axis=1))
