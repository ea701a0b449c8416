"""Paired comparison of two models on the same images: differences, intervals and tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from melanoma.data.groups import connected_groups
from melanoma.errors import DataError
from melanoma.evaluation.confusion import drawn_matrices, f1_scores
from melanoma.evaluation.delong import bounded_auc
from melanoma.evaluation.intervals import scarcity
from melanoma.evaluation.metrics import PAIRED, log_losses, measure
from melanoma.evaluation.predictions import Bootstrap, Predictions
from melanoma.evaluation.proportions import (
    FEWEST_GROUPS,
    correlated_difference,
    effective_number,
    mean_influence,
    mean_interval,
    t_interval,
)

__all__ = [
    "Comparison",
    "compare_predictions",
    "compare_tables",
    "corrected",
    "matched_predictions",
    "predictions_in",
    "predictions_of_tables",
]

_ADDED = 4.0  # images that are spread over the cells of the joint counts, chosen by simulation


@dataclass(frozen=True)
class Comparison:
    """Difference of one metric between a model and a reference on the same images.

    Attributes:
        metric: Name of the metric in the tracking store.
        difference: Value of the model minus value of the reference.
        low: Lower bound of the interval of the difference.
        high: Upper bound of the interval.
        p_value: Two-sided p-value of the null hypothesis of no difference.
        test: `DeLong`, `Obuchowski`, `McNemar`, `t` or `bootstrap`, the Bayesian bootstrap of Rubin (1981).
        adjusted_p: The p-value corrected for the number of tests; see `corrected`. None if it was not corrected.
    """

    metric: str
    difference: float
    low: float
    high: float
    p_value: float
    test: str
    adjusted_p: float | None = None

    @property
    def is_shown(self) -> bool:
        """Whether the difference is shown at the level of 5%, by the adjusted p-value if there is one."""
        return (self.p_value if self.adjusted_p is None else self.adjusted_p) < 0.05

    def sentence(self, model: str, reference: str) -> str:
        """Return the conclusion as a sentence."""
        p_value = f"p = {self.p_value:.3g}"
        if self.adjusted_p is not None and self.adjusted_p != self.p_value:
            p_value += f", corrected {self.adjusted_p:.3g}"
        size = f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}], {p_value} ({self.test})"
        if not self.is_shown:
            return f"No difference in {self.metric} between {model} and {reference} was shown: {size}."
        better = "higher" if self.difference > 0 else "lower"
        return f"{model} has a {better} {self.metric} than {reference}: {size}."


def compare_predictions(model: Predictions, reference: Predictions, bootstrap: Bootstrap) -> list[Comparison]:
    """Compare two models' predictions of the same images, in the same order.

    - AUCs: the test of DeLong et al. (1988), or of Obuchowski (1997) if groups have several images, with Student's t
      for as many degrees of freedom as there are groups of the rarer class. The interval combines those of the two
      AUCs with their correlation (Zou & Donner 2008), because a difference of two high AUCs is skewed.
    - Accuracy: the exact test of McNemar (1947) if images are independent.
    - Log loss: the t test of the differences of groups.
    - Others, and the interval of the accuracy: draws from the posterior of the counts of images by true class and both
      predictions, with four images spread over the cells, so that two models are not called equal because none of a few
      positives tells them apart.

    `python -m benchmarks.coverage` has the coverage of the intervals.

    Args:
        model: Predictions of the model, with the groups of the images.
        reference: Predictions of the reference.
        bootstrap: Number and seed of the draws, and confidence level.

    Returns:
        The comparisons, without metrics for which there are too few groups (see `scarcity`).
    """
    if model.number_of_groups < FEWEST_GROUPS:
        return []
    scarce, estimates = scarcity(model), [measure(one) for one in (model, reference)]
    posterior, tasks = _posterior_differences(model, reference, bootstrap), [f"{one.prefix}auc" for one in model.binary]
    found = []
    for name in dict.fromkeys(name for one in PAIRED for name in ([one, *tasks] if one == "auc" else [one])):
        if name in scarce or not all(name in values for values in estimates):
            continue
        value = estimates[0][name] - estimates[1][name]
        if name in posterior:
            low, high = (float(end) for end in np.quantile(posterior[name], bootstrap.tails))
            p_value, test = _tail_p(posterior[name]), "bootstrap"
            if name == "accuracy" and model.number_of_groups == len(model):
                p_value, test = _mcnemar(model, reference), "McNemar"
        elif name == "log_loss":
            losses = log_losses(model) - log_losses(reference)
            errors = mean_influence(losses, model.group_numbers)[1]
            low, high, p_value = t_interval(value, errors, model.number_of_groups - 1, bootstrap.confidence)
            test = "t"
        else:
            low, high, p_value = _auc_difference(model, reference, name, bootstrap.confidence)
            test = "DeLong" if model.number_of_groups == len(model) else "Obuchowski"
        found.append(Comparison(name, value, low, high, p_value, test))
    return found


def corrected(tests: Mapping[str, Sequence[Comparison]], primary: str) -> dict[str, list[Comparison]]:
    """Correct p-values for the number of tests by the method of Holm (1979).

    The tests of the primary metric are one family, those of all other metrics together are another. In each, the
    probability that any of several equal runs is called different is at most 5%.

    Args:
        tests: Comparisons of each run with the reference.
        primary: Name of the primary metric.

    Returns:
        The same, with adjusted p-values, and the primary metric first.
    """
    p_values = {(run, one.metric): one.p_value for run, found in tests.items() for one in found}
    adjusted: dict[tuple[str, str], float] = {}
    for family in ({k for k in p_values if k[1] == primary}, {k for k in p_values if k[1] != primary}):
        highest = 0.0
        for place, key in enumerate(sorted(family, key=lambda key: (p_values[key], key))):
            highest = max(highest, (len(family) - place) * p_values[key])
            adjusted[key] = min(highest, 1.0)
    return {
        run: sorted(
            (replace(one, adjusted_p=adjusted[run, one.metric]) for one in found), key=lambda one: one.metric != primary
        )
        for run, found in tests.items()
    }


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
    model: pd.DataFrame,
    reference: pd.DataFrame,
    classes: list[str],
    binary_tasks: Mapping[str, Sequence[str]],
    bootstrap: Bootstrap | None = None,
) -> list[Comparison]:
    """Compare two tables of `matched_predictions`. Images in one group in either table form a group."""
    ours, theirs = predictions_of_tables([model, reference], classes, binary_tasks)
    return compare_predictions(ours, theirs, bootstrap or Bootstrap())


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


def _posterior_differences(
    model: Predictions, reference: Predictions, bootstrap: Bootstrap
) -> dict[str, NDArray[np.float64]]:
    """Draw differences of metrics of the most probable classes from the posterior of the joint counts."""
    k, right = len(model.classes), [(p.predicted == p.targets).astype(float) for p in (model, reference)]
    cells = (model.targets * k + model.predicted) * k + reference.predicted
    effective = effective_number(right[0] - right[1], model.group_numbers) / len(model)
    counts = np.bincount(cells, minlength=k**3).reshape(k, k, k) * effective
    both = drawn_matrices(counts, [(0, 1), (0, 2)], _ADDED, bootstrap)
    values = []
    for shares in both:
        hits, actual = np.einsum("rcc->rc", shares), shares.sum(axis=2)
        present = np.s_[:, model.present]
        sensitivities = hits[present] / actual[present]
        f1 = f1_scores(shares)[present]
        values.append([hits.sum(axis=1), sensitivities.mean(axis=1), f1.mean(axis=1)])
    names = ("accuracy", "balanced_accuracy", "macro_f1")
    return {name: one - other for name, one, other in zip(names, *values, strict=True)}


def _auc_difference(
    model: Predictions, reference: Predictions, name: str, confidence: float
) -> tuple[float, float, float]:
    """Return the bounds of a difference of AUCs, from the intervals of both and their correlation, and its p-value."""
    groups = model.group_numbers
    pairs = [
        (one.positive, one.scores, other.scores)
        for one, other in zip(model.binary, reference.binary, strict=True)
        if f"{one.prefix}auc" == name
    ]
    pairs = pairs or [(model.targets == c, *(p.probabilities[:, c] for p in (model, reference))) for c in model.present]
    sides = [[(positive, ours) for positive, ours, _ in pairs], [(positive, other) for positive, _, other in pairs]]
    bounded, errors = [], []
    for side in sides:
        parts, influences, rarer = zip(*(bounded_auc(*one, groups, confidence) for one in side), strict=True)
        bounded.append((float(np.mean([value for value, _, _ in parts])), *mean_interval(parts, influences)))
        errors.append(np.mean(influences, axis=0))
    degrees = float(1 / np.mean(1 / np.array(rarer)))  # the rarest classes decide
    return correlated_difference(bounded, errors, degrees)


def _tail_p(differences: NDArray[np.float64]) -> float:
    """Return twice the smaller share of draws on one side of zero."""
    share = min((differences <= 0).mean(), (differences >= 0).mean())
    return float(min(max(2 * share, 2 / (len(differences) + 1)), 1.0))


def _mcnemar(model: Predictions, reference: Predictions) -> float:
    """Compute the exact test on images that only one of the models predicts correctly (McNemar 1947)."""
    right, other = (p.predicted == p.targets for p in (model, reference))
    only, against = int((right & ~other).sum()), int((~right & other).sum())
    return float(binomtest(only, only + against).pvalue) if only + against else 1.0
