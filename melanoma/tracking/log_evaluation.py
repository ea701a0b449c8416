"""Logging of predictions, of cross-validation folds, and of the comparison of two protocols."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from melanoma.data.csv_text import csv_text
from melanoma.data.dataset import Dataset
from melanoma.data.split_file import split_hash
from melanoma.evaluation import curve_plots, plots
from melanoma.evaluation.decisions import Decisions
from melanoma.evaluation.evaluate import Evaluation, confusion_json, predictions_table
from melanoma.evaluation.explain import grad_cam
from melanoma.evaluation.metrics import HEADLINES, headlines
from melanoma.evaluation.mistakes import mistakes_figure
from melanoma.evaluation.remarks import remark_on_groups
from melanoma.evaluation.texts import stored_text, with_bounds
from melanoma.lineage.protocol import Protocol
from melanoma.terminal import stage
from melanoma.tracking.names import Artifact, Tag
from melanoma.tracking.run import Run

__all__ = ["log_difference", "log_evaluations", "log_folds"]

log = logging.getLogger("melanoma")


@stage("Drawing the figures")
def log_evaluations(
    run: Run,
    evaluations: list[Evaluation],
    dataset: Dataset,
    *,
    protocol: Protocol,
    model: Any = None,
    decisions: Decisions | None = None,
    internal: Mapping[str, float] | None = None,
) -> None:
    """Log metrics with intervals, figures and predictions.

    Names of figures have the part as a prefix, except for the test set.

    Args:
        run: Run to log to.
        evaluations: Evaluation of each part.
        dataset: Data set of the images.
        protocol: Shortcuts that were taken.
        model: Model of the predictions, for Grad-CAM heatmaps; None for the predictions of several models.
        decisions: Decisions that were fitted on validation; None if there are none.
        internal: Metrics of the run that trained the model, if `evaluations` are of other images.
    """
    for evaluation in evaluations:
        run.log_measures(evaluation.named_metrics())
        figures = _figures(evaluation, dataset, decisions, model) if run.figures else {}
        for name, figure in figures.items():
            if figure is not None:
                vector = evaluation.part == "test" and "mistakes" not in name
                run.log_figure(figure, name, part=evaluation.part, vector=vector)
    remarks = [remark for evaluation in evaluations for remark in evaluation.remarks]
    remarks += filter(None, [remark_on_groups(dataset.table)])
    for remark in remarks:
        log.warning("%s", remark)
    if remarks:
        run.set_tags({Tag.REMARKS: " ".join(remarks)})
    description = [_warning(protocol), _table(evaluations, internal, headlines(run.primary)), *remarks]
    run.set_tags({Tag.NOTE: "\n\n".join(filter(None, description))})
    run.log_json(confusion_json(evaluations), Artifact.CONFUSION)
    sets, abstention = (None, None) if decisions is None else (decisions.sets, decisions.abstention)
    predictions = predictions_table(evaluations, sets, abstention)
    run.log_evidence(csv_text(predictions), Artifact.PREDICTIONS)


def _figures(
    evaluation: Evaluation, dataset: Dataset, decisions: Decisions | None, model: Any
) -> dict[str, Figure | None]:
    """Draw the figures of a part: all for the test set, and those for model selection for validation."""
    points = [] if decisions is None else decisions.points
    figures = {
        "confusion_matrix": plots.confusion_figure(evaluation, shares=False),
        "confusion_matrix_normalized": plots.confusion_figure(evaluation, shares=True),
        "roc": curve_plots.roc_figure(evaluation, {point.binary_task: point.threshold for point in points}),
        "reliability": curve_plots.reliability_figure(evaluation),
    }
    if evaluation.part == "test":
        explain = None if model is None else partial(grad_cam, model)
        figures["precision_recall"] = curve_plots.precision_recall_figure(evaluation)
        figures["decision_curve"] = curve_plots.decision_figure(evaluation)
        figures["score_distributions"] = curve_plots.score_figure(evaluation)
        figures["confident_mistakes"] = mistakes_figure(evaluation, dataset.pixels, explain)
    return figures


def log_folds(
    run: Run,
    dataset: Dataset,
    folds: dict[str, pd.Series],
    evaluations: dict[str, list[Evaluation]],
    pooled: Evaluation,
) -> None:
    """Log the test images of each fold, and the metrics `<part>/<metric>_mean` and `_std` over the folds."""
    table = dataset.table[["path", "label", "sha256", "cluster", "group"]].assign(fold="")
    for name, parts in folds.items():
        table.loc[parts == "test", "fold"] = name
    run.log_text(csv_text(table), Artifact.FOLDS)
    tested = split_hash(table.assign(part=table.fold))
    run.set_tags({Tag.FINGERPRINT: dataset.fingerprint, Tag.SPLIT_HASH: tested})
    run.log_measures({"data/images/test": len(pooled.rows), "folds": len(folds)})
    values = pd.DataFrame(
        [{f"{e.part}/{k}": v for e in parts for k, v in e.metrics.items()} for parts in evaluations.values()],
        index=list(evaluations),
    )
    run.log_measures({f"{name}_mean": value for name, value in values.mean().items()})
    # The standard deviation is undefined for a metric that only one fold has.
    run.log_measures({f"{name}_std": value for name, value in values.std(ddof=1).dropna().items()})
    run.log_text(csv_text(values, index_label="fold"), Artifact.FOLD_METRICS)


def log_difference(run: Run, published: list[Evaluation], clean: list[Evaluation]) -> None:
    """Log a comparison of the two protocols as the run's description."""
    lines = ["| part | metric | published protocol | clean protocol | inflation |", "|---|---|---|---|---|"]
    for one, other in zip(published, clean, strict=True):
        for name in HEADLINES:
            if name in one.metrics and name in other.metrics:
                inflation = with_bounds(*one.minus(other, name), sign="+")
                cells = (one.part, name, one.text_of(name), other.text_of(name), inflation)
                lines.append(f"| {' | '.join(cells)} |")
    run.set_tags({Tag.NOTE: "\n".join(lines)})


def _warning(protocol: Protocol) -> str:
    if protocol.is_clean:
        return ""
    return f"**Not a clean result.** Shortcuts taken: {protocol}. These numbers cannot be compared with clean ones."


def _table(evaluations: list[Evaluation], internal: Mapping[str, float] | None, names: Sequence[str]) -> str:
    """Format the headline metrics for the run's description, which MLflow shows at the top."""
    lines = ["| part | images | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for evaluation in evaluations:
        cells = [evaluation.text_of(name) for name in names]
        lines.append(f"| {evaluation.part} | {len(evaluation.rows)} | " + " | ".join(cells) + " |")
    if internal:
        cells = [stored_text(internal, f"test/{name}") for name in names]
        lines.append(f"| internal test | {internal.get('data/images/test', 0):.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
