"""Two models on the same images: differences with intervals, and paired tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from melanoma.data.groups import grouped
from melanoma.errors import DataError
from melanoma.evaluation.delong import auc_difference
from melanoma.evaluation.intervals import draws, resampled
from melanoma.evaluation.metrics import metrics_of, problems

__all__ = ["Comparison", "compare_predictions", "compare_tables", "matched_predictions"]

_CHUNK = 100


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


def compare_predictions(
    targets: NDArray[np.integer],
    model: NDArray,
    reference: NDArray,
    classes: Sequence[str],
    *,
    views: Mapping[str, Sequence[str]],
    groups: NDArray | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Comparison]:
    """Compare two models' probabilities of the same images.

    AUCs of questions with two answers by DeLong's test, accuracy by McNemar's exact test, the rest by the paired
    bootstrap; where lesions or patients have several images, all by the bootstrap, since the other two take each image
    for independent.

    Args:
        targets: class index of each image, shape (n,).
        model: probabilities, shape (n, len(classes)).
        reference: those to compare with.
        classes: class names.
        views: see `melanoma.evaluation.metrics.metrics_of`.
        groups: lesion or patient of each image, or None.
        resamples: of the bootstrap.
        confidence: of the intervals.
        seed: of the bootstrap.
    """
    first, second = (metrics_of(targets, p, classes, views) for p in (model, reference))
    asked, of_reference = (problems(targets, p, classes, views) for p in (model, reference))
    wanted = [
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        *dict.fromkeys(["auc", *(f"{q}auc" for q in asked)]),
        "log_loss",
    ]
    names = [name for name in wanted if name in first and name in second]
    independent = groups is None or len(np.unique(groups)) == len(targets)
    spread = _bootstrap(targets, model, reference, classes, views, groups, names, resamples, seed)
    found = []
    for name in names:
        prefix = name.removesuffix("auc")
        if independent and name.endswith("auc") and prefix in asked and _testable(asked[prefix][0]):
            positive, scores = asked[prefix]
            delong = auc_difference(positive, scores, of_reference[prefix][1], confidence)
            found.append(Comparison(name, delong.value, delong.low, delong.high, delong.p_value, "DeLong"))
            continue
        value = first[name] - second[name]
        low, high = np.nanquantile(spread[name], [(1 - confidence) / 2, (1 + confidence) / 2])
        p_value, test = _bootstrap_p(spread[name]), "bootstrap"
        if independent and name == "accuracy":
            p_value, test = _mcnemar(targets, model, reference), "McNemar"
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
    model: pd.DataFrame, reference: pd.DataFrame, classes: list[str], views: Mapping[str, Sequence[str]]
) -> list[Comparison]:
    """`compare_predictions` of two tables of `matched_predictions`; images that one of them groups belong together."""
    known = {str(i): table["group"] for i, table in enumerate((model, reference)) if "group" in table}
    columns = [f"probability/{label}" for label in classes]
    return compare_predictions(
        reference.label.map({label: i for i, label in enumerate(classes)}).to_numpy(),
        model[columns].to_numpy(),
        reference[columns].to_numpy(),
        classes,
        views=views,
        groups=grouped(pd.DataFrame(known), list(known)) if known else None,
    )


def _bootstrap(
    targets: NDArray[np.integer],
    model: NDArray,
    reference: NDArray,
    classes: Sequence[str],
    views: Mapping[str, Sequence[str]],
    groups: NDArray | None,
    names: list[str],
    resamples: int,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """Differences in each resample, both models measured on the same draws."""
    rng = np.random.default_rng(seed)
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for start in range(0, resamples, _CHUNK):
        weights = draws(targets, groups, min(_CHUNK, resamples - start), rng)
        one, other = (resampled(targets, p, classes, views, weights) for p in (model, reference))
        for name in names:
            parts[name].append(one[name] - other[name])
    return {name: np.concatenate(values) for name, values in parts.items()}


def _bootstrap_p(differences: NDArray[np.float64]) -> float:
    """Twice the smaller share of resamples on one side of no difference (Efron & Tibshirani 1993, chapter 15)."""
    known = differences[np.isfinite(differences)]
    share = min((known <= 0).mean(), (known >= 0).mean())
    return float(min(max(2 * share, 2 / (len(known) + 1)), 1.0))


def _mcnemar(targets: NDArray[np.integer], model: NDArray, reference: NDArray) -> float:
    """Exact test on the images that only one of the two gets right (McNemar 1947)."""
    right, other = (p.argmax(axis=1) == targets for p in (model, reference))
    only, against = int((right & ~other).sum()), int((~right & other).sum())
    return float(binomtest(only, only + against).pvalue) if only + against else 1.0


def _testable(positive: NDArray[np.bool_]) -> bool:
    return 2 <= positive.sum() <= len(positive) - 2
