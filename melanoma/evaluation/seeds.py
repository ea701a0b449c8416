"""Metrics of a recipe over several seeds, with intervals for the test images and the seeds together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from melanoma.evaluation.metrics import measure
from melanoma.evaluation.paired import Comparison, compare_predictions
from melanoma.evaluation.predictions import Bootstrap, Predictions
from melanoma.evaluation.proportions import quantile
from melanoma.evaluation.texts import with_bounds

__all__ = ["OverSeeds", "compare_over_seeds", "error_of_mean", "over_seeds", "welch_degrees"]

_BLOCKS = 10  # of images, left out in turn
_NONE, _MANY = 1e-12, 1e6  # a variance, and degrees of freedom
_UNBOUNDED = ("log_loss", "calibration_intercept", "calibration_slope")  # others are at most 1


@dataclass(frozen=True)
class OverSeeds:
    """A metric of several trainings that differ in the seed only.

    Attributes:
        values: Value of each seed.
        mean: Mean, which estimates the expected value of the recipe.
        std: Standard deviation over the seeds.
        sampling: Interval of the mean for other images and the same models; None if a seed has no interval.
        both: Interval of the mean for other images and other seeds; None if a seed has no interval.
    """

    values: tuple[float, ...]
    mean: float
    std: float
    sampling: tuple[float, float] | None
    both: tuple[float, float] | None

    def texts(self) -> tuple[str, str]:
        """Format the mean with its interval for other images and seeds, and with that for these seeds only."""
        unknown = (np.nan, np.nan)
        return with_bounds(self.mean, *(self.both or unknown)), with_bounds(self.mean, *(self.sampling or unknown))


def over_seeds(
    predictions: Sequence[Predictions],
    metrics: Sequence[Mapping[str, float]],
    intervals: Sequence[Mapping[str, tuple[float, float]]],
    confidence: float = 0.95,
) -> dict[str, OverSeeds]:
    """Combine the metrics of two or more seeds on the same images.

    The error of one model has a part that all seeds share, as some images are difficult, and a part of its own. The
    parts are told apart by a jackknife over blocks of images (Quenouille 1956). The variance of the mean is that of the
    shared part, plus the variance over the seeds, which contains the own parts, divided by their number. The quantile
    is that of Student's t with Satterthwaite's degrees of freedom (1946).

    Args:
        predictions: Predictions of each seed, of the same images in the same order.
        metrics: Their metrics; see `measure`.
        intervals: Their intervals; see `intervals_of`.
        confidence: Confidence level of the intervals.

    Returns:
        The metrics that all seeds have, by name.
    """
    number, found = len(predictions), {}
    own = _own_shares(predictions)
    for name in (name for name in metrics[0] if all(name in one for one in metrics)):
        values = np.array([one[name] for one in metrics])
        mean, std = float(values.mean()), float(values.std(ddof=1))
        sampling = both = None
        if name in own and all(name in one for one in intervals):
            low, high = (float(np.mean([one[name][end] for one in intervals])) for end in (0, 1))
            # With the same models, the own parts become smaller in the mean.
            same = float(np.sqrt(1 - own[name] * (number - 1) / number))
            sampling = (mean - same * (mean - low), mean + same * (high - mean))
            below, above = (
                _half(distance, own[name], number, std**2 / number, number - 1, confidence)
                for distance in (mean - low, high - mean)
            )
            both = _within(name, mean - below, mean + above)
        found[name] = OverSeeds(tuple(values.tolist()), mean, std, sampling, both)
    return found


def compare_over_seeds(
    models: Sequence[Predictions], references: Sequence[Predictions], bootstrap: Bootstrap
) -> list[Comparison]:
    """Compare two recipes, each trained with one or several seeds, on the same images; see `compare_predictions`.

    The difference is that of the means over the seeds, and its error has the parts of `over_seeds`. With one seed each
    it is a comparison of two models; how much a recipe with one seed depends on the seed is not known.

    Args:
        models: Predictions of each seed of the recipe.
        references: Predictions of each seed of the reference.
        bootstrap: Number and seed of the draws, and confidence level.
    """
    if len(models) == len(references) == 1:
        return compare_predictions(models[0], references[0], bootstrap)
    count = max(len(models), len(references))
    pairs = [(models[i % len(models)], references[i % len(references)]) for i in range(count)]
    compared = [{one.metric: one for one in compare_predictions(*pair, bootstrap)} for pair in pairs]
    sides = [[measure(one) for one in side] for side in (models, references)]
    own = _own_shares(models, references)
    found = []
    for name in (name for name in compared[0] if name in own and all(name in one for one in compared)):
        values = [np.array([one[name] for one in side]) for side in sides]
        variances = [float(v.var(ddof=1)) / len(v) if len(v) > 1 else 0.0 for v in values]
        seeds, degrees = sum(variances), welch_degrees(variances, [len(v) - 1 for v in values])
        difference, tests = float(values[0].mean() - values[1].mean()), [one[name] for one in compared]
        below, above = (
            float(np.mean(distances))
            for distances in zip(*((t.difference - t.low, t.high - t.difference) for t in tests), strict=True)
        )
        several = min(len(v) for v in values if len(v) > 1)
        spread = (own[name], several, seeds, degrees)
        low, high = (
            difference - _half(below, *spread, bootstrap.confidence),
            difference + _half(above, *spread, bootstrap.confidence),
        )
        if name not in _UNBOUNDED:
            low, high = max(low, -1.0), min(high, 1.0)
        # The side towards zero, so that the interval excludes zero if the p-value is small.
        towards = below if difference > 0 else above
        error, all_degrees = _error(towards / quantile(bootstrap.confidence), *spread)
        p_value = float(2 * stdtr(all_degrees, -abs(difference) / error)) if error > _NONE else 1.0
        found.append(Comparison(name, difference, low, high, p_value, "t over seeds"))
    return found


def _half(distance: float, own: float, number: int, seeds: float, degrees: float, confidence: float) -> float:
    """Return the distance of a bound of a mean over seeds, for other images and other seeds.

    Args:
        distance: Distance of a bound of one seed, for other images.
        own: Share of its variance that is the model's own.
        number: Number of seeds.
        seeds: Variance over the seeds, divided by their number.
        degrees: Degrees of freedom of `seeds`.
        confidence: Confidence level.
    """
    error, all_degrees = _error(distance / quantile(confidence), own, number, seeds, degrees)
    return quantile(confidence, all_degrees) * error


def _error(one: float, own: float, number: int, seeds: float, degrees: float) -> tuple[float, float]:
    """Return the standard error of a mean over seeds, and its degrees of freedom.

    `one` is the standard error of one seed, for other images; the other arguments are those of `_half`.
    """
    return error_of_mean(one**2 * (1 - own * (number - 1) / number), one**2 * (1 - own), seeds, degrees)


def error_of_mean(same: float, shared: float, seeds: float, degrees: float) -> tuple[float, float]:
    """Return the standard error of a mean over seeds, for other images and seeds, and its degrees of freedom.

    Seeds that happen to agree do not make the mean more certain than that of the same models on other images.

    Args:
        same: Variance of the mean for other images and the same models.
        shared: The part of it that all models share.
        seeds: Variance over the seeds, divided by their number.
        degrees: Degrees of freedom of `seeds`.
    """
    if shared + seeds <= same or seeds <= _NONE:
        return float(np.sqrt(same)), _MANY
    return float(np.sqrt(shared + seeds)), degrees * ((shared + seeds) / seeds) ** 2


def welch_degrees(variances: Sequence[float], degrees: Sequence[int]) -> float:
    """Return the degrees of freedom of a sum of variances (Welch 1947)."""
    parts = sum(v**2 / d for v, d in zip(variances, degrees, strict=True) if d > 0)
    return sum(variances) ** 2 / parts if parts > 0 else 1.0


def _own_shares(models: Sequence[Predictions], references: Sequence[Predictions] = ()) -> dict[str, float]:
    """Return the share of the variance of a seed's metric, or of a difference of two, that is of the models' own.

    A recipe with one seed has no part that could be told apart, so that it counts as shared.
    """
    sides = [_without_each_block(side) for side in (models, references) if side]
    found = {}
    for name in (name for name in sides[0] if all(name in side for side in sides)):
        values = [side[name] for side in sides]  # (blocks, seeds) each
        own = sum(
            float(np.var(v - v.mean(axis=1, keepdims=True), axis=0).sum()) / max(v.shape[1] - 1, 1) for v in values
        )
        if len(values) == 1:
            whole = float(np.var(values[0], axis=0).mean())
        else:
            count = max(v.shape[1] for v in values)
            differences = [
                values[0][:, i % values[0].shape[1]] - values[1][:, i % values[1].shape[1]] for i in range(count)
            ]
            whole = float(np.mean([np.var(one) for one in differences]))
        found[name] = min(own / whole, 1.0) if whole > 0 else 0.0
    return found


def _without_each_block(predictions: Sequence[Predictions]) -> dict[str, NDArray[np.float64]]:
    """Measure each seed without each block of groups: arrays of shape (blocks, seeds) by metric."""
    groups = predictions[0].group_numbers
    blocks = np.random.default_rng(0).permutation(predictions[0].number_of_groups) % _BLOCKS
    measured = [
        [measure(one.where(blocks[groups] != block)) for one in predictions] for block in range(blocks.max() + 1)
    ]
    names = set(measured[0][0]).intersection(*(one for row in measured for one in row))
    return {name: np.array([[one[name] for one in row] for row in measured]) for name in names}


def _within(name: str, low: float, high: float) -> tuple[float, float]:
    """Cut an interval off at the range of its metric."""
    base = name.rsplit("/", 1)[-1]
    return (low, high) if base in _UNBOUNDED else (max(low, -1.0 if base == "mcc" else 0.0), min(high, 1.0))
