"""Metrics of subgroups: by sex, age band, site, or any other metadata column."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from melanoma.config.schema import EvaluationConfig
from melanoma.evaluation.intervals import bootstrap_intervals
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.predictions import Bootstrap, Predictions

__all__ = ["Subgroup", "measure_subgroups", "worst_subgroup"]

_BAND = 20
_MOST_VALUES = 12


@dataclass(frozen=True)
class Subgroup:
    """One value of a column.

    Attributes:
        column: of the metadata.
        value: of the column, `unknown` where there is none; a number's band.
        images: with that value.
        metrics: see `measure`; empty where there are too few images to assess.
        intervals: lower and upper bound by metric.
    """

    column: str
    value: str
    images: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def measure_subgroups(
    rows: pd.DataFrame, predictions: Predictions, settings: EvaluationConfig, bootstrap: Bootstrap
) -> list[Subgroup]:
    """Measure each value of each metadata column that the rows have.

    Args:
        rows: metadata columns of the images, in the order of the predictions.
        predictions: of the images.
        settings: `subgroups` names the columns, of which one that is absent, or of more than 12 values that are no
            numbers, is passed over; `subgroup_minimum` is the number of images below which a subgroup is listed but
            not assessed.
        bootstrap: of the intervals.
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
                intervals = bootstrap_intervals(predictions.where(own), bootstrap)
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
