"""Confidence intervals of metrics, for images that come in groups, such as lesions."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from melanoma.evaluation.delong import auc_influence, auc_interval
from melanoma.evaluation.metrics import resampled_metrics
from melanoma.evaluation.predictions import Bootstrap, Predictions
from melanoma.evaluation.proportions import mean_interval, proportion_interval

__all__ = ["FEWEST_GROUPS", "bootstrap_values", "bootstrap_weights", "intervals_of"]

FEWEST_GROUPS = 10  # for a comparison: with fewer, resamples hardly differ

# Resamples computed at a time, to limit the memory to this many weights per image.
_CHUNK = 100


def intervals_of(predictions: Predictions, bootstrap: Bootstrap) -> dict[str, tuple[float, float]]:
    """Compute intervals of the metrics of `measure`.

    Shares of images (accuracy, sensitivity, specificity, precision) have the intervals of `proportion_interval`, AUCs
    that of `auc_interval`, and means of them over classes that of `mean_interval`. The others are percentiles of a
    bootstrap (Efron & Tibshirani 1993) of whole groups of images, in which the number of images of each class varies.

    Returns:
        Lower and upper bound of each metric of `measure` except `support/<class>`; empty without resamples or if a
        probability is not finite. Resamples in which a metric is not defined are ignored.
    """
    if bootstrap.resamples < 1 or not predictions.finite:
        return {}
    found = _of_proportions(predictions, bootstrap.confidence) | _of_aucs(predictions, bootstrap.confidence)
    drawn = bootstrap_values(predictions, bootstrap, lambda weights: resampled_metrics(predictions, weights))
    for name, values in drawn.items():
        if name not in found and np.isfinite(values).any():
            low, high = np.nanquantile(values, bootstrap.tails)
            found[name] = (float(low), float(high))
    return found


def _of_proportions(predictions: Predictions, confidence: float) -> dict[str, tuple[float, float]]:
    p, groups = predictions, predictions.group_numbers
    right = p.predicted == p.targets
    found = {"accuracy": proportion_interval(right, groups, confidence)}
    for c, label in enumerate(p.classes):
        of_class, named = p.targets == c, p.predicted == c
        shares = {"sensitivity": (named, of_class), "specificity": (~named, ~of_class), "precision": (of_class, named)}
        for name, (hits, among) in shares.items():
            if among.any():
                found[f"{name}/{label}"] = proportion_interval(hits[among], groups[among], confidence)
    sensitivities = [(float(right[p.targets == c].mean()), *found[f"sensitivity/{p.classes[c]}"]) for c in p.present]
    found["balanced_accuracy"] = mean_interval(*np.array(sensitivities).T)
    return found


def _of_aucs(predictions: Predictions, confidence: float) -> dict[str, tuple[float, float]]:
    p, groups = predictions, predictions.group_numbers
    if len(p.present) < 2:
        return {}
    asked = {f"{task.prefix}auc": (task.positive, task.scores) for task in p.binary if task.has_both}
    of_classes = {f"auc/{p.classes[c]}": c for c in p.present} if len(p.classes) > 2 else {}
    asked |= {name: (p.targets == c, p.probabilities[:, c]) for name, c in of_classes.items()}
    found, influences = {}, {}
    for name, (positive, scores) in asked.items():
        auc, influences[name] = auc_influence(positive, scores, groups)
        positives, negatives = (len(np.unique(groups[own])) for own in (positive, ~positive))
        low, high = auc_interval(auc, float((influences[name] ** 2).sum()), positives, negatives, confidence)
        found[name] = (auc, low, high)
    bounds = {name: (low, high) for name, (_, low, high) in found.items()}
    if of_classes:
        # As if the classes were independent, then wider by as much as they are not: an image is of one class.
        together = np.array([influences[name] for name in of_classes])
        apart = float((together**2).sum())
        wider = np.sqrt(max(float((together.sum(axis=0) ** 2).sum()) / apart, 1.0)) if apart > 0 else 1.0
        values, lows, highs = np.array([found[name] for name in of_classes]).T
        mean, (low, high) = float(values.mean()), mean_interval(values, lows, highs)
        bounds["auc"] = (max(mean - (mean - low) * wider, 0.0), min(mean + (high - mean) * wider, 1.0))
    return bounds


def bootstrap_values(
    predictions: Predictions,
    bootstrap: Bootstrap,
    measure: Callable[[NDArray[np.float32]], dict[str, NDArray[np.float64]]],
) -> dict[str, NDArray[np.float64]]:
    """Compute values by name in each resample, shape (resamples,).

    Whole groups are drawn, of all classes together: another sample of patients would not have as many of each class.
    `measure` is called with how often each image is drawn, shape (resamples, n).
    """
    rng, groups, count = np.random.default_rng(bootstrap.seed), predictions.group_numbers, predictions.number_of_groups
    sizes = [min(_CHUNK, bootstrap.resamples - start) for start in range(0, bootstrap.resamples, _CHUNK)]
    drawn = [
        measure(rng.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float32)[:, groups])
        for size in sizes
    ]
    return {name: np.concatenate([chunk[name] for chunk in drawn]) for name in drawn[0]}


def bootstrap_weights(
    targets: NDArray[np.integer], groups: NDArray | None, resamples: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw groups within each class, for bands of curves, and return how often each image is drawn: (resamples, n).

    The class of the first image of a group determines its stratum.

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
