"""Predictions of some images, and how their intervals are drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["BinaryTask", "Bootstrap", "Predictions", "WeightedPredictions"]


@dataclass(frozen=True)
class Bootstrap:
    """How often images are drawn anew, the share of draws inside an interval, and the seed of the draws."""

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    @property
    def tails(self) -> list[float]:
        """The two quantiles that bound an interval."""
        return [(1 - self.confidence) / 2, (1 + self.confidence) / 2]


@dataclass(frozen=True)
class BinaryTask:
    """Some classes against the others.

    Attributes:
        name: of the task; with two classes the second class.
        prefix: of its metrics: empty with two classes, else the name and a slash.
        positive: whether each image is of a positive class, shape (n,).
        scores: probability of the positive classes together, shape (n,).
    """

    name: str
    prefix: str
    positive: NDArray[np.bool_]
    scores: NDArray

    @property
    def has_both(self) -> bool:
        """Whether positives and negatives occur."""
        return 0 < self.positive.sum() < len(self.positive)


@dataclass(frozen=True)
class Predictions:
    """Probabilities of some images whose classes are known.

    Attributes:
        targets: class index of each image, shape (n,).
        probabilities: shape (n, len(classes)).
        classes: class names in the order of the columns.
        binary_tasks: by name, the classes that count as positive, as in `{"malignant": ["melanoma", ...]}`; with two
            classes they are not used, as the second class is the positive one.
        groups: lesion, patient or cluster of copies of each image, shape (n,); None where each image stands alone.
    """

    targets: NDArray[np.integer]
    probabilities: NDArray
    classes: Sequence[str]
    binary_tasks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    groups: NDArray | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """Index of the most probable class of each image, shape (n,)."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def present(self) -> NDArray[np.integer]:
        """Index of each class that occurs, ascending."""
        return np.unique(self.targets)

    @cached_property
    def finite(self) -> bool:
        """Whether all probabilities are finite numbers."""
        return bool(np.isfinite(self.probabilities).all())

    @cached_property
    def binary(self) -> list[BinaryTask]:
        """With two classes the second against the first; with more each of `binary_tasks`."""
        if len(self.classes) == 2:
            return [BinaryTask(str(self.classes[1]), "", self.targets == 1, self.probabilities[:, 1])]
        tasks = []
        for name, positives in self.binary_tasks.items():
            columns = [i for i, label in enumerate(self.classes) if label in positives]
            scores = self.probabilities[:, columns].sum(axis=1)
            tasks.append(BinaryTask(name, f"{name}/", np.isin(self.targets, columns), scores))
        return tasks

    def where(self, chosen: NDArray[np.bool_]) -> "Predictions":
        """The predictions of some of the images."""
        groups = None if self.groups is None else self.groups[chosen]
        return replace(self, targets=self.targets[chosen], probabilities=self.probabilities[chosen], groups=groups)


@dataclass(frozen=True)
class WeightedPredictions:
    """Predictions in several resamples at once.

    Attributes:
        predictions: of the images.
        weights: how often each image is drawn in each resample, shape (resamples, n).
    """

    predictions: Predictions
    weights: NDArray[np.float32]

    @cached_property
    def confusion(self) -> NDArray[np.float64]:
        """Counts of true by predicted class in each resample, shape (resamples, classes, classes)."""
        count = len(self.predictions.classes)
        cells = np.eye(count * count, dtype=np.float32)[self.predictions.targets * count + self.predictions.predicted]
        return (self.weights @ cells).reshape(len(self.weights), count, count).astype(np.float64)

    @cached_property
    def hits(self) -> NDArray[np.float64]:
        """Right predictions of each class, shape (resamples, classes)."""
        return np.einsum("rcc->rc", self.confusion)

    @cached_property
    def support(self) -> NDArray[np.float64]:
        """Images of each class, shape (resamples, classes)."""
        return self.confusion.sum(axis=2)

    @cached_property
    def named(self) -> NDArray[np.float64]:
        """Images predicted as each class, shape (resamples, classes)."""
        return self.confusion.sum(axis=1)

    @cached_property
    def total(self) -> NDArray[np.float64]:
        """Images drawn, shape (resamples,)."""
        return self.confusion.sum(axis=(1, 2))

    @cached_property
    def f1(self) -> NDArray[np.float64]:
        """F1 of each class, 0 where it neither occurs nor is predicted, shape (resamples, classes)."""
        both = self.support + self.named
        return np.divide(2 * self.hits, both, out=np.zeros_like(self.hits), where=both > 0)

    @cached_property
    def recall(self) -> NDArray[np.float64]:
        """Sensitivity of each class, NaN where it does not occur, shape (resamples, classes)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.hits / self.support

    def mean(self, values: NDArray) -> NDArray[np.float64]:
        """Mean over the images of each resample of a value an image, shape (resamples,)."""
        return self.weights @ values / self.weights.sum(axis=1)
