"""Metrics of subgroups by sex, age, site or another metadata column."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from melanoma.config.schema import EvaluationConfig
from melanoma.evaluation.intervals import intervals_of
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.predictions import Bootstrap, Predictions

__all__ = ["UNKNOWN", "Subgroup", "measure_subgroups", "worst_subgroup"]

UNKNOWN = "unknown"  # value of images whose metadata lacks one

_BAND = 20
_MOST_VALUES = 12


@dataclass(frozen=True)
class Subgroup:
    """Images with one value of a metadata column.

    Attributes:
        column: Name of the metadata column.
        value: Value of the column; a range for numbers, `unknown` for missing values.
        images: Number of images with that value.
        metrics: Metrics by name; see `measure`. Empty if there are too few images to assess.
        intervals: Lower and upper bound by metric.
    """

    column: str
    value: str
    images: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def measure_subgroups(
    rows: pd.DataFrame, predictions: Predictions, settings: EvaluationConfig, bootstrap: Bootstrap
) -> list[Subgroup]:
    """Compute the metrics of the subgroups of each column in `settings.subgroups`.

    Args:
        rows: Metadata columns of the images, in the order of the predictions.
        predictions: Predictions of the images.
        settings: `subgroups` lists the columns. A column is skipped if it is absent, has only one value, or has more
            than 12 values that are not numbers. Subgroups with fewer than `subgroup_minimum` images are listed but not
            assessed.
        bootstrap: Settings of the bootstrap of the intervals.
    """
    found = []
    for column in settings.subgroups:
        values = _values(rows[column]) if column in rows else None
        if values is None or values.nunique() < 2:
            continue
        for value in sorted(values.unique()):
            own = (values == value).to_numpy()
            metrics: dict[str, float] = {}
            intervals: dict[str, tuple[float, float]] = {}
            if own.sum() >= settings.subgroup_minimum:
                metrics = measure(predictions.where(own))
                intervals = intervals_of(predictions.where(own), bootstrap)
            found.append(Subgroup(column, str(value), int(own.sum()), metrics, intervals))
    return found


def worst_subgroup(subgroups: Sequence[Subgroup], metric: str) -> Subgroup | None:
    """Return the assessed subgroup with the lowest value of a metric, or None if no subgroup has the metric.

    Images of which the value is unknown are not a subgroup.
    """
    assessed = [subgroup for subgroup in subgroups if metric in subgroup.metrics and subgroup.value != UNKNOWN]
    return min(assessed, key=lambda subgroup: subgroup.metrics[metric]) if assessed else None


def _values(column: pd.Series) -> pd.Series | None:
    """Return values as texts, with numbers in sortable ranges of 20, or None if there are too many different texts."""
    numbers = pd.to_numeric(column, errors="coerce")
    if column.notna().any() and (numbers.notna() == column.notna()).all() and numbers.nunique() > 2:
        low = (numbers // _BAND * _BAND).astype("Int64")
        bands = low.map(lambda start: f"{start:02d} to {start + _BAND - 1}", na_action="ignore")
        return bands.astype(object).where(numbers.notna(), UNKNOWN)
    texts = column.astype(object).where(column.notna() & (column.astype(str) != ""), UNKNOWN).astype(str)
    return texts if texts.nunique() <= _MOST_VALUES else None
