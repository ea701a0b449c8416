"""What is logged of predictions: metrics, figures, operating points, subgroups, and several runs together."""

import logging
from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd
from matplotlib.figure import Figure

from melanoma.config.schema import EvaluationConfig
from melanoma.data.dataset import Dataset
from melanoma.evaluation import curve_plots, plots
from melanoma.evaluation.calibration import tempered
from melanoma.evaluation.evaluate import Evaluation, confusion_json, predictions_table
from melanoma.evaluation.operating_point import OperatingPoint, applied
from melanoma.evaluation.subgroups import Subgroup, measured_subgroups, worst_subgroup
from melanoma.tracking.run import Run

__all__ = [
    "log_calibration",
    "log_difference",
    "log_evaluations",
    "log_folds",
    "log_operating_points",
    "log_subgroups",
]

_HEADLINES = ("accuracy", "balanced_accuracy", "macro_f1", "auc")
log = logging.getLogger("melanoma")


def log_evaluations(
    run: Run,
    evaluations: list[Evaluation],
    protocol: str,
    dataset: Dataset,
    seed: int,
    points: Sequence[OperatingPoint] = (),
) -> None:
    """Metrics with intervals, confusion matrices and predictions of each part.

    The figures of the test set carry the plain names; those of another part begin with its name.
    """
    for evaluation in evaluations:
        run.log_metrics(evaluation.named_metrics())
        prefix = "" if evaluation.part == "test" else f"{evaluation.part}_"
        for name, figure in _figures(evaluation, dataset, seed, points).items():
            if figure is not None:
                run.log_figure(figure, f"{prefix}{name}", vector=evaluation.part == "test" and "mistakes" not in name)
    run.set_tags({"mlflow.note.content": f"{_warning(protocol)}{_description(evaluations)}"})
    run.log_json(confusion_json(evaluations), "evaluation/confusion_matrix.json")
    run.log_text(predictions_table(evaluations).to_csv(index=False), "evaluation/predictions.csv")


def _figures(
    evaluation: Evaluation, dataset: Dataset, seed: int, points: Sequence[OperatingPoint]
) -> dict[str, Figure | None]:
    """All that is drawn of a test set; of validation what is used to choose a model."""
    figures = {
        "confusion_matrix": plots.confusion_figure(evaluation, shares=False),
        "confusion_matrix_normalized": plots.confusion_figure(evaluation, shares=True),
        "roc": curve_plots.roc_figure(evaluation, seed, {point.question: point.threshold for point in points}),
        "reliability": curve_plots.reliability_figure(evaluation),
    }
    if evaluation.part == "test":
        figures["precision_recall"] = curve_plots.precision_recall_figure(evaluation, seed)
        figures["score_distributions"] = curve_plots.score_figure(evaluation)
        figures["confident_mistakes"] = curve_plots.confident_mistakes(evaluation, dataset.pixels)
    return figures


def log_calibration(run: Run, evaluations: list[Evaluation], temperature: float) -> None:
    """The temperature, and what the probabilities were before it."""
    run.log_metrics({"calibration/temperature": temperature})
    for evaluation in evaluations:
        before = evaluation.with_probabilities(tempered(evaluation.probabilities, 1 / temperature))
        run.log_metrics(
            {f"{evaluation.part}/{name}_uncalibrated": before.metrics[name] for name in ("ece", "log_loss")}
        )
        prefix = "" if evaluation.part == "test" else f"{evaluation.part}_"
        run.log_figure(curve_plots.reliability_figure(before), f"{prefix}reliability_uncalibrated")


def log_operating_points(run: Run, evaluations: list[Evaluation], points: Sequence[OperatingPoint]) -> None:
    """The thresholds and what they cost and find, as `<part>/operating_point/<question>/<measure>`."""
    content = []
    for point in points:
        run.log_metrics({f"operating_point/{point.question}/threshold": point.threshold})
        measured = {
            e.part: applied(point, e.rows.target.to_numpy(), e.probabilities, e.classes, e.views) for e in evaluations
        }
        for part, measures in measured.items():
            run.log_metrics({f"{part}/operating_point/{point.question}/{name}": v for name, v in measures.items()})
        content.append({**asdict(point), **measured})
        test = measured.get("test", {})
        if {"sensitivity", "specificity", "referrals_per_found", "missed_per_1000"} <= set(test):
            log.info(
                "Operating point for %s (%s): of the test images %.1f%% of the positives are found and %.1f%% of the "
                "others left alone; %.1f referrals for each one found, %.0f missed of 1,000 images",
                point.question, point.rule, 100 * test["sensitivity"], 100 * test["specificity"],
                test["referrals_per_found"], test["missed_per_1000"],
            )  # fmt: skip
    if content:
        run.log_json({"points": content}, "evaluation/operating_points.json")


