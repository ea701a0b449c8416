"""Two models on the same images: differences with intervals, and paired tests."""

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
from melanoma.evaluation.intervals import bootstrap_values
from melanoma.evaluation.metrics import PAIRED, measure, resampled_metrics
from melanoma.evaluation.predictions import Bootstrap, Predictions

__all__ = ["Comparison", "compare_predictions", "compare_tables", "matched_predictions"]


@dataclass(frozen=True)
class Comparison:
    """One metric of a model less that of a reference, on the same images.

    Attributes:
        metric: by the name of the tracking store.
        difference: the model's value less the reference's.
        low: lower bound of its interval.
        high: upper bound.
        p_value: of no difference, two-sided.
        test: `DeLong`, `McNemar` or `bootstrap`.
    """

    metric: str
    difference: float
    low: float
    high: float
    p_value: float
    test: str

    def sentence(self, model: str, reference: str) -> str:
        """The conclusion in words."""
        size = f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}], p = {self.p_value:.3g} ({self.test})"
        if self.p_value >= 0.05:
            return f"No difference in {self.metric} between {model} and {reference} was shown: {size}."
        better = "higher" if self.difference > 0 else "lower"
        return f"{model} has a {better} {self.metric} than {reference}: {size}."


def compare_predictions(model: Predictions, reference: Predictions, bootstrap: Bootstrap) -> list[Comparison]:
    """Compare two models' predictions of the same images, in the same order.

    AUCs of binary tasks by DeLong's test, accuracy by McNemar's exact test, the rest by the paired bootstrap; where
    lesions or patients have several images, all by the bootstrap, since the other two take each image for independent.

    Args:
        model: its predictions, with the groups of the images.
        reference: those to compare with.
        bootstrap: of the intervals.
    """
    first, second = measure(model), measure(reference)
    tasks = {f"{task.prefix}auc": (task, other) for task, other in zip(model.binary, reference.binary, strict=True)}
    wanted = list(dict.fromkeys(name for one in PAIRED for name in ([one, *tasks] if one == "auc" else [one])))
    names = [name for name in wanted if name in first and name in second]
    independent = model.groups is None or len(np.unique(model.groups)) == len(model)
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
    """Predictions of several runs with the same images in the same order; images are told by content and label.

    Args:
        tables: of each run, with `sha256` and `label`.
        part: `test` or `validation`, for the message.
        common: keep the images that all have in common, where they differ.

    Returns:
        The tables, the number of images, and what to know of them, if anything.

    Raises:
        DataError: the images differ.
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
            f"The runs were not evaluated on the same {part} images, so that a difference would say nothing of the "
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
    """`compare_predictions` of two tables of `matched_predictions`; images that one of them groups belong together."""
    known = {str(i): table["group"] for i, table in enumerate((model, reference)) if "group" in table}
    groups = connected_groups(pd.DataFrame(known), list(known)) if known else None
    targets = reference.label.map({label: i for i, label in enumerate(classes)}).to_numpy()
    ours, theirs = (
        Predictions(
            targets, table[[f"probability/{label}" for label in classes]].to_numpy(), classes, binary_tasks, groups
        )
        for table in (model, reference)
    )
    return compare_predictions(ours, theirs, Bootstrap())


def _differences(
    model: Predictions, reference: Predictions, names: list[str], weights: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """Differences in each resample, both models measured on the same draws."""
    one, other = (resampled_metrics(predictions, weights) for predictions in (model, reference))
    return {name: one[name] - other[name] for name in names}


def _bootstrap_p(differences: NDArray[np.float64]) -> float:
    """Twice the smaller share of resamples on one side of no difference (Efron & Tibshirani 1993, chapter 15)."""
    known = differences[np.isfinite(differences)]
    share = min((known <= 0).mean(), (known >= 0).mean())
    return float(min(max(2 * share, 2 / (len(known) + 1)), 1.0))


def _mcnemar(model: Predictions, reference: Predictions) -> float:
    """Exact test on the images that only one of the two gets right (McNemar 1947)."""
    right, other = (p.predicted == p.targets for p in (model, reference))
    only, against = int((right & ~other).sum()), int((~right & other).sum())
    return float(binomtest(only, only + against).pvalue) if only + against else 1.0


def _testable(positive: NDArray[np.bool_]) -> bool:
    return 2 <= positive.sum() <= len(positive) - 2
