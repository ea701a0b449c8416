"""Confidence intervals of metrics, for images that come in groups, such as lesions."""

from collections.abc import Iterator
from math import ceil

import numpy as np
from numpy.typing import NDArray

from melanoma.evaluation.calibration_line import CALIBRATION_MEASURES, calibration_intervals
from melanoma.evaluation.confusion import correlation, drawn_matrices, f1_scores
from melanoma.evaluation.curves import LEVELS, curve
from melanoma.evaluation.delong import bounded_auc
from melanoma.evaluation.metrics import brier_scores, calibration_gaps, log_losses
from melanoma.evaluation.predictions import Bootstrap, Predictions
from melanoma.evaluation.proportions import (
    FEWEST_GROUPS,
    average_interval,
    effective_number,
    mean_interval,
    proportion_interval,
    quantile,
    score_interval,
)
from melanoma.evaluation.smoothed import smoothed_intervals

__all__ = ["auc_intervals", "bootstrap_weights", "intervals_of", "scarcity"]

_ADDED = 2.0  # images that are spread over the cells of a confusion matrix, chosen by simulation
# Metrics over classes, and the share of classes that may have fewer groups than that.
_OVER_CLASSES = {"balanced_accuracy": 0.25, "macro_f1": 0.25, "mcc": 0.25, "auc": 0.25, "average_precision": 0.0}
_CHUNK = 100  # resamples computed at a time, to limit memory


def intervals_of(predictions: Predictions, bootstrap: Bootstrap) -> dict[str, tuple[float, float]]:
    """Compute intervals of the metrics of `measure`. For the method of each, see docs/evaluation.md.

    Returns:
        Lower and upper bound of each metric of `measure` except `support/<class>` and those of `scarcity`. That of the
        ECE starts at 0, because the ECE is biased upwards. The result is empty without resamples or if a probability is
        not finite.
    """
    if bootstrap.resamples < 1 or not predictions.finite or predictions.number_of_groups < FEWEST_GROUPS:
        return {}
    found = {
        **_of_shares(predictions, bootstrap.confidence),
        **_of_f1(predictions, bootstrap.confidence),
        **_of_confusion(predictions, bootstrap),
        **_of_errors(predictions, bootstrap),
        **auc_intervals(predictions, bootstrap.confidence),
        **_of_precisions(predictions, bootstrap.confidence),
        **_of_curves(predictions, bootstrap),
    }
    scarce = scarcity(predictions)
    return {name: (low, high) for name, (low, high) in found.items() if name not in scarce and low < high}


def scarcity(predictions: Predictions) -> dict[str, str]:
    """Return why metrics have no interval: too few groups of images, such as lesions, for the interval to hold.

    Returns:
        For each metric without an interval, how many groups there are of what, and how many are needed.
    """
    p, found = predictions, dict[str, str]()
    single = p.number_of_groups == len(p)
    unit, units = ("image", "images") if single else ("group of images", "groups of images")

    def too_few(counts: dict[str, int], needed: int) -> str:
        listed = [f"{n} {unit if n == 1 else units} {what}" for what, n in counts.items()]
        return f"{', '.join(listed)}, where {needed} are needed"

    for name, what, chosen, needed in _demands(p):
        count = len(np.unique(p.group_numbers[chosen]))
        if count < needed:
            found.setdefault(name, too_few({what: count}, needed))
    counts = {f"of {p.classes[c]}": len(np.unique(p.group_numbers[p.targets == c])) for c in p.present}
    few = {label: count for label, count in counts.items() if count < FEWEST_GROUPS}
    # A mean over classes holds if few of them have few images, but for the average precision, which is biased then.
    for name, share in _OVER_CLASSES.items():
        if len(few) > share * len(p.present):
            found.setdefault(name, too_few(few, FEWEST_GROUPS))
    return found


