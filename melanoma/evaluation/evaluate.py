"""From predictions of a data set's parts to tables, metrics and the confusion matrices."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from melanoma.config.schema import EvaluationConfig
from melanoma.data.dataset import Dataset
from melanoma.evaluation.intervals import bootstrap_intervals
from melanoma.evaluation.metrics import metrics_of
from melanoma.evaluation.predict import predict_probabilities

__all__ = ["Evaluation", "confusion_json", "evaluate", "evaluate_parts", "groups_of", "predictions_table"]


@dataclass(frozen=True)
class Evaluation:
    """Predictions of one part and what they amount to.

    Attributes:
        part: `validation` or `test`.
        rows: the part's rows of the data set's table.
        probabilities: shape (len(rows), len(classes)).
        classes: class names in the order of the columns.
        views: questions with two answers, and the classes that count as positive.
        metrics: see `metrics_of`.
        intervals: lower and upper bound by metric; see `bootstrap_intervals`.
        confusion: counts, true class by predicted class.
    """

    part: str
    rows: pd.DataFrame
    probabilities: NDArray[np.float64]
    classes: list[str]
    views: dict[str, list[str]]
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    confusion: NDArray[np.integer]

    def named_metrics(self) -> dict[str, float]:
        """Metrics and interval bounds under the names of the tracking store."""
        named = {f"{self.part}/{name}": value for name, value in self.metrics.items()}
        for name, (low, high) in self.intervals.items():
            named[f"{self.part}/{name}_ci_low"], named[f"{self.part}/{name}_ci_high"] = low, high
        return named

    def with_probabilities(self, probabilities: NDArray[np.float64]) -> "Evaluation":
        """The same images with other probabilities, without intervals."""
        return evaluate(
            self.part, self.rows, probabilities, self.classes, views=self.views, resamples=0, confidence=0.95, seed=0
        )

    def text_of(self, name: str) -> str:
        """A metric with its interval, as `0.785 [0.730, 0.840]`; `-` where it is not defined."""
        if name not in self.metrics:
            return "-"
        if name not in self.intervals:
            return f"{self.metrics[name]:.3f}"
        low, high = self.intervals[name]
        return f"{self.metrics[name]:.3f} [{low:.3f}, {high:.3f}]"


def evaluate(
    part: str,
    rows: pd.DataFrame,
    probabilities: NDArray[np.float64],
    classes: list[str],
    *,
    views: dict[str, list[str]],
    resamples: int,
    confidence: float,
    seed: int,
) -> Evaluation:
    """Measure the predictions of one part."""
    targets = rows.target.to_numpy()
    return Evaluation(
        part,
        rows,
        probabilities,
        classes,
        views,
        metrics_of(targets, probabilities, classes, views),
        bootstrap_intervals(
            targets,
            probabilities,
            classes,
            resamples=resamples,
            confidence=confidence,
            seed=seed,
            groups=groups_of(rows),
            views=views,
        ),
        confusion_matrix(targets, probabilities.argmax(axis=1), labels=np.arange(len(classes))),
    )


def evaluate_parts(
    model: Any, dataset: Dataset, settings: EvaluationConfig, views: dict[str, list[str]], seed: int
) -> list[Evaluation]:
    """Predict and measure validation and test."""
    evaluations = []
    for part in ("validation", "test"):
        rows = dataset.part(part)
        probabilities = predict_probabilities(model, dataset.store, rows.row.to_numpy(), batch_size=settings.batch_size)
        evaluations.append(
            evaluate(
                part, rows, probabilities, dataset.classes,
                views=views, resamples=settings.bootstrap, confidence=settings.confidence, seed=seed,
            )
        )  # fmt: skip
    return evaluations


def groups_of(rows: pd.DataFrame) -> NDArray | None:
    """The group, patient or lesion of each image, the first that is known, else the image; None where none is known."""
    column = next((c for c in ("group", "patient", "lesion") if c in rows), None)
    return None if column is None else rows[column].astype(object).fillna(rows.path).astype(str).to_numpy()


def predictions_table(evaluations: list[Evaluation]) -> pd.DataFrame:
    """One row an image: path, part, label, `sha256` and group where known, predicted, and a probability a class."""
    tables = []
    for evaluation in evaluations:
        known = [name for name in ("sha256", "group") if name in evaluation.rows]
        table = evaluation.rows[["path", "part", "label", *known]].assign(part=evaluation.part)
        table["predicted"] = [evaluation.classes[i] for i in evaluation.probabilities.argmax(axis=1)]
        scores = pd.DataFrame(
            evaluation.probabilities, columns=[f"probability/{c}" for c in evaluation.classes], index=table.index
        )
        tables.append(pd.concat([table, scores], axis=1))
    return pd.concat(tables, ignore_index=True)


def confusion_json(evaluations: list[Evaluation]) -> dict[str, Any]:
    """Confusion matrices of each part as counts and as shares of the true class."""
    result: dict[str, Any] = {"classes": evaluations[0].classes, "rows": "true class", "columns": "predicted class"}
    for evaluation in evaluations:
        result[evaluation.part] = {
            "counts": evaluation.confusion.tolist(),
            "normalized": normalized(evaluation.confusion).round(6).tolist(),
        }
    return result


def normalized(confusion: NDArray[np.integer]) -> NDArray[np.float64]:
    """Each row as shares of the true class; a class that does not occur has zeros."""
    totals = confusion.sum(axis=1, keepdims=True)
    return np.divide(confusion, totals, out=np.zeros(confusion.shape), where=totals > 0)
