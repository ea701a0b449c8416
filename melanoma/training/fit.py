"""Training of a network in phases, with a choice of the weights to keep."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from melanoma.config.schema import TrainingConfig
from melanoma.evaluation.metrics import epoch_metrics, is_error
from melanoma.evaluation.predictions import Predictions
from melanoma.models.features import HEAD
from melanoma.training.callbacks import Keep, Profile, Report, StopOnNaN, TimeLimit, Validate
from melanoma.training.checkpoint import Checkpoints, State
from melanoma.training.compat import all_layers
from melanoma.training.state import Saving, Snapshots, Stateful, put_back, saving_to

__all__ = ["Feed", "Recipe", "Trained", "fit", "head_only", "mode_of"]

log = logging.getLogger("melanoma")


@dataclass(frozen=True)
class Feed:
    """The images that a network is trained and validated on.

    Attributes:
        batches: Function that returns endless training batches without the `first` ones (see `training_batches`).
        steps_per_epoch: Number of batches per epoch.
        rows: Number of training images.
        images: Number of training images per epoch.
        validation: Validation batches (see `prediction_batches`).
        validation_targets: Class index of each validation image.
        classes: Class names.
        binary_tasks: Positive classes of each binary task.
        primary: Primary metric, which is computed after each epoch too.
    """

    batches: Callable[..., tf.data.Dataset]
    steps_per_epoch: int
    rows: int
    images: int
    validation: tf.data.Dataset
    validation_targets: NDArray[np.integer]
    classes: Sequence[str]
    binary_tasks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    primary: str | None = None


@dataclass(frozen=True)
class Recipe:
    """Loss, optimizer and learning rate.

    Attributes:
        loss: Loss on logits.
        optimizer: Function that creates the optimizer, called with `learning_rate` and, for a moving average of the
            weights, `use_ema` and `ema_momentum`.
        learning_rate: Peak learning rate.
        schedule: Learning-rate schedule (see `melanoma.training.schedules`).
        warmup_epochs: Number of epochs in which only the head is trained.
        finetune_factor: Factor on the learning rate when the whole network is trained after these epochs.
        jit_compile: Whether to compile with XLA.
    """

    loss: keras.losses.Loss
    optimizer: Callable[..., keras.optimizers.Optimizer]
    learning_rate: float
    schedule: Callable[..., tuple[Any, list[keras.callbacks.Callback]]]
    warmup_epochs: int = 0
    finetune_factor: float = 1.0
    jit_compile: bool = False


class Trained(NamedTuple):
    """The epoch, from 0, of the kept weights, and the metrics of each epoch."""

    epoch: int
    history: list[dict[str, float]]


def fit(
    network: keras.Model,
    feed: Feed,
    recipe: Recipe,
    settings: TrainingConfig,
    on_epoch: Callable[[int, dict[str, float]], None],
    profile: Path | None = None,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Train a network in place, and set its weights to the ones to keep.

    A training that was interrupted goes on from its last checkpoint, with the same result as if it had not been.

    Args:
        network: Network that maps pixels to logits.
        feed: Training and validation images.
        recipe: Loss, optimizer and learning rate.
        settings: Number of epochs, monitor (not None), early stopping and checkpoints.
        on_epoch: Function that receives each epoch's number, from 0, and metrics; also those before the checkpoint.
        profile: Folder for a TensorFlow profile, or None.
        checkpoints: Checkpoints to go on from, and to write; None for none.

    Raises:
        TrainingError: If the loss or a validation prediction is NaN or infinite.
        ModelError: If the checkpoint is of another network, or was written by a newer version.
        RunKilled: After SIGTERM, when a checkpoint was written.
    """
    keep = Keep(str(settings.monitor), mode_of(str(settings.monitor)), settings.restore_best)
    minutes, steps = settings.max_minutes, feed.steps_per_epoch
    limit = None if minutes is None else TimeLimit(minutes, settings.epochs, steps)
    history: list[dict[str, float]] = []

    def remember(epoch: int, metrics: dict[str, float]) -> None:
        history.append(metrics)
        on_epoch(epoch, metrics)

    report = Report(settings.epochs, feed.steps_per_epoch, remember)
    start = None if checkpoints is None else checkpoints.load()
    if start is not None:
        log.info("Going on after %s of %d", start.place, settings.epochs)
        put_back(network.variables, start.arrays["network"])
        _restore(keep, limit, start)
        for epoch, metrics in enumerate(start.history):
            remember(epoch, metrics)
    try:
        with nullcontext() if checkpoints is None else saving_to(checkpoints, settings.checkpoint.minutes) as saving:
            session = _Session(network, feed, recipe, settings, keep, limit, history, report, profile, saving)
            for number, phase in enumerate(_phases(settings.epochs, recipe)):
                if start is None or number > start.phase:
                    _train(session, phase, number, None)
                elif number == start.phase and start.epoch < phase.end and not start.over:
                    _train(session, phase, number, start)
                network.set_weights(keep.weights)
                if limit is not None and limit.is_over:
                    log.warning("The training ended early, because training.max_minutes=%g is used up", limit.minutes)
                    break
    finally:
        report.close()
    return Trained(keep.epoch, history)


class _Session(NamedTuple):
    """All that the phases of a training share; see `fit`."""

    network: keras.Model
    feed: Feed
    recipe: Recipe
    settings: TrainingConfig
    keep: Keep
    limit: TimeLimit | None
    history: list[dict[str, float]]
    report: Report
    profile: Path | None
    saving: Saving | None


