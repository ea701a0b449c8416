"""ROC and precision-recall curves of one class against the rest, for many weightings of the predictions at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CURVE_MEASURES", "LEVELS", "TPR_FLOOR", "Curve", "curve"]

TPR_FLOOR = 0.8  # of the partial AUC, as in the ISIC 2024 challenge
LEVELS = (0.90, 0.95)
CURVE_MEASURES = (
    "auc",
    "average_precision",
    "partial_auc",
    *(f"sensitivity_at_specificity_{level * 100:.0f}" for level in LEVELS),
    *(f"specificity_at_sensitivity_{level * 100:.0f}" for level in LEVELS),
)


@dataclass(frozen=True)
class Curve:
    """Weighted counts at each threshold, in descending order.

    Attributes:
        thresholds: Distinct scores, descending, shape (t,). Scores at or above a threshold count as positive.
        true_positives: Counts, shape (weightings, t + 1). The first is 0, for a threshold above the highest score.
        false_positives: Counts of the same shape.
    """

    thresholds: NDArray[np.float64]
    true_positives: NDArray[np.float64]
    false_positives: NDArray[np.float64]

    @property
    def tpr(self) -> NDArray[np.float64]:
        """Sensitivity at each threshold; NaN without positives."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.true_positives / self.true_positives[:, -1:]

    @property
    def fpr(self) -> NDArray[np.float64]:
        """1 - specificity at each threshold; NaN without negatives."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.false_positives / self.false_positives[:, -1:]

    def auc(self) -> NDArray[np.float64]:
        """Compute the area under the ROC curve. Ties count as one half."""
        tpr, fpr = self.tpr, self.fpr
        return (np.diff(fpr) * (tpr[:, 1:] + tpr[:, :-1])).sum(axis=1) / 2

    def average_precision(self) -> NDArray[np.float64]:
        """Compute the mean of the precision at each threshold, weighted by the increase in recall."""
        tp, fp = self.true_positives[:, 1:], self.false_positives[:, 1:]
        precision = np.divide(tp, tp + fp, out=np.zeros_like(tp), where=tp + fp > 0)
        return (np.diff(self.tpr) * precision).sum(axis=1)

    def partial_auc(self, floor: float = TPR_FLOOR) -> NDArray[np.float64]:
        """Compute the area between the ROC curve and the line TPR = floor, from 0 to 1 - floor (ISIC 2024)."""
        tpr, fpr = self.tpr, self.fpr
        rise, run = np.diff(tpr), np.diff(fpr)
        low, high = (np.clip(end, floor, 1) for end in (tpr[:, :-1], tpr[:, 1:]))
        with np.errstate(invalid="ignore", divide="ignore"):
            at_low, at_high = (
                np.where(rise > 0, fpr[:, :-1] + run * (end - tpr[:, :-1]) / rise, fpr[:, :-1]) for end in (low, high)
            )
        return ((high - low) * (1 - (at_low + at_high) / 2)).sum(axis=1)

    def sensitivity_at_specificity(self, level: float) -> NDArray[np.float64]:
        """Return the highest sensitivity at a specificity of at least `level`."""
        tpr, fpr = self.tpr, self.fpr
        return np.where(np.isnan(fpr[:, -1]), np.nan, np.where(fpr <= 1 - level + 1e-9, tpr, 0).max(axis=1))

    def specificity_at_sensitivity(self, level: float) -> NDArray[np.float64]:
        """Return the highest specificity at a sensitivity of at least `level`."""
        tpr, fpr = self.tpr, self.fpr
        return np.where(np.isnan(tpr[:, -1]), np.nan, np.where(tpr >= level - 1e-9, 1 - fpr, 0).max(axis=1))

    def measures(self) -> dict[str, NDArray[np.float64]]:
        """Compute all these measures, by the names of the tracking store, `CURVE_MEASURES`. Levels are in percent."""
        areas = {"auc": self.auc(), "average_precision": self.average_precision(), "partial_auc": self.partial_auc()}
        return areas | self.points()

    def points(self) -> dict[str, NDArray[np.float64]]:
        """Compute the sensitivity at each level of specificity in `LEVELS`, and the reverse."""
        found = {f"sensitivity_at_specificity_{x * 100:.0f}": self.sensitivity_at_specificity(x) for x in LEVELS}
        return found | {f"specificity_at_sensitivity_{x * 100:.0f}": self.specificity_at_sensitivity(x) for x in LEVELS}


def curve(positive: NDArray[np.bool_], scores: NDArray, weights: NDArray | None = None) -> Curve:
    """Compute the curve of a class from scores.

    Args:
        positive: Whether each image is of the class, shape (n,).
        scores: Scores, higher for the class, shape (n,).
        weights: Weights of the images, shape (weightings, n). None gives each image the weight 1.
    """
    weights = np.ones((1, len(scores)), np.float32) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    start = np.zeros((len(weights), 1))
    all_up_to = np.cumsum(weights[:, order], axis=1, dtype=np.float64)[:, ends]
    positives_up_to = np.cumsum(weights[:, order[positive[order]]], axis=1, dtype=np.float64)
    positives_up_to = np.concatenate([start, positives_up_to], axis=1)[:, np.cumsum(positive[order])[ends]]
    tp = np.concatenate([start, positives_up_to], axis=1)
    return Curve(ranked[ends].astype(np.float64), tp, np.concatenate([start, all_up_to], axis=1) - tp)
