"""Logging of calibration and decisions: operating points, prediction sets and abstention."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from melanoma.evaluation import curve_plots
from melanoma.evaluation.calibration import Recalibration, Temperature
from melanoma.evaluation.decisions import Decisions, abstention_intervals, set_intervals
from melanoma.evaluation.evaluate import Evaluation
from melanoma.evaluation.levels import measure_levels
from melanoma.evaluation.operating_point import OperatingPoint, measure_at, measure_intervals_at
from melanoma.evaluation.predictions import Bootstrap
from melanoma.evaluation.texts import named_bounds
from melanoma.evaluation.uncertain import PredictionSets
from melanoma.terminal import stage
from melanoma.tracking.names import Artifact
from melanoma.tracking.run import Run

__all__ = ["log_calibration", "log_decisions", "log_levels"]

log = logging.getLogger("melanoma")


def log_calibration(run: Run, calibration: object, before: Sequence[Evaluation]) -> None:
    """Log the calibration, and the metrics of the uncalibrated probabilities."""
    if isinstance(calibration, Temperature):
        run.log_measures({"calibration/temperature": calibration.temperature})
    if isinstance(calibration, Recalibration):
        intercepts = zip(before[0].classes, calibration.intercepts.tolist(), strict=True)
        run.log_measures({"recalibration/slope": calibration.slope})
        run.log_measures({f"recalibration/intercept/{label}": value for label, value in intercepts})
    for evaluation in before:
        run.log_measures(
            {f"{evaluation.part}/{name}_uncalibrated": evaluation.metrics[name] for name in ("ece", "log_loss")}
        )
        figure = curve_plots.reliability_figure(evaluation)
        run.log_figure(figure, "reliability_uncalibrated", part=evaluation.part)


@stage("Measuring the decisions")
def log_decisions(
    run: Run,
    evaluations: Sequence[Evaluation],
    decisions: Decisions,
    bootstrap: Bootstrap,
    prevalence: Mapping[str, float] | None = None,
) -> None:
    """Log the decisions that were fitted on validation, and their rates on each part.

    `prevalence` is the share of positives of each binary task where the model will be used; see `measure_at`.

    The metrics are `<part>/operating_point/<task>/<measure>`, `<part>/prediction_set/<measure>` and
    `<part>/abstention/<measure>`; see `melanoma.evaluation.operating_point` and `melanoma.evaluation.uncertain`.
    """
    _log_points(run, evaluations, decisions.points, bootstrap, prevalence or {})
    measured: dict[str, dict[str, dict[str, float]]] = {"prediction_set": {}, "abstention": {}}
    for evaluation in evaluations:
        predictions, part = evaluation.predictions, evaluation.part
        if decisions.sets is not None:
            found = decisions.sets.measured(predictions.targets, predictions.probabilities, evaluation.classes)
            measured["prediction_set"][part] = found
            intervals = set_intervals(decisions.sets, predictions, bootstrap)
            _log_rates(run, f"{part}/prediction_set", found, intervals)
            if part == "test":
                _warn_of_low_coverage(decisions.sets, found, intervals)
        if decisions.abstention is not None:
            found = decisions.abstention.measured(predictions.targets, predictions.probabilities)
            measured["abstention"][part] = found
            intervals = abstention_intervals(decisions.abstention, predictions, bootstrap)
            _log_rates(run, f"{part}/abstention", found, intervals)
            figure = curve_plots.abstention_figure(evaluation, decisions.abstention)
            run.log_figure(figure, "abstention", part=part, vector=part == "test")
    for kind, fitted in (("prediction_set", decisions.sets), ("abstention", decisions.abstention)):
        if fitted is not None:
            run.log_measures(_thresholds(kind, fitted.threshold, evaluations[0].classes))
            run.log_json({**asdict(fitted), **measured[kind]}, f"evaluation/{kind}.json")
    if decisions.sets is not None:
        _warn_of_full_sets(decisions.sets, evaluations[0].classes)


def _thresholds(kind: str, threshold: float | Sequence[float], classes: Sequence[str]) -> dict[str, float]:
    """Return the threshold, or that of each class, under its name."""
    if isinstance(threshold, float):
        return {f"{kind}/threshold": threshold}
    return {f"{kind}/threshold/{label}": value for label, value in zip(classes, threshold, strict=True)}


def _warn_of_low_coverage(
    sets: PredictionSets, found: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]
) -> None:
    """Warn of the classes whose coverage on test is shown to be lower than the wanted one."""
    low = [name for name, (_, high) in intervals.items() if name.startswith("coverage/") and high < sets.coverage]
    if low:
        listed = ", ".join(f"{found[name]:.0%} of {name.removeprefix('coverage/')}" for name in low)
        log.warning(
            "Prediction sets of %.0f%% hold the true class of %s on test.%s", 100 * sets.coverage, listed,
            " evaluation.coverage_per_class=true fits them to each class" if isinstance(sets.threshold, float) else "",
        )  # fmt: skip


def _warn_of_full_sets(sets: PredictionSets, classes: Sequence[str]) -> None:
    of_each = [sets.threshold] * len(classes) if isinstance(sets.threshold, float) else sets.threshold
    full = [label for label, threshold in zip(classes, of_each, strict=True) if threshold >= 1]
    if full:
        log.warning(
            "Too few validation images for prediction sets with a coverage of %g: each set holds %s",
            sets.coverage, "all classes" if len(full) == len(classes) else ", ".join(full),
        )  # fmt: skip


@stage("Measuring per lesion and per patient")
def log_levels(run: Run, evaluations: Sequence[Evaluation], decisions: Decisions, bootstrap: Bootstrap) -> None:
    """Log `<part>/per_lesion/...` and `<part>/per_patient/...`, where these are known; see `measure_levels`."""
    for evaluation in evaluations:
        found = measure_levels(evaluation.rows, evaluation.predictions, decisions.points, bootstrap)
        _log_rates(run, evaluation.part, *found)


def _log_points(
    run: Run,
    evaluations: Sequence[Evaluation],
    points: Sequence[OperatingPoint],
    bootstrap: Bootstrap,
    prevalence: Mapping[str, float],
) -> None:
    content = []
    for point in points:
        name = f"operating_point/{point.binary_task}"
        run.log_measures({f"{name}/threshold": point.threshold})
        measured = {e.part: measure_at(point, e.predictions, prevalence) for e in evaluations}
        for e in evaluations:
            intervals = measure_intervals_at(point, e.predictions, bootstrap, prevalence)
            _log_rates(run, f"{e.part}/{name}", measured[e.part], intervals)
        content.append({**asdict(point), **measured})
        _announce(point, measured.get("test", {}))
    if content:
        run.log_json({"points": content}, Artifact.OPERATING_POINTS)


def _log_rates(run: Run, prefix: str, rates: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]) -> None:
    named = {f"{prefix}/{name}": value for name, value in rates.items()}
    for name, (low, high) in intervals.items():
        named |= named_bounds(f"{prefix}/{name}", low, high)
    run.log_measures(named)


def _announce(point: OperatingPoint, test: Mapping[str, float]) -> None:
    if {"sensitivity", "specificity", "referrals_per_found", "missed_per_1000"} <= set(test):
        log.info(
            "Operating point for %s (%s): on test sensitivity %.1f%%, specificity %.1f%%, %.1f referrals per positive "
            "found, %.0f positives missed per 1,000 images",
            point.binary_task, point.rule, 100 * test["sensitivity"], 100 * test["specificity"],
            test["referrals_per_found"], test["missed_per_1000"],
        )  # fmt: skip
