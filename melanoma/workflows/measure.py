"""Evaluation of a model on the held-out parts of a data set, logged to a run: calibration, metrics and decisions."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma.config.schema import DataConfig, EvaluationConfig
from melanoma.data.dataset import Dataset
from melanoma.errors import ModelError
from melanoma.evaluation.calibrated_model import with_calibration
from melanoma.evaluation.calibration import Isotonic, Recalibration, Temperature
from melanoma.evaluation.decisions import Decisions, fit_decisions
from melanoma.evaluation.evaluate import Evaluation, evaluate, predictions_of
from melanoma.evaluation.out_of_distribution import OodDetector, fit_distance, with_threshold
from melanoma.evaluation.predict import predict_probabilities, predict_scored, predict_with_features
from melanoma.evaluation.predictions import Bootstrap, Predictions
from melanoma.lineage.protocol import Protocol
from melanoma.models.features import with_features
from melanoma.terminal import stage
from melanoma.tracking.log_decisions import log_calibration, log_decisions, log_levels
from melanoma.tracking.log_evaluation import log_evaluations
from melanoma.tracking.log_out_of_distribution import log_out_of_distribution
from melanoma.tracking.log_subgroups import log_subgroups

if TYPE_CHECKING:
    from melanoma.tracking.models import SavedModel
    from melanoma.tracking.run import Run

__all__ = ["Measured", "log_measured", "measure_model", "save_measured"]

log = logging.getLogger("melanoma")

Calibration = Temperature | Isotonic | Recalibration

_MOST = 1000  # training images that are predicted


@dataclass(frozen=True)
class Measured:
    """A model with its evaluations and decisions.

    Attributes:
        model: Model from pixels to probabilities, with its calibration.
        evaluations: Evaluation of each part that has images.
        decisions: Decisions on the probabilities.
        calibration: The calibration; None if there is none.
        uncalibrated: Evaluations of the probabilities before the calibration.
        training: Predictions of up to 1,000 training images, without augmented ones; None if there are none.
        detector: Out-of-distribution detector; None if there is none.
    """

    model: Any
    evaluations: list[Evaluation]
    decisions: Decisions
    calibration: Calibration | None
    uncalibrated: list[Evaluation]
    training: Predictions | None
    detector: OodDetector | None


class _Predicted(NamedTuple):
    """Probabilities of each part, the detector, and out-of-distribution scores of the held-out parts."""

    probabilities: dict[str, NDArray[np.float64]]
    detector: OodDetector | None
    ood_scores: dict[str, NDArray[np.float64]]


def measure_model(
    model: Any,
    dataset: Dataset,
    settings: EvaluationConfig,
    bootstrap: Bootstrap,
    *,
    binary_tasks: Mapping[str, list[str]],
    fit: Callable[[NDArray[np.integer], NDArray], Calibration] | None = None,
    saved: "SavedModel | None" = None,
) -> Measured:
    """Evaluate a model on the validation and test parts, those of them that have images.

    Args:
        model: Model that maps pixels to probabilities.
        dataset: Data set after the split.
        settings: Batch size, and the rules of decisions.
        bootstrap: Settings of the intervals.
        binary_tasks: See `Predictions`.
        fit: Function that fits a calibration from the targets and the probabilities of the validation images.
        saved: The saved model, with its out-of-distribution detector and, unless `fit` changes the probabilities, its
            decisions; None to fit them.
    """
    parts = {part: dataset.part(part) for part in ("validation", "test") if len(dataset.part(part))}
    sample = _training_sample(dataset, bootstrap.seed)
    rows = {**({"train": sample} if len(sample) else {}), **parts}
    before, detector, scores = _predicted(model, dataset, rows, settings, None if saved is None else saved.detector)
    calibration, probabilities = None, before
    if fit is not None:
        calibration = fit(parts["validation"].target.to_numpy(), before["validation"])
        model = with_calibration(model, calibration)
        # Predicted by the saved model, because another computation could break ties between classes differently.
        probabilities = _probabilities(model, dataset, rows, settings.batch_size)
    predicted = {
        part: predictions_of(rows[part], probabilities[part], dataset.classes, binary_tasks) for part in probabilities
    }
    evaluations = [
        replace(evaluate(part, rows[part], predicted[part], bootstrap), ood_scores=scores.get(part)) for part in parts
    ]
    decisions = saved.decisions if saved is not None and fit is None else None
    return Measured(
        model,
        evaluations,
        decisions or fit_decisions(evaluations[0].predictions, settings),
        calibration,
        [] if calibration is None else [e.with_probabilities(before[e.part]) for e in evaluations],
        predicted.get("train"),
        detector,
    )


def _training_sample(dataset: Dataset, seed: int) -> pd.DataFrame:
    """Return up to 1,000 training images, without augmented ones."""
    rows = dataset.part("train").query("parent == ''")
    if len(rows) <= _MOST:
        return rows
    return rows.iloc[np.sort(np.random.default_rng(seed).choice(len(rows), _MOST, replace=False))]


@stage("Predicting the validation and test images")
def _probabilities(
    model: Any, dataset: Dataset, rows: Mapping[str, pd.DataFrame], batch_size: int
) -> dict[str, NDArray[np.float64]]:
    """Predict probabilities of shape (n, classes) for each part."""
    predict = partial(predict_probabilities, model, dataset.store, batch_size=batch_size)
    return {part: predict(own.row.to_numpy()) for part, own in rows.items()}


def _predicted(
    model: Any,
    dataset: Dataset,
    rows: Mapping[str, pd.DataFrame],
    settings: EvaluationConfig,
    detector: OodDetector | None,
) -> _Predicted:
    """Predict the rows of each part, and fit the detector on the training images unless one is given."""
    share = settings.out_of_distribution
    fitted = detector is None and share is not None and {"train", "validation"} <= set(rows)
    scored = with_features(model) if fitted or detector is not None else None
    if detector is not None and (scored is None or _width(scored) != len(detector.center)):
        raise ModelError(
            "The out-of-distribution detector belongs to another network; save the model anew. Received: a detector of "
            f"{len(detector.center)} features for a network of {0 if scored is None else _width(scored)}"
        )
    if scored is None:
        if fitted:
            log.info("No out-of-distribution score: the layers of the network are no graph with feature maps")
        return _Predicted(_probabilities(model, dataset, rows, settings.batch_size), None, {})
    return _scored(scored, dataset, rows, settings.batch_size, detector, share)


def _width(scored: Any) -> int:
    """Return the number of features of a model of `with_features`."""
    return sum(int(one.shape[1]) for one in scored.outputs[1:])


@stage("Predicting the validation and test images")
def _scored(
    model: Any,
    dataset: Dataset,
    rows: Mapping[str, pd.DataFrame],
    batch_size: int,
    detector: OodDetector | None,
    share: float | None,
) -> _Predicted:
    """Do so with a model of `with_features`, in one pass over the images."""
    probabilities, scores, fitted = {}, {}, detector is None
    if "train" in rows:
        images = rows["train"].row.to_numpy()
        probabilities["train"], features = predict_with_features(model, dataset.store, images, batch_size=batch_size)
        detector = detector or fit_distance(features)
    for part in (part for part in rows if part != "train"):
        images = rows[part].row.to_numpy()
        probabilities[part], found = predict_scored(model, detector, dataset.store, images, batch_size=batch_size)
        if found is not None:
            scores[part] = found
    if detector is not None and fitted and share is not None:
        detector = with_threshold(detector, scores["validation"], share)
        scores = {} if detector is None else {part: own / detector.threshold for part, own in scores.items()}
    return _Predicted(probabilities, detector, scores)


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
    if measured.detector is not None:
        pictured = None if internal is None else dataset.pixels
        log_out_of_distribution(run, evaluations, measured.detector.share, bootstrap, pictured)
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
        detector=measured.detector,
        metadata={
            "task": data.name,
            "protocol": str(protocol),
            "fingerprint": dataset.fingerprint,
            "max_megapixels": data.max_megapixels,
            **measured.decisions.metadata(),
        },
    )
