"""Metrics of subgroups: by sex, age band, site, or any other metadata column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from numpy.typing import NDArray

from melanoma.evaluation.evaluate import groups_of
from melanoma.evaluation.intervals import bootstrap_intervals
from melanoma.evaluation.metrics import metrics_of

__all__ = ["Subgroup", "measured_subgroups", "worst_subgroup"]

_BAND = 20
_MOST_VALUES = 12


@dataclass(frozen=True)
class Subgroup:
    """One value of a column.

    Attributes:
        column: of the metadata.
        value: of the column, `unknown` where there is none; a number's band.
        images: with that value.
        metrics: see `metrics_of`; empty where there are too few images to assess.
        intervals: lower and upper bound by metric.
    """

    column: str
    value: str
    images: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def measured_subgroups(
    rows: pd.DataFrame,
    probabilities: NDArray,
    classes: Sequence[str],
    *,
    views: Mapping[str, Sequence[str]],
    columns: Sequence[str],
    minimum: int,
    resamples: int,
    confidence: float,
    seed: int,
) -> list[Subgroup]:
    """Measure each value of each column that the rows have.

    Args:
        rows: `target` and metadata columns of the images.
        probabilities: shape (len(rows), len(classes)).
        classes: class names.
        views: see `metrics_of`.
        columns: metadata columns; one that is absent, or of more than 12 values that are no numbers, is passed over.
        minimum: images below which a subgroup is listed but not assessed.
        resamples: of the bootstrap.
        confidence: of the intervals.
        seed: of the bootstrap.
    """
    targets, found = rows.target.to_numpy(), []
    groups = groups_of(rows)
    for column in columns:
        values = _values(rows[column]) if column in rows else None
        if values is None or values.nunique() < 2:
            continue
        for value in sorted(values.unique()):
            own = (values == value).to_numpy()
            metrics: dict[str, float] = {}
            intervals: dict[str, tuple[float, float]] = {}
            if own.sum() >= minimum:
                metrics = metrics_of(targets[own], probabilities[own], classes, views)
                intervals = bootstrap_intervals(
                    targets[own], probabilities[own], classes, views=views, resamples=resamples, confidence=confidence,
                    seed=seed, groups=None if groups is None else groups[own],
                )  # fmt: skip
            found.append(Subgroup(column, str(value), int(own.sum()), metrics, intervals))
    return found


def worst_subgroup(subgroups: Sequence[Subgroup], metric: str) -> Subgroup | None:
    """The assessed subgroup of the lowest metric, or None where no subgroup has it."""
    assessed = [subgroup for subgroup in subgroups if metric in subgroup.metrics]
    return min(assessed, key=lambda subgroup: subgroup.metrics[metric]) if assessed else None


def _values(column: pd.Series) -> pd.Series | None:
    """Texts; numbers in bands of 20, named so that they sort. None where there are too many texts."""
    numbers = pd.to_numeric(column, errors="coerce")
    if column.notna().any() and (numbers.notna() == column.notna()).all() and numbers.nunique() > 2:
        low = (numbers // _BAND * _BAND).astype("Int64")
        bands = low.map(lambda start: f"{start:02d} to {start + _BAND - 1}", na_action="ignore")
        return bands.astype(object).where(numbers.notna(), "unknown")
    texts = column.astype(object).where(column.notna() & (column.astype(str) != ""), "unknown").astype(str)
    return texts if texts.nunique() <= _MOST_VALUES else None
