"""Predictions of images, and settings of the bootstrap of their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["BinaryTask", "Bootstrap", "Predictions"]


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the bootstrap: number of resamples, confidence level of the intervals, and seed."""

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    @property
    def tails(self) -> list[float]:
        """Lower and upper quantile that bound an interval."""
        return [(1 - self.confidence) / 2, (1 + self.confidence) / 2]


@dataclass(frozen=True)
class BinaryTask:
    """Binary task of some classes (positive) against the others.

    Attributes:
        name: Name of the task; the second class if there are two classes.
        prefix: Prefix of its metrics: empty for two classes, else the name and a slash.
        positive: Whether each image is of a positive class, shape (n,).
        scores: Sum of the probabilities of the positive classes, shape (n,).
    """

    name: str
    prefix: str
    positive: NDArray[np.bool_]
    scores: NDArray

    @property
    def has_both(self) -> bool:
        """Whether both positives and negatives occur."""
        return 0 < self.positive.sum() < len(self.positive)


@dataclass(frozen=True)
class Predictions:
    """Predicted probabilities of images with known classes.

    Attributes:
        targets: Class index of each image, shape (n,).
        probabilities: Predicted probabilities, shape (n, len(classes)).
        classes: Class names in the order of the columns of `probabilities`.
        binary_tasks: Positive classes of each binary task by name, such as `{"malignant": ["melanoma", ...]}`. Not used
            for two classes, where the second class is positive.
        groups: Group of each image (lesion, patient or cluster of copies), shape (n,); None if each image is a group.
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
        """Whether all probabilities are finite."""
        return bool(np.isfinite(self.probabilities).all())

    @cached_property
    def binary(self) -> list[BinaryTask]:
        """The second class against the first for two classes, else the tasks in `binary_tasks`."""
        if len(self.classes) == 2:
            return [BinaryTask(str(self.classes[1]), "", self.targets == 1, self.probabilities[:, 1])]
        tasks = []
        for name, positives in self.binary_tasks.items():
            columns = [i for i, label in enumerate(self.classes) if label in positives]
            scores = self.probabilities[:, columns].sum(axis=1)
            tasks.append(BinaryTask(name, f"{name}/", np.isin(self.targets, columns), scores))
        return tasks

    @cached_property
    def group_numbers(self) -> NDArray[np.integer]:
        """Group of each image as a number from 0, shape (n,)."""
        if self.groups is None:
            return np.arange(len(self))
        return np.unique(self.groups, return_inverse=True)[1]

    @property
    def number_of_groups(self) -> int:
        """Number of groups of images, which are drawn as a whole."""
        return int(self.group_numbers.max(initial=-1)) + 1

    def where(self, chosen: NDArray[np.bool_]) -> "Predictions":
        """Return the predictions of some of the images."""
        groups = None if self.groups is None else self.groups[chosen]
        return replace(self, targets=self.targets[chosen], probabilities=self.probabilities[chosen], groups=groups)
