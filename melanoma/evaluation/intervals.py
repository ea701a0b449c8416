"""Bootstrap intervals: whole groups are drawn, within each class, and all metrics are computed at once."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from melanoma.evaluation.curves import curve
from melanoma.evaluation.metrics import CALIBRATION_BINS, problems

__all__ = ["bootstrap_intervals", "draws", "resampled"]

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
    views: Mapping[str, Sequence[str]] | None = None,
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
        views: see `metrics_of`.

    Returns:
        Lower and upper bound of all that `metrics_of` gives but `support/<class>`; empty without resamples or where a
        probability is not finite. A resample in which a metric is not defined does not count.
    """
    if resamples < 1 or not np.isfinite(probabilities).all():
        return {}
    rng = np.random.default_rng(seed)
    chunks = [min(_CHUNK, resamples - start) for start in range(0, resamples, _CHUNK)]
    drawn = [resampled(targets, probabilities, classes, views, draws(targets, groups, size, rng)) for size in chunks]
    found = {name: np.concatenate([chunk[name] for chunk in drawn]) for name in drawn[0]}
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    defined = {name: values for name, values in found.items() if np.isfinite(values).any()}
    bounds = {name: np.nanquantile(values, tails) for name, values in defined.items()}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}


def resampled(
    targets: NDArray[np.integer],
    probabilities: NDArray,
    classes: Sequence[str],
    views: Mapping[str, Sequence[str]] | None,
    weights: NDArray[np.float32],
) -> dict[str, NDArray[np.float64]]:
    """Each metric in each resample, given how often each image was drawn: weights (resamples, n)."""
    present = np.unique(targets)
    found = {
        **_from_confusion(targets, probabilities.argmax(axis=1), classes, present, weights),
        **_from_losses(targets, probabilities, weights),
    }
    if len(present) < 2:
        return found
    for prefix, (positive, scores) in problems(targets, probabilities, classes, views).items():
        measures = curve(positive, scores, weights).measures()
        found.update({f"{prefix}{name}": values for name, values in measures.items()})
    if len(classes) > 2:
        for c in present:
            against_rest = curve(targets == c, probabilities[:, c], weights)
            found[f"auc/{classes[c]}"] = against_rest.auc()
            found[f"average_precision/{classes[c]}"] = against_rest.average_precision()
        for name in ("auc", "average_precision"):
            found[name] = np.mean([found[f"{name}/{classes[c]}"] for c in present], axis=0)
    return found


def _from_confusion(
    targets: NDArray[np.integer],
    predicted: NDArray[np.integer],
    classes: Sequence[str],
    present: NDArray[np.integer],
    weights: NDArray[np.float32],
) -> dict[str, NDArray[np.float64]]:
    count = len(classes)
    cells = np.eye(count * count, dtype=np.float32)[targets * count + predicted]
    confusion = (weights @ cells).reshape(len(weights), count, count).astype(np.float64)
    hits = np.einsum("rcc->rc", confusion)
    support, named, total = confusion.sum(axis=2), confusion.sum(axis=1), confusion.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = hits / support
        f1 = np.where(support + named > 0, 2 * hits / (support + named), 0.0)
        classwise = {
            "sensitivity": sensitivity,
            "specificity": 1 - (named - hits) / (total[:, None] - support),
            "precision": hits / named,
            "f1": np.where(support > 0, f1, np.nan),
        }
        spread = [total**2 - (side**2).sum(axis=1) for side in (support, named)]
        mcc = (hits.sum(axis=1) * total - (support * named).sum(axis=1)) / np.sqrt(spread[0] * spread[1])
    found = {
        "accuracy": hits.sum(axis=1) / total,
        "balanced_accuracy": np.nanmean(sensitivity[:, present], axis=1),
        "macro_f1": f1[:, present].mean(axis=1),
        "weighted_f1": (f1 * support).sum(axis=1) / total,
        "mcc": np.where(spread[1] == 0, 0.0, mcc) if len(present) > 1 else np.full(len(weights), np.nan),
    }
    return found | {f"{n}/{label}": v[:, i] for n, v in classwise.items() for i, label in enumerate(classes)}


def _from_losses(
    targets: NDArray[np.integer], probabilities: NDArray, weights: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    rows = np.arange(len(targets))
    kept = np.clip(probabilities, np.finfo(probabilities.dtype).eps, 1)
    losses = {
        "log_loss": -np.log(kept[rows, targets]),
        "brier": ((probabilities - np.eye(probabilities.shape[1])[targets]) ** 2).sum(axis=1),
    }
    if probabilities.shape[1] == 2:
        losses["brier"] = losses["brier"] / 2
    total = weights.sum(axis=1)
    bins = np.minimum((probabilities.max(axis=1) * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = probabilities.max(axis=1) - (probabilities.argmax(axis=1) == targets)
    by_bin = weights @ (np.eye(CALIBRATION_BINS)[bins] * gaps[:, None])
    return {
        **{name: weights @ values / total for name, values in losses.items()},
        "ece": np.abs(by_bin).sum(axis=1) / total,
    }


def draws(
    targets: NDArray[np.integer], groups: NDArray | None, resamples: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """How often each image is drawn in each resample, shape (resamples, n); see `bootstrap_intervals`."""
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
