"""Comparison of a model with human readers of the same images.

Readers and images are both samples: the result should hold for other readers and other images. The analysis is that of
Obuchowski & Rockette (1995) for one test, with the degrees of freedom of Hillis (2007), applied to the differences of
each reader from the model, as in Chakraborty (2017), chapter "Standalone CAD vs. radiologists".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr

from melanoma.errors import DataError
from melanoma.evaluation.delong import auc_influence
from melanoma.evaluation.predictions import BinaryTask
from melanoma.evaluation.proportions import FEWEST_GROUPS, Bounded, mean_influence, quantile, rate_interval

__all__ = ["Reader", "ReaderTest", "compare_with_readers", "reader_calls"]


@dataclass(frozen=True)
class Reader:
    """The calls of one reader.

    Attributes:
        name: Name of the reader.
        images: Position of each image that was read, in the predictions of the model.
        called: Whether each was called positive.
        ratings: Rating of each, higher for more suspicious.
        sensitivity: Share of positives that were called, with its interval.
        specificity: Share of negatives that were not called, with its interval.
    """

    name: str
    images: NDArray[np.integer]
    called: NDArray[np.bool_]
    ratings: NDArray[np.float64]
    sensitivity: Bounded
    specificity: Bounded


@dataclass(frozen=True)
class ReaderTest:
    """Difference between the model and the mean reader.

    Attributes:
        metric: `sensitivity`, `specificity` or `auc`.
        model: Value of the model on the images that were read.
        readers: Mean value of the readers.
        difference: Mean of the differences, model minus reader.
        low: Lower bound of the interval of the difference, for other readers and other images.
        high: Upper bound.
        p_value: Two-sided p-value of no difference.
    """

    metric: str
    model: float
    readers: float
    difference: float
    low: float
    high: float
    p_value: float


def reader_calls(
    table: pd.DataFrame, paths: Sequence[str], task: BinaryTask, groups: NDArray, threshold: float | None
) -> list[Reader]:
    """Match the ratings of readers with the images of a run.

    Args:
        table: Columns `reader`, `image` (path, file name, or file name without suffix) and `rating` (a number).
        paths: Path of each image of the run.
        task: The binary task that the ratings are of.
        groups: Group of each image, as integers from 0.
        threshold: Ratings of at least this call an image positive; None if all ratings are 0 or 1.

    Raises:
        DataError: If an image is not of the run or not unique, a reader rates it twice, a rating is no number, or a
            reader has no positives or no negatives.
    """
    positions = _positions(paths, list(table.image))
    ratings = pd.to_numeric(table.rating, errors="coerce")
    wrong = ~np.isfinite(ratings)
    if wrong.any():
        raise DataError(f"Ratings are finite numbers. Received: {table.rating[wrong].iloc[0]}")
    if threshold is not None and not np.isfinite(threshold):
        raise DataError(f"The threshold is a finite number. Received: --threshold {threshold}")
    names = table.reader.astype(str).str.strip()
    if (names == "").any():
        raise DataError(
            f"Each rating needs the name of a reader. Received: none for {table.image[names == ''].iloc[0]}"
        )
    if threshold is None and not set(ratings) <= {0, 1}:
        raise DataError(
            "Ratings other than 0 and 1 need a threshold from which an image counts as called, as in --threshold 4. "
            f"Received: {sorted(set(ratings))[:6]}"
        )
    rated = pd.DataFrame({"reader": names, "image": positions, "rating": ratings})
    twice = rated[rated.duplicated(["reader", "image"])]
    if len(twice):
        row = twice.iloc[0]
        raise DataError(f"A reader rated an image twice. Received: {row.reader}, {paths[int(row.image)]}")
    return [
        _reader(str(name), own.image.to_numpy(), own.rating.to_numpy(float), task, groups, threshold)
        for name, own in rated.groupby("reader", sort=True)
    ]


def compare_with_readers(
    readers: Sequence[Reader], task: BinaryTask, groups: NDArray, threshold: float, confidence: float = 0.95
) -> list[ReaderTest]:
    """Compare a model with the mean reader, for other readers and other images.

    Args:
        readers: Two or more readers.
        task: Scores of the model.
        groups: Group of each image, as integers from 0.
        threshold: Threshold of the model, chosen on other images.
        confidence: Confidence level of the intervals.

    Returns:
        The tests of sensitivity and specificity, and of the AUC if all readers rate on more than two levels; without
        those for which a reader has read fewer than `FEWEST_GROUPS` groups of the images that they need.
    """
    referred = task.scores >= threshold
    counts = {
        side: min(len(np.unique(groups[r.images][own[r.images]])) for r in readers)
        for side, own in (("sensitivity", task.positive), ("specificity", ~task.positive))
    }
    counts["auc"] = min(counts.values())
    asked = {
        "sensitivity": lambda r: _rates(referred[r.images], r.called, task.positive[r.images], groups[r.images]),
        "specificity": lambda r: _rates(~referred[r.images], ~r.called, ~task.positive[r.images], groups[r.images]),
    }
    if all(len(np.unique(reader.ratings)) > 2 for reader in readers):
        asked["auc"] = lambda r: _areas(task.scores[r.images], r.ratings, task.positive[r.images], groups[r.images])
    return [
        _tested(name, [measure(reader) for reader in readers], counts[name], confidence)
        for name, measure in asked.items()
        if counts[name] >= FEWEST_GROUPS
    ]


_RARE = 1.0  # images, at least, on which they differ, in the standard error
_Pair = tuple[float, float, NDArray[np.float64]]  # of the model, of the reader, influence of groups on the difference


def _tested(metric: str, pairs: Sequence[_Pair], images: int, confidence: float) -> ReaderTest:
    """Test the differences from readers who have read at least this number of groups of images."""
    models, values, influences = zip(*pairs, strict=True)
    size = max(len(one) for one in influences)
    errors = np.array([np.pad(one, (0, size - len(one))) for one in influences])
    differences, count = np.array(models) - np.array(values), len(pairs)
    covariances = errors @ errors.T
    # Images on which nobody differs say that differences are rare, not that there are none.
    shared = max(float((covariances.sum() - np.trace(covariances)) / (count * (count - 1))), (_RARE / images) ** 2)
    spread = float(differences.var(ddof=1))
    variance = spread / count + shared
    degrees = (spread + count * shared) ** 2 / (spread**2 / (count - 1)) if spread > 0 else np.inf
    degrees = min(degrees, images - 1)
    half, mean = quantile(confidence, degrees) * np.sqrt(variance), float(differences.mean())
    p_value = float(2 * stdtr(degrees, -abs(mean) / np.sqrt(variance)))
    low, high = max(float(mean - half), -1.0), min(float(mean + half), 1.0)
    return ReaderTest(metric, float(np.mean(models)), float(np.mean(values)), mean, low, high, p_value)


def _rates(
    model: NDArray[np.bool_], reader: NDArray[np.bool_], among: NDArray[np.bool_], groups: NDArray[np.integer]
) -> _Pair:
    """Return the shares of hits among some images, and the influence of each group on their difference."""
    difference = model[among].astype(float) - reader[among]
    influence = mean_influence(difference, groups[among])[1]
    return float(model[among].mean()), float(reader[among].mean()), influence


def _areas(
    model: NDArray[np.float64], reader: NDArray[np.float64], positive: NDArray[np.bool_], groups: NDArray[np.integer]
) -> _Pair:
    own, of_model = auc_influence(positive, model, groups)
    other, of_reader = auc_influence(positive, reader, groups)
    return own, other, of_model - of_reader


def _reader(
    name: str,
    images: NDArray[np.integer],
    ratings: NDArray[np.float64],
    task: BinaryTask,
    groups: NDArray,
    threshold: float | None,
) -> Reader:
    called, positive, own = ratings >= (0.5 if threshold is None else threshold), task.positive[images], groups[images]
    if not 0 < positive.sum() < len(positive):
        raise DataError(
            f"Each reader must have read images that are positive and images that are negative for {task.name}. "
            f"Received: {name}, {positive.sum()} of {len(positive)} positive"
        )
    rates = [
        (float(hits[among].mean()), *(rate_interval(hits, among, own) or (np.nan, np.nan)))
        for hits, among in ((called, positive), (~called, ~positive))
    ]
    return Reader(name, images, called, ratings, rates[0], rates[1])


def _positions(paths: Sequence[str], images: Sequence[str]) -> NDArray[np.int64]:
    """Return the position of each image, named by its path, its file name, or its file name without suffix."""
    names: dict[str, int | None] = {}
    for place, path in enumerate(paths):
        file = path.rsplit("/", 1)[-1]
        for name in {path, file, file.rsplit(".", 1)[0]}:
            names[name] = None if name in names else place
    absent = [image for image in dict.fromkeys(images) if names.get(image, -1) == -1]
    unclear = [image for image in dict.fromkeys(images) if names.get(image, 0) is None]
    if absent or unclear:
        raise DataError(
            "Readers rate test images of the run, by a path or file name that only one of them has. Received: "
            + (f"{absent[0]}, and {len(absent) - 1} others that the run did not test" if absent else f"{unclear[0]}")
        )
    return np.array([names[image] for image in images], np.int64)