def log_subgroups(run: Run, evaluation: Evaluation, settings: EvaluationConfig, seed: int) -> None:
    """Metrics of the subgroups of a part, as a table, a figure and metrics, and which of them is the worst."""
    found = measured_subgroups(
        evaluation.rows, evaluation.probabilities, evaluation.classes, views=evaluation.views,
        columns=settings.subgroups, minimum=settings.subgroup_minimum, resamples=settings.bootstrap,
        confidence=settings.confidence, seed=seed,
    )  # fmt: skip
    if not found:
        return
    main = next((f"{view}/auc" for view in evaluation.views), "auc" if len(evaluation.classes) == 2 else "accuracy")
    run.log_text(_subgroup_table(found).to_csv(index=False), "evaluation/subgroups.csv")
    for subgroup in found:
        prefix = f"{evaluation.part}/subgroup/{subgroup.column}/{subgroup.value}"
        shown = {
            name: subgroup.metrics[name] for name in dict.fromkeys((main, *_HEADLINES)) if name in subgroup.metrics
        }
        run.log_metrics({f"{prefix}/images": subgroup.images, **{f"{prefix}/{k}": v for k, v in shown.items()}})
    run.log_figure(plots.subgroup_figure(found, evaluation, main), "subgroups", vector=True)
    worst = worst_subgroup(found, main)
    if worst is not None:
        low, high = worst.intervals.get(main, (float("nan"), float("nan")))
        text = f"{worst.column} {worst.value}: {main} {worst.metrics[main]:.3f} [{low:.3f}, {high:.3f}]"
        run.set_tags({"melanoma.worst_subgroup": text})
        log.info("Worst subgroup of %d images: %s", worst.images, text)


def _subgroup_table(found: Sequence[Subgroup]) -> pd.DataFrame:
    rows = []
    for one in found:
        bounds = {f"{name}_ci_low": low for name, (low, _) in one.intervals.items()}
        bounds |= {f"{name}_ci_high": high for name, (_, high) in one.intervals.items()}
        assessed = "yes" if one.metrics else "no: too few images"
        fixed = {"column": one.column, "value": one.value, "images": one.images, "assessed": assessed}
        rows.append({**fixed, **one.metrics, **bounds})
    return pd.DataFrame(rows)


def log_folds(
    run: Run,
    dataset: Dataset,
    folds: dict[str, pd.Series],
    evaluations: dict[str, list[Evaluation]],
    pooled: Evaluation,
) -> None:
    """Which images each fold tests, and how its metrics spread: `<part>/<metric>_mean` and `_std` over the folds."""
    table = dataset.table[["path", "label", "sha256", "cluster", "group"]].assign(fold="")
    for name, parts in folds.items():
        table.loc[parts == "test", "fold"] = name
    run.log_text(table.to_csv(index=False), "data/folds.csv")
    run.set_tags({"melanoma.data.fingerprint": dataset.fingerprint})
    run.log_metrics({"data/images/test": len(pooled.rows), "folds": len(folds)})
    values = pd.DataFrame(
        [{f"{e.part}/{k}": v for e in parts for k, v in e.metrics.items()} for parts in evaluations.values()],
        index=list(evaluations),
    )
    run.log_metrics({f"{name}_mean": value for name, value in values.mean().items()})
    run.log_metrics({f"{name}_std": value for name, value in values.std(ddof=1).items()})
    run.log_text(values.to_csv(index_label="fold"), "evaluation/folds.csv")


def log_difference(run: Run, published: list[Evaluation], clean: list[Evaluation]) -> None:
    """The two protocols side by side, as the run's description."""
    lines = ["| part | metric | published protocol | clean protocol | inflation |", "|---|---|---|---|---|"]
    for one, other in zip(published, clean, strict=True):
        for name in _HEADLINES:
            if name in one.metrics and name in other.metrics:
                inflation = one.metrics[name] - other.metrics[name]
                cells = (one.part, name, one.text_of(name), other.text_of(name), f"{inflation:+.3f}")
                lines.append(f"| {' | '.join(cells)} |")
    run.set_tags({"mlflow.note.content": "\n".join(lines)})


def _warning(protocol: str) -> str:
    if protocol == "clean":
        return ""
    return f"**Not a clean result.** Shortcuts taken: {protocol}. These numbers cannot be compared with clean ones.\n\n"


def _description(evaluations: list[Evaluation]) -> str:
    """The headline metrics as a table in the run's description, which MLflow shows on top."""
    lines = ["| part | images | " + " | ".join(_HEADLINES) + " |", "|---" * (len(_HEADLINES) + 2) + "|"]
    for evaluation in evaluations:
        cells = [evaluation.text_of(name) for name in _HEADLINES]
        lines.append(f"| {evaluation.part} | {len(evaluation.rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
