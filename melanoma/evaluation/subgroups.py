"""Metrics of subgroups by sex, age, site or another metadata column, and their differences."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma.config.schema import EvaluationConfig
from melanoma.evaluation.delong import bounded_auc
from melanoma.evaluation.intervals import intervals_of, scarcity
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.operating_point import OperatingPoint, measure_at, measure_intervals_at
from melanoma.evaluation.predictions import Bootstrap, Predictions
from melanoma.evaluation.proportions import (
    Bounded,
    correlated_difference,
    difference_interval,
    mean_influence,
    proportion_interval,
)

__all__ = [
    "UNKNOWN",
    "Subgroup",
    "as_columns",
    "measure_subgroups",
    "stored_metric",
    "subgroup_metric",
    "worst_subgroup",
]

UNKNOWN = "unknown"  # value of images whose metadata lacks one

_BAND = 20  # years
_AGES = {"age", "ages", "years"}
_MOST_VALUES = 12


@dataclass(frozen=True)
class Subgroup:
    """Images with one value of a metadata column.

    Attributes:
        column: Name of the metadata column; several names joined by `*` for their combinations.
        value: Value of the column; a range for ages, `unknown` for missing values. Empty if the column was skipped.
        images: Number of images with that value.
        reason: Why the subgroup is not assessed, or the column was skipped; empty if the subgroup is assessed.
        metrics: Metrics by name; see `measure` and, for `operating_point/...`, `measure_at`. Empty if there are too few
            images.
        intervals: Lower and upper bound by metric.
        differences: Differences of the main metric, and of the sensitivity at its operating point, from all other
            images of which the value is known, with intervals that hold for all subgroups of the column together.
        p_value: Of the hypothesis that the main metric is the same in the other images, adjusted for the number of
            subgroups of the column (Bonferroni); the least of a column tests whether its subgroups differ at all.
    """

    column: str
    value: str
    images: int
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    differences: dict[str, Bounded] = field(default_factory=dict)
    p_value: float | None = None

    @property
    def is_assessed(self) -> bool:
        """Whether there are enough images for an interval of the main metric."""
        return not self.reason


def measure_subgroups(
    rows: pd.DataFrame,
    predictions: Predictions,
    settings: EvaluationConfig,
    bootstrap: Bootstrap,
    points: Sequence[OperatingPoint] = (),
) -> list[Subgroup]:
    """Compute the metrics of the subgroups of each column in `settings.subgroups`.

    Numbers with few values, such as skin types or codes, are categories. Ages, which are known by the name of their
    column, are in bands of 20 years.

    Args:
        rows: Metadata columns of the images, in the order of the predictions.
        predictions: Predictions of the images.
        settings: `subgroups` lists the columns; `sex*age` stands for the combinations of two. A column that is absent
            or has only one value is left out. One with more than 12 values is skipped, with a reason. Subgroups are
            assessed if they have `subgroup_minimum` images and enough groups of positives and negatives.
        bootstrap: Settings of the intervals.
        points: Operating points that were chosen on other images.
    """
    main = subgroup_metric(predictions)
    point = next((one for one in points if main in ("auc", f"{one.binary_task}/auc")), None)
    found = []
    for column in settings.subgroups:
        if not set(column.split("*")) <= set(rows):
            continue
        values = _values_of(rows, column)
        if isinstance(values, str):
            found.append(Subgroup(column, "", len(rows), values))
        elif values.nunique() > 1:
            of_column = []
            for value in values.cat.categories:
                own = predictions.where((values == value).to_numpy())
                one = Subgroup(column, str(value), len(own), "too few images")
                enough = len(own) >= settings.subgroup_minimum
                of_column.append(_measured(one, own, main, bootstrap, point) if enough else one)
            found += _with_differences(of_column, values.to_numpy(), predictions, main, bootstrap, point)
    return found


def subgroup_metric(predictions: Predictions) -> str:
    """Return the metric that compares subgroups: the AUC of the first binary task, or without tasks the accuracy."""
    return next((f"{task.prefix}auc" for task in predictions.binary), "accuracy")


def stored_metric(table: pd.DataFrame, wanted: str = "auc") -> str:
    """Return the metric that compares the subgroups of a table of `as_columns`.

    Args:
        table: The table; those of older versions do not name the metric.
        wanted: Another metric of the table; `auc` stands for the one that compares subgroups.
    """
    if wanted == "auc" and "metric" in table:
        return str(table.metric.iloc[0])
    measured = [name for name in table if f"{name}_ci_low" in table]
    return next((name for name in measured if name.endswith(f"/{wanted}")), wanted)


def worst_subgroup(subgroups: Sequence[Subgroup], metric: str) -> Subgroup | None:
    """Return the assessed subgroup with the lowest value of a metric, or None if there is none.

    Images of which the value is unknown are not a subgroup.
    """
    known = [one for one in subgroups if one.is_assessed and metric in one.metrics and one.value != UNKNOWN]
    return min(known, key=lambda subgroup: subgroup.metrics[metric]) if known else None


def _values_of(rows: pd.DataFrame, column: str) -> pd.Series | str:
    """Return the value of each image as an ordered category, or why the column makes no subgroups."""
    parts = [_values(rows[name], name) for name in column.split("*")]
    for part in parts:
        if isinstance(part, str):
            return part
    if len(parts) == 1:
        return parts[0]
    texts = [part.astype(str) for part in parts if not isinstance(part, str)]
    unknown = pd.concat([text == UNKNOWN for text in texts], axis=1).any(axis=1)
    joined = pd.Series([", ".join(row) for row in zip(*texts, strict=True)], index=rows.index)
    return joined.where(~unknown, UNKNOWN).astype("category")


def _values(column: pd.Series, name: str) -> pd.Series | str:
    numbers = pd.to_numeric(column, errors="coerce")
    known = column.notna() & ~column.astype(str).isin(["", UNKNOWN])
    numeric = bool(known.any() and (numbers.notna() == known).all())
    if numeric and numbers.nunique() > 2 and _AGES & set(re.split(r"[\W_]+", name.lower())):
        low = (numbers // _BAND * _BAND).astype("Int64")
        texts = low.map(lambda start: f"{start:02d} to {start + _BAND - 1}", na_action="ignore").astype(object)
    elif numeric and (numbers.dropna() % 1 == 0).all():
        texts = numbers.astype("Int64").astype(object)
    else:
        texts = column.astype(object)
    if texts[known].nunique() > _MOST_VALUES:
        return f"{texts[known].nunique()} values, where at most {_MOST_VALUES} make subgroups"
    order = [*sorted(texts[known].unique()), *([] if known.all() else [UNKNOWN])]
    return texts.where(known, UNKNOWN).astype(str).astype(pd.CategoricalDtype([str(value) for value in order]))


def _measured(
    subgroup: Subgroup, of_group: Predictions, main: str, bootstrap: Bootstrap, point: OperatingPoint | None
) -> Subgroup:
    metrics, intervals = measure(of_group), intervals_of(of_group, bootstrap)
    if point is not None:
        prefix = f"operating_point/{point.binary_task}/"
        metrics |= {prefix + name: rate for name, rate in measure_at(point, of_group).items()}
        intervals |= {prefix + name: ends for name, ends in measure_intervals_at(point, of_group, bootstrap).items()}
    reason = "" if main in intervals else scarcity(of_group).get(main, "too few images")
    return replace(subgroup, reason=reason, metrics=metrics, intervals=intervals)


def _with_differences(
    subgroups: Sequence[Subgroup],
    values: NDArray,
    predictions: Predictions,
    main: str,
    bootstrap: Bootstrap,
    point: OperatingPoint | None,
) -> list[Subgroup]:
    """Add the differences of each assessed subgroup from all other images of which the value is known."""
    count = sum(one.is_assessed and one.value != UNKNOWN for one in subgroups)
    found = []
    for one in subgroups:
        own = values == one.value
        rest = ~own & (values != UNKNOWN)
        others = predictions.where(rest)
        if not one.is_assessed or one.value == UNKNOWN or main in scarcity(others):
            found.append(one)
            continue
        together = replace(bootstrap, confidence=1 - (1 - bootstrap.confidence) / count)
        value, low, high, p_value = _difference(predictions, own, rest, main, together.confidence)
        differences = {main: (value, low, high)}
        if point is not None:
            parts = [predictions.where(own), others]
            intervals = [measure_intervals_at(point, part, together).get("sensitivity") for part in parts]
            bounded = [
                (measure_at(point, part)["sensitivity"], *ends)
                for part, ends in zip(parts, intervals, strict=True)
                if ends is not None
            ]
            if len(bounded) == 2:
                name = f"operating_point/{point.binary_task}/sensitivity"
                ends = difference_interval(bounded[0], bounded[1])
                differences[name] = (bounded[0][0] - bounded[1][0], *ends)
        found.append(replace(one, differences=differences, p_value=min(count * p_value, 1.0)))
    return found


def _difference(
    predictions: Predictions, own: NDArray[np.bool_], rest: NDArray[np.bool_], main: str, confidence: float
) -> tuple[float, float, float, float]:
    """Return the difference of a metric between two sets of images, its bounds and its p-value."""
    groups, right = predictions.group_numbers, predictions.predicted == predictions.targets
    task = next((task for task in predictions.binary if main == f"{task.prefix}auc"), None)
    bounded, errors, rarer = [], [], []
    for chosen in (own, rest):
        if task is not None:
            one, influence, few = bounded_auc(task.positive[chosen], task.scores[chosen], groups[chosen], confidence)
        else:
            share, influence = mean_influence(right[chosen], groups[chosen])
            one = (share, *proportion_interval(right[chosen], groups[chosen], confidence))
            few = len(np.unique(groups[chosen])) - 1
        bounded.append(one)
        errors.append(np.pad(influence, (0, predictions.number_of_groups - len(influence))))
        rarer.append(few)
    # A lesion can have images in both.
    return (bounded[0][0] - bounded[1][0], *correlated_difference(bounded, errors, min(rarer)))


def as_columns(subgroup: Subgroup, main: str) -> Mapping[str, object]:
    """Return a subgroup, and the metric that compares subgroups, as a row of `evaluation/subgroups.csv`."""
    bounds = {f"{name}_ci_low": low for name, (low, _) in subgroup.intervals.items()}
    bounds |= {f"{name}_ci_high": high for name, (_, high) in subgroup.intervals.items()}
    differences: dict[str, float | None] = {}
    for name, (value, low, high) in subgroup.differences.items():
        differences |= {f"difference/{name}": value}
        differences |= {f"difference/{name}_ci_low": low, f"difference/{name}_ci_high": high}
    assessed = "yes" if subgroup.is_assessed else f"no: {subgroup.reason}"
    fixed = {"column": subgroup.column, "value": subgroup.value, "images": subgroup.images, "assessed": assessed}
    fixed |= {"metric": main}
    p_value = {} if subgroup.p_value is None else {"p_value": subgroup.p_value}
    return {**fixed, **subgroup.metrics, **bounds, **differences, **p_value}
