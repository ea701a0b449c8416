"""What a result says about the training, and what to try next, each with the key to type."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from melanoma.config.arguments import quoted
from melanoma.evaluation.intervals import intervals_of
from melanoma.evaluation.metrics import expected_calibration_error, is_error, measure
from melanoma.evaluation.predictions import Bootstrap, Predictions
from melanoma.evaluation.proportions import difference_interval

__all__ = ["Gap", "Trained", "findings", "generalization_gap"]

_FEW = 10  # training images of a class, below which it can hardly be learned
_DOMINANT = 0.5  # share of the largest of more than two classes
_NEAR_PERFECT = 0.99  # value on training images that leaves nothing to improve
_UNEQUAL = 1.5  # ratio of the largest to the smallest class, from which weights may help
_IMBALANCE = 5.0  # ratio of the largest to the smallest class
_UNCALIBRATED = 0.1  # expected calibration error
_OVERFITTING = 0.05  # lower bound of the gap
_UNCLEAR = 0.1  # upper bound of the gap


@dataclass(frozen=True)
class Gap:
    """A metric of the training images, without augmentation, compared with that of the validation images.

    Attributes:
        metric: Name of the metric.
        training: Its value on training images.
        validation: Its value on validation images.
        low: Lower bound of the interval of the gap; NaN if there are too few images.
        high: Upper bound of the interval of the gap; NaN if there are too few images.
    """

    metric: str
    training: float
    validation: float
    low: float
    high: float

    @property
    def value(self) -> float:
        """How much better the metric is on training images; negative if it is worse."""
        return (self.validation - self.training) * (1 if is_error(self.metric) else -1)


@dataclass(frozen=True)
class Trained:
    """Facts of a training.

    Attributes:
        images: Number of training images of each class, without augmented ones.
        epochs: Number of epochs.
        best: Number of the best epoch, from 1; None if the last one is kept in any case.
        longer: The key to type for a training of twice the length.
        augmentation: `augmentation.name`.
        balance: `balance.name`.
        calibration: `evaluation.calibration`.
        patience: `training.early_stopping.patience`.
        stopped_early: Whether early stopping ended the training.
    """

    images: Mapping[str, int]
    epochs: int
    best: int | None
    longer: str
    augmentation: str
    balance: str
    calibration: str
    patience: int | None = None
    stopped_early: bool = False

    @property
    def imbalance(self) -> float:
        """Ratio of the largest to the smallest class."""
        return max(self.images.values()) / max(min(self.images.values()), 1)


def generalization_gap(training: Predictions, validation: Predictions, metric: str, bootstrap: Bootstrap) -> Gap | None:
    """Compare a metric between training and validation images.

    Returns:
        The gap, with bounds that are NaN if the metric has no interval in one of the parts; None if the metric is not
        defined.
    """
    bounded = []
    for one in (training, validation):
        value = measure(one).get(metric)
        if value is None:
            return None
        bounded.append((value, *intervals_of(one, bootstrap).get(metric, (np.nan, np.nan))))
    low, high = difference_interval(*(reversed(bounded) if is_error(metric) else bounded))
    return Gap(metric, bounded[0][0], bounded[1][0], low, high)


def findings(trained: Trained, validation: Predictions, gap: Gap | None) -> list[str]:
    """Return what the result says about the training, as sentences that end in what to try.

    Args:
        trained: Facts of the training.
        validation: Predictions of the validation images.
        gap: Gap of the primary metric, if it is known.
    """
    return [
        *_fit(trained, validation, gap),
        *_classes(trained),
        *_calibration(trained, validation),
    ]


def _fit(trained: Trained, validation: Predictions, gap: Gap | None) -> list[str]:
    found = []
    named = np.unique(validation.predicted)
    if len(named) == 1:
        label = validation.classes[int(named[0])]
        weigh = trained.balance == "none" and trained.imbalance > _UNEQUAL
        remedy = ", or weight the classes (balance=class_weight)" if weigh else ""
        found.append(f"All validation images are predicted as {label}. Train longer ({trained.longer}){remedy}.")
    if trained.best == trained.epochs and not trained.stopped_early:
        found.append(
            f"The best epoch was the last of {trained.epochs}, so that training may not be complete. Try "
            f"{trained.longer}."
        )
    if gap is None or not np.isfinite(gap.low):
        return found
    size = (
        f"{gap.metric} is {gap.training:.3f} on training images and {gap.validation:.3f} on validation images, a gap "
        f"of {_signed(gap.value)} [{_signed(gap.low)}, {_signed(gap.high)}]"
    )
    if gap.low > _OVERFITTING:
        remedies = [
            *(["augmentation=dermoscopy"] if trained.augmentation != "dermoscopy" else []),
            *(["training.early_stopping.patience=5"] if trained.patience is None else []),
            "more images",
        ]
        found.append(f"Overfitting: {size}. Try {' or '.join(remedies)}.")
    elif gap.low > 0:
        found.append(f"Slight overfitting: {size}.")
    elif gap.high > _UNCLEAR:
        found.append(f"Overfitting was neither shown nor ruled out: {size}. More validation images would tell.")
    else:
        perfect = not is_error(gap.metric) and gap.training > _NEAR_PERFECT
        remedy = "" if perfect else f" A larger model or a longer training ({trained.longer}) may improve both."
        found.append(f"No overfitting was shown: {size}.{remedy}")
    return found


def _signed(number: float) -> str:
    return f"{round(number, 3) + 0.0:+.3f}"  # adding 0 turns -0 into 0


def _classes(trained: Trained) -> list[str]:
    found = []
    for label, images in trained.images.items():
        if images < _FEW:
            plural = "" if images == 1 else "s"
            text = label if re.fullmatch(r"[\w .-]+", label) else quoted(label)
            remedy = f"Try {shlex.quote(f'data.leave_out=[{text}]')}, or add" if len(trained.images) > 2 else "Add"
            found.append(f"Only {images} training image{plural} of {label}. {remedy} images.")
    counts = {label: images for label, images in trained.images.items() if images >= _FEW}
    if trained.balance != "none" or len(counts) < 2:
        return found
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    share, ratio = counts[largest] / sum(trained.images.values()), counts[largest] / counts[smallest]
    if ratio > _IMBALANCE or (len(counts) > 2 and share > _DOMINANT):
        found.append(
            f"{largest} has {share:.0%} of the training images, {ratio:.0f} times as many as {smallest}. Try "
            "balance=class_weight."
        )
    return found


def _calibration(trained: Trained, validation: Predictions) -> list[str]:
    error = expected_calibration_error(validation)
    if trained.calibration != "none" or not error > _UNCALIBRATED:
        return []
    return [
        f"The probabilities are not calibrated: the expected calibration error on validation is {error:.2f}. Try "
        "evaluation.calibration=temperature."
    ]
