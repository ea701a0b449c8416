"""Findings of a training: is it over- or underfitting, which classes are rare, what to try next."""

from typing import Any

import numpy as np

from melanoma.config.schema import TrainConfig
from melanoma.data.dataset import Dataset
from melanoma.evaluation.evaluate import Evaluation, bootstrap_of, predictions_of
from melanoma.evaluation.findings import Gap, Trained, findings, generalization_gap
from melanoma.evaluation.predict import predict_probabilities
from melanoma.terminal import stage
from melanoma.tracking.names import Tag
from melanoma.tracking.run import Run
from melanoma.training.network import Fitted

__all__ = ["log_findings"]

_MOST = 1000  # training images that are predicted


@stage("Comparing training and validation")
def log_findings(
    run: Run, model: Any, fitted: Fitted, dataset: Dataset, settings: TrainConfig, validation: Evaluation
) -> list[str]:
    """Log and return what the result says about the training.

    Args:
        run: Run that has logged its evaluation.
        model: Model that is saved.
        fitted: History of the training.
        dataset: Data set of the images.
        settings: The whole configuration.
        validation: Evaluation of the validation images.
    """
    originals = dataset.part("train").query("parent == ''")
    gap = _gap(model, dataset, settings, validation)
    if gap is not None:
        name = gap.metric
        run.log_measures(
            {
                f"training/{name}": gap.training,
                f"gap/{name}": gap.value,
                f"gap/{name}_ci_low": gap.low,
                f"gap/{name}_ci_high": gap.high,
            }
        )
    trained = Trained(
        images=originals.label.value_counts().reindex(dataset.classes, fill_value=0).to_dict(),
        epochs=len(fitted.history),
        kept=fitted.epoch + 1,
        balance=settings.balance.name,
        calibration=settings.evaluation.calibration,
        minutes=settings.training.max_minutes if len(fitted.history) < settings.training.epochs else None,
    )
    found = findings(trained, validation.predictions, gap)
    if found:
        run.set_tags({Tag.FINDINGS: "\n".join(found)})
        run.add_note("\n".join(["**Findings**", "", *(f"- {line}" for line in found)]))
    return found


def _gap(model: Any, dataset: Dataset, settings: TrainConfig, validation: Evaluation) -> Gap | None:
    """Predict training images without augmentation, and compare the primary metric with that of validation."""
    rows = dataset.part("train").query("parent == ''")
    if len(rows) > _MOST:
        rows = rows.iloc[np.sort(np.random.default_rng(settings.seed).choice(len(rows), _MOST, replace=False))]
    batch_size = settings.evaluation.batch_size
    of_training = predict_probabilities(model, dataset.store, rows.row.to_numpy(), batch_size=batch_size)
    training = predictions_of(rows, of_training, dataset.classes, settings.data.binary_tasks)
    bootstrap = bootstrap_of(settings.evaluation, settings.seed)
    return generalization_gap(training, validation.predictions, str(settings.primary_metric), bootstrap)