def _demands(p: Predictions) -> Iterator[tuple[str, str, NDArray[np.bool_], int]]:
    """Yield metrics, and which images they need how many groups of."""
    everything = np.ones(len(p), bool)
    for name in ("accuracy", "weighted_f1", "mcc", "log_loss", "brier", "ece"):
        yield name, "in all", everything, FEWEST_GROUPS
    for c, label in enumerate(p.classes):
        own, named = p.targets == c, p.predicted == c
        yield f"precision/{label}", f"predicted as {label}", named, FEWEST_GROUPS
        for name in ("sensitivity", "f1", "auc", "average_precision"):
            yield f"{name}/{label}", f"of {label}", own, FEWEST_GROUPS
        for name in ("specificity", "auc", "average_precision"):
            yield f"{name}/{label}", f"of other classes than {label}", ~own, FEWEST_GROUPS
    for task in p.binary:
        sides = {"positive": task.positive, "negative": ~task.positive}
        words = {side: f"{side} for {task.name}" for side in sides} if task.prefix else {}
        words = words or {side: f"of {label}" for side, label in zip(sides, reversed(p.classes), strict=True)}
        # Two of them may be missed at a level, so that its threshold does not depend on a single one.
        areas = ("auc", "average_precision", "partial_auc", *CALIBRATION_MEASURES)
        needed = dict.fromkeys(areas, (FEWEST_GROUPS, FEWEST_GROUPS))
        for level in LEVELS:
            many = max(ceil(round(2 / (1 - level), 6)), FEWEST_GROUPS)
            needed[f"specificity_at_sensitivity_{level * 100:.0f}"] = (many, FEWEST_GROUPS)
            needed[f"sensitivity_at_specificity_{level * 100:.0f}"] = (FEWEST_GROUPS, many)
        for name, numbers in needed.items():
            for side, number in zip(sides, numbers, strict=True):
                yield f"{task.prefix}{name}", words[side], sides[side], number


def _of_shares(p: Predictions, confidence: float) -> dict[str, tuple[float, float]]:
    groups = p.group_numbers
    right = p.predicted == p.targets
    found = {"accuracy": proportion_interval(right, groups, confidence)}
    for c, label in enumerate(p.classes):
        of_class, named = p.targets == c, p.predicted == c
        shares = {"sensitivity": (named, of_class), "specificity": (~named, ~of_class), "precision": (of_class, named)}
        for name, (hits, among) in shares.items():
            if among.any():
                found[f"{name}/{label}"] = proportion_interval(hits[among], groups[among], confidence)
    sensitivities = [(float(right[p.targets == c].mean()), *found[f"sensitivity/{p.classes[c]}"]) for c in p.present]
    found["balanced_accuracy"] = mean_interval(sensitivities)
    return found


def _of_f1(p: Predictions, confidence: float) -> dict[str, tuple[float, float]]:
    """The F1 is 2 j / (1 + j), where j is a share: of the images of a class or predicted as it, those that are both."""
    groups, found, values = p.group_numbers, {}, []
    influences: list[NDArray[np.float64]] = []
    for c in p.present:
        own, named = p.targets == c, p.predicted == c
        either, both = own | named, own & named
        ends = proportion_interval(both[either], groups[either], confidence)
        low, high = (2 * end / (1 + end) for end in ends)
        value = 2 * both.sum() / (own.sum() + named.sum())
        error = (2 * both - value * (own.astype(float) + named)) / (own.sum() + named.sum())
        influences.append(np.bincount(groups, error).astype(np.float64))
        values.append((float(value), low, high))
        found[f"f1/{p.classes[c]}"] = (low, high)
    found["macro_f1"] = mean_interval(values, influences)
    return found


def _of_confusion(p: Predictions, bootstrap: Bootstrap) -> dict[str, tuple[float, float]]:
    k = len(p.classes)
    counts = np.bincount(p.targets * k + p.predicted, minlength=k * k).reshape(k, k)
    effective = effective_number(p.predicted == p.targets, p.group_numbers) / len(p)
    [shares] = drawn_matrices(counts * effective, [(0, 1)], _ADDED, bootstrap)
    drawn = {"weighted_f1": (f1_scores(shares) * shares.sum(axis=2)).sum(axis=1)}
    if len(p.present) > 1:
        drawn["mcc"] = correlation(shares)
    return {name: _ends(values, bootstrap.tails) for name, values in drawn.items()}


