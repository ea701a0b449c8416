"""Evaluation of the predictions of a part: tables, metrics and confusion matrices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from melanoma.config.schema import EvaluationConfig
from melanoma.data.groups import connected_groups
from melanoma.evaluation.intervals import intervals_of
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.predictions import Bootstrap, Predictions
from melanoma.evaluation.proportions import Bounded, difference_interval
from melanoma.evaluation.remarks import remarks_on
from melanoma.evaluation.texts import named_bounds, with_bounds
from melanoma.evaluation.uncertain import Abstention, PredictionSets
from melanoma.terminal import stage

__all__ = [
    "NO_INTERVALS",
    "Evaluation",
    "bootstrap_of",
    "confusion_json",
    "evaluate",
    "groups_of",
    "normalized",
    "predictions_of",
    "predictions_table",
]

NO_INTERVALS = Bootstrap(resamples=0)


@dataclass(frozen=True)
class Evaluation:
    """Predictions of one part and their metrics.

    Attributes:
        part: `validation` or `test`.
        rows: Rows of the part in the data set's table.
        predictions: Predictions of these rows.
        metrics: Metrics by name; see `measure`.
        intervals: Lower and upper bound by metric; see `intervals_of`.
        confusion: Confusion matrix of counts, true class by predicted class.
        ood_scores: Out-of-distribution score of each image; above 1 it is unlike the training images. None if unknown.
    """

    part: str
    rows: pd.DataFrame
    predictions: Predictions
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    confusion: NDArray[np.integer]
    ood_scores: NDArray[np.float64] | None = None

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Predicted probabilities, shape (len(rows), len(classes))."""
        return self.predictions.probabilities

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the columns of `probabilities`."""
        return list(self.predictions.classes)

    def named_metrics(self) -> dict[str, float]:
        """Return metrics and interval bounds under the names of the tracking store."""
        named = {f"{self.part}/{name}": value for name, value in self.metrics.items()}
        for name, (low, high) in self.intervals.items():
            named |= named_bounds(f"{self.part}/{name}", low, high)
        return named

    def with_probabilities(self, probabilities: NDArray[np.float64]) -> "Evaluation":
        """Return the evaluation of the same images with other probabilities, without intervals."""
        return evaluate(self.part, self.rows, replace(self.predictions, probabilities=probabilities), NO_INTERVALS)

    def text_of(self, name: str) -> str:
        """Format a metric with its interval, such as `0.785 [0.730, 0.840]`, or `-` if it is not defined."""
        if name not in self.metrics:
            return "-"
        return with_bounds(self.metrics[name], *self.intervals.get(name, (np.nan, np.nan)))

    def minus(self, other: "Evaluation", name: str) -> Bounded:
        """Return the difference of a metric that both have from another evaluation, of other images, and its bounds.

        The bounds are NaN if one of the two has no interval. Images that both share make the interval too wide.
        """
        values = [(one.metrics[name], *one.intervals.get(name, (np.nan, np.nan))) for one in (self, other)]
        return (values[0][0] - values[1][0], *difference_interval(values[0], values[1]))

    @property
    def remarks(self) -> list[str]:
        """Warnings about the metrics; see `remarks_on`."""
        return remarks_on(self.part, self.predictions)


def predictions_of(
    rows: pd.DataFrame,
    probabilities: NDArray[np.float64],
    classes: Sequence[str],
    binary_tasks: Mapping[str, Sequence[str]],
) -> Predictions:
    """Combine rows of a data set's table and their probabilities to `Predictions`."""
    return Predictions(rows.target.to_numpy(), probabilities, classes, binary_tasks, groups_of(rows))


@stage("Computing metrics and intervals")
def evaluate(part: str, rows: pd.DataFrame, predictions: Predictions, bootstrap: Bootstrap) -> Evaluation:
    """Evaluate the predictions of one part."""
    labels = np.arange(len(predictions.classes))
    return Evaluation(
        part,
        rows,
        predictions,
        measure(predictions),
        intervals_of(predictions, bootstrap),
        confusion_matrix(predictions.targets, predictions.predicted, labels=labels),
    )


def bootstrap_of(settings: EvaluationConfig, seed: int) -> Bootstrap:
    """Return the settings of the bootstrap from the configuration."""
    return Bootstrap(settings.bootstrap, settings.confidence, seed)


def groups_of(rows: pd.DataFrame) -> NDArray | None:
    """Return the group of each image: the column `group`, else images connected by patient or lesion, else None."""
    if "group" in rows:
        return rows["group"].astype(object).fillna(rows.path).astype(str).to_numpy()
    known = [column for column in ("patient", "lesion") if column in rows]
    return connected_groups(rows, known).astype(str) if known else None


def predictions_table(
    evaluations: list[Evaluation], sets: PredictionSets | None = None, abstention: Abstention | None = None
) -> pd.DataFrame:
    """Return a table with one row per image.

    Its columns are path, part, label, `sha256` and group if known, predicted, one probability per class, and the
    out-of-distribution score if known. `sets` adds the classes of the prediction set, and `abstention` adds whether the
    model abstains.
    """
    tables = []
    for evaluation in evaluations:
        known = ["sha256"] if "sha256" in evaluation.rows else []
        table = evaluation.rows[["path", "part", "label", *known]].assign(part=evaluation.part)
        groups = evaluation.predictions.groups
        if groups is not None:
            table["group"] = groups
        table["predicted"] = [evaluation.classes[i] for i in evaluation.predictions.predicted]
        scores = pd.DataFrame(
            evaluation.probabilities, columns=[f"probability/{c}" for c in evaluation.classes], index=table.index
        )
        if sets is not None:
            names = np.array(evaluation.classes)
            table["prediction_set"] = ["; ".join(names[row]) for row in sets.members(evaluation.probabilities)]
        if abstention is not None:
            table["abstained"] = abstention.abstained(evaluation.probabilities)
        if evaluation.ood_scores is not None:
            table["ood_score"] = evaluation.ood_scores.round(4)
        tables.append(pd.concat([table, scores], axis=1))
    return pd.concat(tables, ignore_index=True)


def confusion_json(evaluations: list[Evaluation]) -> dict[str, Any]:
    """Return the confusion matrix of each part as counts and as shares of the true class."""
    result: dict[str, Any] = {"classes": evaluations[0].classes, "rows": "true class", "columns": "predicted class"}
    for evaluation in evaluations:
        result[evaluation.part] = {
            "counts": evaluation.confusion.tolist(),
            "normalized": normalized(evaluation.confusion).round(6).tolist(),
        }
    return result


def normalized(confusion: NDArray[np.integer]) -> NDArray[np.float64]:
    """Normalize each row to shares of the true class. A class that does not occur has zeros."""
    totals = confusion.sum(axis=1, keepdims=True)
    return np.divide(confusion, totals, out=np.zeros(confusion.shape), where=totals > 0)