def _restore(keep: Keep, limit: TimeLimit | None, start: State) -> None:
    keep.value, keep.epoch, keep.weights = start.kept_value, start.kept_epoch, list(start.arrays["kept"])
    if limit is not None:
        limit.seconds, limit.is_over = start.seconds, start.limit_reached


def _train(session: _Session, phase: "_Phase", number: int, start: State | None) -> None:
    """Train one phase, from a state or from its beginning."""
    network, feed, _, settings, keep, limit, history, report, profile, saving = session
    with head_only(network, phase.frozen):
        extra, accuracy = _compile(network, feed, session.recipe, settings, phase)
        swap = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if settings.ema is not None else []
        stopping = [] if phase.frozen else [_stopping(settings)]  # no early stopping in the short warm-up
        metrics = [network.metrics[0], accuracy]  # the first is the loss
        stateful = Stateful(keep, limit, [*swap, *extra, *stopping], metrics, history)
        while True:
            first, step = (phase.first, 0) if start is None else (start.epoch, start.step)
            snapshots = (
                None
                if saving is None
                else Snapshots(saving, stateful, phase=number, steps=feed.steps_per_epoch, start=start)
            )
            if start is not None:
                put_back(network.variables, start.arrays["network"])
                put_back(network.optimizer.variables, start.arrays["optimizer"])
            network.fit(
                feed.batches(first=first * feed.steps_per_epoch + step),
                initial_epoch=first,
                epochs=phase.end,
                steps_per_epoch=feed.steps_per_epoch - step,
                callbacks=[
                    *swap,
                    Validate(feed.validation, partial(_epoch_metrics, feed), feed.images, feed.steps_per_epoch),
                    StopOnNaN(),
                    *extra,
                    keep,
                    *([limit] if limit is not None else []),
                    *stopping,
                    report,
                    *([Profile(profile)] if profile is not None else []),
                    *([snapshots] if snapshots is not None else []),
                ],
                shuffle=False,
                verbose=0,
            )
            if snapshots is None or snapshots.next is None:
                return
            start = snapshots.next


def _compile(
    network: keras.Model, feed: Feed, recipe: Recipe, settings: TrainingConfig, phase: "_Phase"
) -> tuple[list[keras.callbacks.Callback], keras.metrics.Metric]:
    """Compile the network for one phase, and return the callbacks of its schedule, and the accuracy."""
    rate, callbacks = recipe.schedule(
        learning_rate=recipe.learning_rate * phase.factor,
        epochs=phase.end - phase.first,
        steps_per_epoch=feed.steps_per_epoch,
        monitor=str(settings.monitor),
        mode=mode_of(str(settings.monitor)),
    )
    ema = {} if settings.ema is None else {"use_ema": True, "ema_momentum": settings.ema}
    accuracy = (
        keras.metrics.MeanMetricWrapper(_binary_hits, "accuracy")
        if len(feed.classes) == 2
        else keras.metrics.CategoricalAccuracy("accuracy")
    )
    optimizer = recipe.optimizer(learning_rate=rate, **ema)
    network.compile(optimizer, recipe.loss, metrics=[accuracy], jit_compile=recipe.jit_compile)
    # Else Keras creates its variables while TensorFlow traces the step, which takes long for networks of many layers.
    network.optimizer.build(network.trainable_variables)
    return callbacks, accuracy


def _stopping(settings: TrainingConfig) -> keras.callbacks.Callback:
    patience = settings.early_stopping.patience
    return keras.callbacks.EarlyStopping(
        monitor=str(settings.monitor),
        mode=mode_of(str(settings.monitor)),
        min_delta=settings.early_stopping.min_delta,
        patience=patience if patience is not None else settings.epochs,
    )


def _epoch_metrics(feed: Feed, probabilities: NDArray) -> dict[str, float]:
    return epoch_metrics(
        Predictions(feed.validation_targets, probabilities, feed.classes, feed.binary_tasks), feed.primary
    )


def mode_of(monitor: str) -> str:
    """Return `min` if a smaller value of a metric is better, and `max` otherwise."""
    return "min" if is_error(monitor) else "max"


@contextmanager
def head_only(network: keras.Model, only: bool = True) -> Iterator[None]:
    """Train only the head of a network within the context, if `only` is true."""
    trainable = [(layer, layer.trainable) for layer in all_layers(network)]
    try:
        for layer in network.layers:
            if only and layer.name != HEAD:
                layer.trainable = False
        yield
    finally:
        for layer, value in trainable:  # in order, because setting that of a network also sets those of its layers
            layer.trainable = value


def _binary_hits(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Return whether each prediction matches its label; a mixed label counts as its majority class."""
    return keras.ops.cast(keras.ops.equal(labels > 0.5, logits > 0), "float32")


class _Phase(NamedTuple):
    """First epoch, end, whether only the head is trained, and the factor on the learning rate."""

    first: int
    end: int
    frozen: bool
    factor: float


def _phases(epochs: int, recipe: Recipe) -> list[_Phase]:
    if not recipe.warmup_epochs:
        return [_Phase(0, epochs, False, 1.0)]
    warmup = min(recipe.warmup_epochs, epochs)
    phases = [_Phase(0, warmup, True, 1.0)]
    if warmup < epochs:
        phases.append(_Phase(warmup, epochs, False, recipe.finetune_factor))
    return phases