def _of_errors(p: Predictions, bootstrap: Bootstrap) -> dict[str, tuple[float, float]]:
    means = {"log_loss": log_losses(p), "brier": brier_scores(p)}
    found = {
        name: average_interval(values, p.group_numbers, bootstrap.confidence)
        for name, values in means.items()
        if values.any()
    }
    bins, gaps = calibration_gaps(p)
    count, columns = p.number_of_groups, bins.max() + 1
    sums = np.bincount(p.group_numbers * columns + bins, gaps, minlength=count * columns).reshape(count, columns)
    sizes, rng, drawn = np.bincount(p.group_numbers), np.random.default_rng(bootstrap.seed), []
    for start in range(0, bootstrap.resamples, _CHUNK):
        size = min(_CHUNK, bootstrap.resamples - start)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=size)
        drawn.append(np.abs(weights @ sums).sum(axis=1) / (weights @ sizes))
    found["ece"] = (0.0, float(np.quantile(np.concatenate(drawn), bootstrap.tails[1])))
    return found


def auc_intervals(p: Predictions, confidence: float) -> dict[str, tuple[float, float]]:
    """Compute the intervals of all AUCs, also if there are too few images for them; see `intervals_of`."""
    groups = p.group_numbers
    if len(p.present) < 2:
        return {}
    asked = {f"{task.prefix}auc": (task.positive, task.scores) for task in p.binary if task.has_both}
    of_classes = {f"auc/{p.classes[c]}": c for c in p.present} if len(p.classes) > 2 else {}
    asked |= {name: (p.targets == c, p.probabilities[:, c]) for name, c in of_classes.items()}
    found, influences = {}, {}
    for name, (positive, scores) in asked.items():
        found[name], influences[name], _ = bounded_auc(positive, scores, groups, confidence)
    bounds = {name: (low, high) for name, (_, low, high) in found.items()}
    if of_classes:
        bounds["auc"] = mean_interval([found[name] for name in of_classes], [influences[name] for name in of_classes])
    return bounds


def _of_precisions(p: Predictions, confidence: float) -> dict[str, tuple[float, float]]:
    """Compute the score interval for as many images as there are positive groups, after Boyd, Eng & Page (2013)."""
    asked = {f"{task.prefix}average_precision": (task.positive, task.scores) for task in p.binary if task.has_both}
    of_classes = {}
    if len(p.classes) > 2 and len(p.present) > 1:
        of_classes = {f"average_precision/{p.classes[c]}": (p.targets == c, p.probabilities[:, c]) for c in p.present}
    values = {}
    for name, (positive, scores) in {**asked, **of_classes}.items():
        value, groups = float(curve(positive, scores).average_precision()[0]), np.unique(p.group_numbers[positive])
        values[name] = (value, *score_interval(value, len(groups), quantile(confidence)))
    found = {name: (low, high) for name, (_, low, high) in values.items()}
    if of_classes:
        found["average_precision"] = mean_interval([values[name] for name in of_classes])
    return found


def _of_curves(p: Predictions, bootstrap: Bootstrap) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    for task in p.binary:
        groups = [len(np.unique(p.group_numbers[own])) for own in (task.positive, ~task.positive)]
        if min(groups) >= FEWEST_GROUPS:
            line = calibration_intervals(task.positive, task.scores, p.group_numbers, bootstrap.confidence)
            of_task = smoothed_intervals(task, p.group_numbers, bootstrap) | line
            found |= {f"{task.prefix}{name}": ends for name, ends in of_task.items()}
    return found


def _ends(values: NDArray[np.float64], tails: list[float]) -> tuple[float, float]:
    low, high = np.quantile(values, tails)
    return float(low), float(high)


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
