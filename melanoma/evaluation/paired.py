"""Paired comparison of two models on the same images: differences, intervals and tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from melanoma.data.groups import connected_groups
from melanoma.errors import DataError
from melanoma.evaluation.delong import auc_difference
from melanoma.evaluation.intervals import FEWEST_GROUPS, bootstrap_values
from melanoma.evaluation.metrics import PAIRED, measure, resampled_metrics
from melanoma.evaluation.predictions import Bootstrap, Predictions

__all__ = [
    "Comparison",
    "compare_predictions",
    "compare_tables",
    "matched_predictions",
    "predictions_in",
    "predictions_of_tables",
]


@dataclass(frozen=True)
class Comparison:
    """Difference of one metric between a model and a reference on the same images.

    Attributes:
        metric: Name of the metric in the tracking store.
        difference: Value of the model minus value of the reference.
        low: Lower bound of the interval of the difference.
        high: Upper bound of the interval.
        p_value: Two-sided p-value of the null hypothesis of no difference.
        test: `DeLong`, `McNemar` or `bootstrap`.
    """

    metric: str
    difference: float
    low: float
    high: float
    p_value: float
    test: str

    def sentence(self, model: str, reference: str) -> str:
        """Return the conclusion as a sentence."""
        size = f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}], p = {self.p_value:.3g} ({self.test})"
        if self.p_value >= 0.05:
            return f"No difference in {self.metric} between {model} and {reference} was shown: {size}."
        better = "higher" if self.difference > 0 else "lower"
        return f"{model} has a {better} {self.metric} than {reference}: {size}."


def compare_predictions(model: Predictions, reference: Predictions, bootstrap: Bootstrap) -> list[Comparison]:
    """Compare two models' predictions of the same images, in the same order.

    AUCs of binary tasks are compared by DeLong's test, accuracy by McNemar's exact test, and other metrics by the
    paired bootstrap. If a group has several images, the bootstrap is used for all metrics, because the other two tests
    assume independent images.

    Args:
        model: Predictions of the model, with the groups of the images.
        reference: Predictions of the reference.
        bootstrap: Settings of the bootstrap.

    Returns:
        The comparisons; none if there are fewer than `FEWEST_GROUPS` groups.
    """
    if model.number_of_groups < FEWEST_GROUPS:
        return []
    first, second = measure(model), measure(reference)
    tasks = {f"{task.prefix}auc": (task, other) for task, other in zip(model.binary, reference.binary, strict=True)}
    wanted = list(dict.fromkeys(name for one in PAIRED for name in ([one, *tasks] if one == "auc" else [one])))
    names = [name for name in wanted if name in first and name in second]
    independent = model.number_of_groups == len(model)
    spread = bootstrap_values(model, bootstrap, partial(_differences, model, reference, names))
    found = []
    for name in names:
        if independent and name in tasks and _testable(tasks[name][0].positive):
            task, other = tasks[name]
            delong = auc_difference(task.positive, task.scores, other.scores, bootstrap.confidence)
            found.append(Comparison(name, delong.value, delong.low, delong.high, delong.p_value, "DeLong"))
            continue
        value = first[name] - second[name]
        low, high = np.nanquantile(spread[name], bootstrap.tails)
        p_value, test = _bootstrap_p(spread[name]), "bootstrap"
        if independent and name == "accuracy":
            p_value, test = _mcnemar(model, reference), "McNemar"
        found.append(Comparison(name, value, float(low), float(high), p_value, test))
    return found


def matched_predictions(tables: list[pd.DataFrame], part: str, common: bool) -> tuple[list[pd.DataFrame], int, str]:
    """Match the predictions of several runs by content and label, so that images have the same order.

    Args:
        tables: Predictions of each run, with columns `sha256` and `label`.
        part: `test` or `validation`, for the error message.
        common: Whether to keep only the common images if the images differ.

    Returns:
        The tables, the number of images, and a note, which is empty if the images are the same.

    Raises:
        DataError: If the images differ and `common` is false, or there are no common images.
    """
    keyed = []
    for table in tables:
        again = table.groupby(["sha256", "label"]).cumcount()
        keyed.append(table.set_index(pd.MultiIndex.from_arrays([table.sha256, table.label, again])))
    shared = keyed[0].index
    for table in keyed[1:]:
        shared = shared.intersection(table.index)
    sizes = [len(table) for table in keyed]
    same = all(size == len(shared) for size in sizes)
    if not len(shared) or not (same or common):
        raise DataError(
            f"The runs were not evaluated on the same {part} images, so their difference would not be that of the "
            "models; evaluate them on one set, or compare on what they have in common with --common. "
            f"Received: {', '.join(map(str, sizes))} images, {len(shared)} in common"
        )
    order = shared.sort_values()
    note = (
        ""
        if same
        else f"Compared on the {len(shared)} images that all have in common, of {', '.join(map(str, sizes))}."
    )
    return [table.loc[order].reset_index(drop=True) for table in keyed], len(shared), note


def compare_tables(
    model: pd.DataFrame, reference: pd.DataFrame, classes: list[str], binary_tasks: Mapping[str, Sequence[str]]
) -> list[Comparison]:
    """Compare two tables of `matched_predictions`. Images in one group in either table form a group."""
    ours, theirs = predictions_of_tables([model, reference], classes, binary_tasks)
    return compare_predictions(ours, theirs, Bootstrap())


def predictions_of_tables(
    tables: Sequence[pd.DataFrame], classes: Sequence[str], binary_tasks: Mapping[str, Sequence[str]]
) -> list[Predictions]:
    """Return the predictions of `matched_predictions`. Images in one group in any of the tables form a group."""
    known = {str(i): table["group"] for i, table in enumerate(tables) if "group" in table}
    groups = connected_groups(pd.DataFrame(known), list(known)) if known else None
    return [predictions_in(table, classes, binary_tasks, groups) for table in tables]


def predictions_in(
    table: pd.DataFrame,
    classes: Sequence[str],
    binary_tasks: Mapping[str, Sequence[str]],
    groups: NDArray | None = None,
) -> Predictions:
    """Return the predictions of a table with the columns `label` and `probability/<class>`."""
    targets = table.label.map({label: i for i, label in enumerate(classes)}).to_numpy()
    probabilities = table[[f"probability/{label}" for label in classes]].to_numpy()
    return Predictions(targets, probabilities, classes, binary_tasks, groups)


def _differences(
    model: Predictions, reference: Predictions, names: list[str], weights: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """Compute the differences in each resample, with the same resamples for both models."""
    one, other = (resampled_metrics(predictions, weights) for predictions in (model, reference))
    return {name: one[name] - other[name] for name in names}


def _bootstrap_p(differences: NDArray[np.float64]) -> float:
    """Return twice the smaller share of resamples on one side of zero (Efron & Tibshirani 1993, chapter 15)."""
    known = differences[np.isfinite(differences)]
    share = min((known <= 0).mean(), (known >= 0).mean())
    return float(min(max(2 * share, 2 / (len(known) + 1)), 1.0))


def _mcnemar(model: Predictions, reference: Predictions) -> float:
    """Compute the exact test on images that only one of the models predicts correctly (McNemar 1947)."""
    right, other = (p.predicted == p.targets for p in (model, reference))
    only, against = int((right & ~other).sum()), int((~right & other).sum())
    return float(binomtest(only, only + against).pvalue) if only + against else 1.0


def _testable(positive: NDArray[np.bool_]) -> bool:
    return 2 <= positive.sum() <= len(positive) - 2
