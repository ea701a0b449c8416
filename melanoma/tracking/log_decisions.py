"""What is logged of calibration and of decisions: operating points, prediction sets and abstention."""

import logging
from collections.abc import Sequence
from dataclasses import asdict

from melanoma.config.schema import EvaluationConfig
from melanoma.evaluation import curve_plots
from melanoma.evaluation.calibration import Temperature
from melanoma.evaluation.decisions import Decisions
from melanoma.evaluation.evaluate import Evaluation, groups_of
from melanoma.evaluation.operating_point import OperatingPoint, applied, applied_intervals
from melanoma.tracking.run import Run

__all__ = ["log_calibration", "log_decisions"]

log = logging.getLogger("melanoma")


def log_calibration(run: Run, calibration: object, before: Sequence[Evaluation]) -> None:
    """The calibration, and how the probabilities were without it."""
    if isinstance(calibration, Temperature):
        run.log_metrics({"calibration/temperature": calibration.temperature})
    for evaluation in before:
        run.log_metrics(
            {f"{evaluation.part}/{name}_uncalibrated": evaluation.metrics[name] for name in ("ece", "log_loss")}
        )
        figure = curve_plots.reliability_figure(evaluation)
        run.log_figure(figure, "reliability_uncalibrated", part=evaluation.part)


def log_decisions(
    run: Run, evaluations: Sequence[Evaluation], decisions: Decisions, settings: EvaluationConfig, seed: int
) -> None:
    """What was fitted on validation, and what it costs and finds on each part.

    As `<part>/operating_point/<question>/<measure>`, `<part>/prediction_set/<measure>` and
    `<part>/abstention/<measure>`; see `melanoma.evaluation.operating_point` and `melanoma.evaluation.uncertain`. The
    sensitivity and specificity of an operating point have intervals.
    """
    _log_points(run, evaluations, decisions.points, settings, seed)
    measured: dict[str, dict[str, dict[str, float]]] = {"prediction_set": {}, "abstention": {}}
    for evaluation in evaluations:
        targets, probabilities = evaluation.rows.target.to_numpy(), evaluation.probabilities
        if decisions.sets is not None:
            found = decisions.sets.measured(targets, probabilities, evaluation.classes)
            measured["prediction_set"][evaluation.part] = found
        if decisions.abstention is not None:
            measured["abstention"][evaluation.part] = decisions.abstention.measured(targets, probabilities)
            figure = curve_plots.abstention_figure(evaluation, decisions.abstention)
            run.log_figure(figure, "abstention", part=evaluation.part, vector=evaluation.part == "test")
    for kind, fitted in (("prediction_set", decisions.sets), ("abstention", decisions.abstention)):
        if fitted is not None:
            run.log_metrics({f"{kind}/threshold": fitted.threshold})
            for part, measures in measured[kind].items():
                run.log_metrics({f"{part}/{kind}/{name}": value for name, value in measures.items()})
            run.log_json({**asdict(fitted), **measured[kind]}, f"evaluation/{kind}.json")
    if decisions.sets is not None and decisions.sets.threshold >= 1:
        log.warning(
            "Too few validation images to promise prediction sets a coverage of %g: each holds all classes",
            decisions.sets.coverage,
        )


def _log_points(
    run: Run, evaluations: Sequence[Evaluation], points: Sequence[OperatingPoint], settings: EvaluationConfig, seed: int
) -> None:
    content = []
    for point in points:
        run.log_metrics({f"operating_point/{point.question}/threshold": point.threshold})
        measured = {
            e.part: applied(point, e.rows.target.to_numpy(), e.probabilities, e.classes, e.views) for e in evaluations
        }
        for part, measures in measured.items():
            run.log_metrics({f"{part}/operating_point/{point.question}/{name}": v for name, v in measures.items()})
        for e in evaluations:
            intervals = applied_intervals(
                point, e.rows.target.to_numpy(), e.probabilities, e.classes, e.views,
                groups=groups_of(e.rows), resamples=settings.bootstrap, confidence=settings.confidence, seed=seed,
            )  # fmt: skip
            run.log_metrics(
                {
                    f"{e.part}/operating_point/{point.question}/{name}_ci_{end}": bound
                    for name, bounds in intervals.items()
                    for end, bound in zip(("low", "high"), bounds, strict=True)
                }
            )
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
