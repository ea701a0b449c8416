"""Evaluation of a model on the held-out parts of a data set, logged to a run: calibration, metrics and decisions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from melanoma.config.schema import DataConfig, EvaluationConfig
from melanoma.data.dataset import Dataset
from melanoma.evaluation.calibrated_model import with_calibration
from melanoma.evaluation.calibration import Isotonic, Recalibration, Temperature
from melanoma.evaluation.decisions import Decisions, fit_decisions
from melanoma.evaluation.evaluate import Evaluation, evaluate, predict_parts, predictions_of
from melanoma.evaluation.predictions import Bootstrap
from melanoma.lineage.protocol import Protocol
from melanoma.tracking.log_decisions import log_calibration, log_decisions, log_levels
from melanoma.tracking.log_evaluation import log_evaluations
from melanoma.tracking.log_subgroups import log_subgroups

if TYPE_CHECKING:
    from melanoma.tracking.run import Run

__all__ = ["Measured", "log_measured", "measure_model", "save_measured"]

Calibration = Temperature | Isotonic | Recalibration


@dataclass(frozen=True)
class Measured:
    """A model with its calibration, if any, its evaluations, and its decisions; `uncalibrated` are those before."""

    model: Any
    evaluations: list[Evaluation]
    decisions: Decisions
    calibration: Calibration | None
    uncalibrated: list[Evaluation]


def measure_model(
    model: Any,
    dataset: Dataset,
    settings: EvaluationConfig,
    bootstrap: Bootstrap,
    *,
    binary_tasks: Mapping[str, list[str]],
    fit: Callable[[NDArray[np.integer], NDArray], Calibration] | None = None,
    decisions: Decisions | None = None,
) -> Measured:
    """Evaluate a model on the validation and test parts, those of them that have images.

    Args:
        model: Model that maps pixels to probabilities.
        dataset: Data set after the split.
        settings: Batch size, and the rules of decisions.
        bootstrap: Settings of the intervals.
        binary_tasks: See `Predictions`.
        fit: Function that fits a calibration from the targets and the probabilities of the validation images.
        decisions: Decisions of the model; None to fit them on the validation images.
    """
    calibration = None
    before = probabilities = predict_parts(model, dataset, settings.batch_size)
    if fit is not None:
        calibration = fit(dataset.part("validation").target.to_numpy(), before["validation"])
        model = with_calibration(model, calibration)
        # Predicted by the saved model, because another computation could break ties between classes differently.
        probabilities = predict_parts(model, dataset, settings.batch_size)
    evaluations = []
    for part, predicted in probabilities.items():
        rows = dataset.part(part)
        predictions = predictions_of(rows, predicted, dataset.classes, binary_tasks)
        evaluations.append(evaluate(part, rows, predictions, bootstrap))
    uncalibrated = [] if calibration is None else [e.with_probabilities(before[e.part]) for e in evaluations]
    decisions = decisions or fit_decisions(evaluations[0].predictions, settings)
    return Measured(model, evaluations, decisions, calibration, uncalibrated)


def log_measured(
    run: "Run",
    measured: Measured,
    dataset: Dataset,
    settings: EvaluationConfig,
    bootstrap: Bootstrap,
    *,
    protocol: Protocol,
    internal: Mapping[str, float] | None = None,
) -> None:
    """Log calibration, metrics, figures, decisions and subgroups; see `log_evaluations` for the arguments."""
    evaluations, decisions = measured.evaluations, measured.decisions
    if measured.calibration is not None:
        log_calibration(run, measured.calibration, measured.uncalibrated)
    log_evaluations(
        run, evaluations, dataset, protocol=protocol, model=measured.model, decisions=decisions, internal=internal
    )
    log_decisions(run, evaluations, decisions, bootstrap, settings.prevalence)
    log_levels(run, evaluations, decisions, bootstrap)
    log_subgroups(run, evaluations[-1], dataset, settings, bootstrap, decisions.points)


def save_measured(measured: Measured, dataset: Dataset, data: DataConfig, protocol: Protocol) -> str:
    """Save the model with its decisions to the active run, and return its address."""
    from melanoma.tracking.models import save_model

    examples = dataset.part("train" if len(dataset.part("train")) else "validation").head(2)
    return save_model(
        measured.model,
        classes=dataset.classes,
        image_size=data.image_size,
        resize=data.resize,
        example=dataset.pixels(examples),
        metadata={
            "task": data.name,
            "protocol": str(protocol),
            "fingerprint": dataset.fingerprint,
            "max_megapixels": data.max_megapixels,
            **measured.decisions.metadata(),
        },
    )
