"""Uncertain cases: prediction sets that hold the true class as often as promised, and abstention.

Both are fitted on validation, kept with the model, and measured on test. A copy of this file is inside every packaged
model: it imports nothing else of this project.
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

    A class is in an image's set when the classes that are more probable hold at most `threshold` together. So the most
    probable class is always in it, and the same image always has the same set.

    Attributes:
        coverage: share of images whose set should hold the true class.
        threshold: probability from 0 to 1; 1 where there were too few images to promise that coverage, and every set
            then holds all classes.
    """

    coverage: float
    threshold: float

    def members(self, probabilities: NDArray) -> NDArray[np.bool_]:
        """Which classes are in each image's set, shape (n, classes)."""
        return _more_probable(probabilities) <= self.threshold

    def measured(
        self, targets: NDArray[np.integer], probabilities: NDArray, classes: Sequence[str]
    ) -> dict[str, float]:
        """How the sets did on some images.

        Returns:
            `coverage`, `size` (mean number of classes), `single` (share of sets of one class), and
            `coverage/<class>` and `size/<class>` of the images of each class that occurs.
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
    """Abstaining on images whose most probable class has a probability below `threshold` (Chow 1970).

    Attributes:
        share: of the validation images on which the model abstains.
        threshold: probability from 0 to 1.
    """

    share: float
    threshold: float

    def abstained(self, probabilities: NDArray) -> NDArray[np.bool_]:
        """On which images the model abstains, shape (n,)."""
        return probabilities.max(axis=1) < self.threshold

    def measured(self, targets: NDArray[np.integer], probabilities: NDArray) -> dict[str, float]:
        """`share` of the images on which the model abstains, and the `accuracy` on the others, if there are any."""
        left = self.abstained(probabilities)
        found = {"share": float(left.mean())}
        if not left.all():
            found["accuracy"] = float((probabilities[~left].argmax(axis=1) == targets[~left]).mean())
        return found


def fit_prediction_sets(targets: NDArray[np.integer], probabilities: NDArray, coverage: float) -> PredictionSets:
    """The threshold that gives prediction sets a coverage, by split conformal prediction.

    New images drawn as these were have their class in the set with at least that probability, over all classes
    together, if nothing else was fitted to these; about that where the epoch or a calibration was. Of a single class it
    may be less.

    Args:
        targets: class index of each validation image, shape (n,).
        probabilities: shape (n, classes).
        coverage: share from 0 to 1.
    """
    needed = np.sort(_more_probable(probabilities)[np.arange(len(targets)), targets])
    rank = ceil((len(needed) + 1) * coverage)
    return PredictionSets(coverage, float(needed[rank - 1]) if rank <= len(needed) else 1.0)


def fit_abstention(probabilities: NDArray, share: float) -> Abstention:
    """The threshold below which the confidence of a `share` of some images is."""
    return Abstention(share, float(np.quantile(probabilities.max(axis=1), share, method="higher")))


def abstention_curve(
    targets: NDArray[np.integer], probabilities: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Accuracy on the images that are kept, as the model abstains on more and more of those of least confidence.

    Images of the same confidence go together.

    Returns:
        The share on which the model abstains, rising from 0, and the accuracy on the rest.
    """
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    order = np.argsort(-confidence, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(confidence[order]) != 0, True])
    kept = ends + 1
    return 1 - kept[::-1] / len(hit), (np.cumsum(hit[order])[ends] / kept)[::-1]


def _more_probable(probabilities: NDArray) -> NDArray[np.float64]:
    """What the classes that come before each class hold together; of equal ones the first comes first."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1).astype(np.float64)
    before = np.concatenate([np.zeros((len(ranked), 1)), np.cumsum(ranked, axis=1)[:, :-1]], axis=1).clip(max=1)
    found = np.empty_like(before)
    np.put_along_axis(found, order, before, axis=1)
    return found
