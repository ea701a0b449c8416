"""Prediction sets with a given coverage of the true class, and abstention.

Both are fitted on the validation images, saved with the model, and evaluated on the test images. Every packaged model
contains a copy of this file, so it must not import other modules of this project.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

__all__ = ["Abstention", "PredictionSets", "abstention_curve", "fit_abstention", "fit_prediction_sets"]


@dataclass(frozen=True)
class PredictionSets:
    """Adaptive prediction sets (Romano, Sesia & Candès 2020), without their random tie-break.

    A class is in the set of an image if the probabilities of all more probable classes sum to at most `threshold`.
    Therefore the most probable class is always in the set, and the same image always has the same set.

    Attributes:
        coverage: Share of images whose set should contain the true class.
        threshold: Probability from 0 to 1, or one for each class. It is 1 if there were too few images to guarantee the
            coverage; every set then contains all classes, or this class.
    """

    coverage: float
    threshold: float | Sequence[float]

    def members(self, probabilities: NDArray) -> NDArray[np.bool_]:
        """Return which classes are in the set of each image, shape (n, classes)."""
        return _more_probable(probabilities) <= np.asarray(self.threshold)

    def measured(
        self, targets: NDArray[np.integer], probabilities: NDArray, classes: Sequence[str]
    ) -> dict[str, float]:
        """Evaluate the sets.

        Returns:
            `coverage`, `size` (mean number of classes), `single` (share of sets with one class), and
            `coverage/<class>` and `size/<class>` for the images of each class that occurs.
        """
        members = self.members(probabilities)
        covered, sizes = members[np.arange(len(targets)), targets], members.sum(axis=1)
        found = {"coverage": covered.mean(), "size": sizes.mean(), "single": (sizes == 1).mean()}
        for c in np.unique(targets):
            own = targets == c
            found |= {f"coverage/{classes[c]}": covered[own].mean(), f"size/{classes[c]}": sizes[own].mean()}
        return {name: float(value) for name, value in found.items()}


@dataclass(frozen=True)
class Abstention:
    """Abstention on images whose most probable class has a probability below `threshold` (Chow 1970).

    Attributes:
        share: Share of the validation images on which the model abstains.
        threshold: Probability from 0 to 1.
    """

    share: float
    threshold: float

    def abstained(self, probabilities: NDArray) -> NDArray[np.bool_]:
        """Return the images on which the model abstains as a mask, shape (n,)."""
        return probabilities.max(axis=1) < self.threshold

    def measured(self, targets: NDArray[np.integer], probabilities: NDArray) -> dict[str, float]:
        """Return the `share` of images on which the model abstains, and the `accuracy` on the others, if any."""
        left = self.abstained(probabilities)
        found = {"share": float(left.mean())}
        if not left.all():
            found["accuracy"] = float((probabilities[~left].argmax(axis=1) == targets[~left]).mean())
        return found


def fit_prediction_sets(
    targets: NDArray[np.integer], probabilities: NDArray, coverage: float, *, per_class: bool = False
) -> PredictionSets:
    """Fit the threshold of prediction sets with a given coverage by split conformal prediction.

    For new images from the same distribution, the set contains the true class with at least this probability over all
    classes together, if nothing else was fitted on the same images. The guarantee is approximate if the epoch or a
    calibration was also chosen on them. The coverage of a single class may be lower, unless each class has a threshold
    of its own (Vovk 2012), which makes the sets larger.

    Args:
        targets: Class index of each validation image, shape (n,).
        probabilities: Predicted probabilities, shape (n, classes).
        coverage: Share from 0 to 1.
        per_class: Whether the coverage is that of the images of each class.
    """
    needed = _more_probable(probabilities)[np.arange(len(targets)), targets]
    if not per_class:
        return PredictionSets(coverage, _threshold(needed, coverage))
    return PredictionSets(coverage, [_threshold(needed[targets == c], coverage) for c in range(probabilities.shape[1])])


def fit_abstention(probabilities: NDArray, share: float) -> Abstention:
    """Fit the threshold so that the confidence of a `share` of the images is below it."""
    return Abstention(share, float(np.quantile(probabilities.max(axis=1), share, method="higher")))


def abstention_curve(
    targets: NDArray[np.integer], probabilities: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the accuracy on the kept images as a function of the share of abstentions, in order of confidence.

    Images with equal confidence are kept or dropped together.

    Returns:
        The share on which the model abstains, ascending from 0, and the accuracy on the other images.
    """
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    order = np.argsort(-confidence, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(confidence[order]) != 0, True])
    kept = ends + 1
    return 1 - kept[::-1] / len(hit), (np.cumsum(hit[order])[ends] / kept)[::-1]


def _threshold(needed: NDArray[np.float64], coverage: float) -> float:
    """Return the conformal quantile of the thresholds that each image needs; 1 if there are too few images."""
    rank = ceil((len(needed) + 1) * coverage)
    return float(np.sort(needed)[rank - 1]) if rank <= len(needed) else 1.0


def _more_probable(probabilities: NDArray) -> NDArray[np.float64]:
    """Return the sum of the probabilities of all more probable classes, for each class. Ties are ordered by index."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1).astype(np.float64)
    before = np.concatenate([np.zeros((len(ranked), 1)), np.cumsum(ranked, axis=1)[:, :-1]], axis=1).clip(max=1)
    found = np.empty_like(before)
    np.put_along_axis(found, order, before, axis=1)
    return found
