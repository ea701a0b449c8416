"""Findings of a training: is it over- or underfitting, which classes are rare, what to try next."""

from math import isfinite

from melanoma.config.schema import TrainConfig, TrainingConfig
from melanoma.data.dataset import Dataset
from melanoma.evaluation.evaluate import Evaluation, bootstrap_of
from melanoma.evaluation.findings import Gap, Trained, findings, generalization_gap
from melanoma.evaluation.predictions import Predictions
from melanoma.evaluation.texts import named_bounds
from melanoma.terminal import stage
from melanoma.tracking.names import Tag
from melanoma.tracking.run import Run
from melanoma.training.network import Fitted

__all__ = ["log_findings"]


@stage("Comparing training and validation")
def log_findings(
    run: Run,
    fitted: Fitted,
    dataset: Dataset,
    settings: TrainConfig,
    training: Predictions | None,
    validation: Evaluation,
) -> list[str]:
    """Log and return what the result says about the training.

    Args:
        run: Run that has logged its evaluation.
        fitted: History of the training.
        dataset: Data set of the images.
        settings: The whole configuration.
        training: Predictions of training images without augmentation; None if there are none.
        validation: Evaluation of the validation images.
    """
    originals = dataset.part("train").query("parent == ''")
    gap: Gap | None = None
    if training is not None:
        bootstrap = bootstrap_of(settings.evaluation, settings.seed)
        gap = generalization_gap(training, validation.predictions, str(settings.primary_metric), bootstrap)
    if gap is not None:
        name = gap.metric
        run.log_measures({f"training/{name}": gap.training, f"gap/{name}": gap.value})
        if isfinite(gap.low):
            run.log_measures(named_bounds(f"gap/{name}", gap.low, gap.high))
    trained = Trained(
        images=originals.label.value_counts().reindex(dataset.classes, fill_value=0).to_dict(),
        epochs=len(fitted.history),
        best=fitted.epoch + 1 if settings.training.restore_best else None,
        longer=_longer(fitted, settings.training),
        augmentation=settings.augmentation.name,
        balance=settings.balance.name,
        calibration=settings.evaluation.calibration,
        patience=settings.training.early_stopping.patience,
        stopped_early=_is_stopped_early(fitted, settings.training),
    )
    found = findings(trained, validation.predictions, gap)
    if found:
        run.set_tags({Tag.FINDINGS: "\n".join(found)})
        run.add_note("\n".join(["**Findings**", "", *(f"- {line}" for line in found)]))
    return found


def _is_stopped_early(fitted: Fitted, settings: TrainingConfig) -> bool:
    # If both could have ended it, the time limit is the rarer one: the planned epochs fit into it.
    return len(fitted.history) < fitted.planned and settings.early_stopping.patience is not None


def _longer(fitted: Fitted, settings: TrainingConfig) -> str:
    """Return the key to type for a training of about twice the length."""
    patience, minutes = settings.early_stopping.patience, settings.max_minutes
    if patience is not None and _is_stopped_early(fitted, settings):
        return f"training.early_stopping.patience={2 * patience}"
    if minutes is not None and len(fitted.history) < settings.epochs:
        return f"training.max_minutes={max(2 * minutes, 1):g}"
    return f"epochs={2 * len(fitted.history)}"
