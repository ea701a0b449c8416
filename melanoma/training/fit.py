"""Fitting a network: phases, and the weights that are kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from melanoma.config.schema import TrainingConfig
from melanoma.evaluation.metrics import is_error
from melanoma.models.build import HEAD
from melanoma.training.callbacks import Keep, Profile, Report, StopOnNaN, Validate
from melanoma.training.compat import all_layers

__all__ = ["Feed", "Recipe", "fit", "mode_of"]


@dataclass(frozen=True)
class Feed:
    """The images that a network is trained and validated on.

    Attributes:
        batches: endless training batches, see `training_batches`.
        steps_per_epoch: batches an epoch.
        rows: training images.
        images: of them, those seen in an epoch.
        validation: see `prediction_batches`.
        validation_targets: class index of each validation image.
        classes: their names.
    """

    batches: tf.data.Dataset
    steps_per_epoch: int
    rows: int
    images: int
    validation: tf.data.Dataset
    validation_targets: NDArray[np.integer]
    classes: Sequence[str]


@dataclass(frozen=True)
class Recipe:
    """Loss, optimizer and learning rate.

    Attributes:
        loss: on logits.
        optimizer: called with `learning_rate` and, for an average of weights, `use_ema` and `ema_momentum`.
        learning_rate: at its highest.
        schedule: see `melanoma.training.schedules`.
        warmup_epochs: epochs in which only the head trains.
        finetune_factor: of the learning rate, once all of a warmed-up network trains.
        jit_compile: compile with XLA.
    """

    loss: keras.losses.Loss
    optimizer: Callable[..., keras.optimizers.Optimizer]
    learning_rate: float
    schedule: Callable[..., tuple[Any, list[keras.callbacks.Callback]]]
    warmup_epochs: int = 0
    finetune_factor: float = 1.0
    jit_compile: bool = False


def fit(
    network: keras.Model,
    feed: Feed,
    recipe: Recipe,
    settings: TrainingConfig,
    on_epoch: Callable[[int, dict[str, float]], None],
    profile: Path | None = None,
) -> int:
    """Train a network in place and leave it with the weights to keep.

    Args:
        network: from pixels to logits.
        feed: of images.
        recipe: loss, optimizer and learning rate.
        settings: epochs, the monitor and when to stop.
        on_epoch: receives each epoch's number, from 0, and metrics.
        profile: folder for a TensorFlow profile, or None.

    Returns:
        The epoch, from 0, whose weights the network has.

    Raises:
        TrainingError: the loss became NaN.
    """
    report = Report(settings.epochs, feed.steps_per_epoch, on_epoch)
    keep = Keep(settings.monitor, mode_of(settings.monitor), settings.restore_best)
    trainable = [(layer, layer.trainable) for layer in all_layers(network)]
    try:
        for phase in _phases(settings.epochs, recipe):
            _restore(trainable)
            for layer in network.layers:
                if phase.frozen and layer.name != HEAD:
                    layer.trainable = False
            extra = _compile(network, feed, recipe, settings, phase)
            callbacks = [
                *([keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if settings.ema is not None else []),
                Validate(feed.validation, feed.validation_targets, feed.classes, feed.images),
                StopOnNaN(),
                *extra,
                keep,
                *([] if phase.frozen else [_stopping(settings)]),  # the warm-up is short, and runs to its end
                report,
                *([Profile(profile)] if profile is not None else []),
            ]
            network.fit(
                feed.batches,
                initial_epoch=phase.first,
                epochs=phase.end,
                steps_per_epoch=feed.steps_per_epoch,
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )
            network.set_weights(keep.weights)
    finally:
        report.close()
        _restore(trainable)
    return keep.epoch


def _compile(
    network: keras.Model, feed: Feed, recipe: Recipe, settings: TrainingConfig, phase: "_Phase"
) -> list[keras.callbacks.Callback]:
    """Compile for one phase; returns the callbacks of its schedule."""
    rate, callbacks = recipe.schedule(
        learning_rate=recipe.learning_rate * phase.factor,
        epochs=phase.end - phase.first,
        steps_per_epoch=feed.steps_per_epoch,
        monitor=settings.monitor,
        mode=mode_of(settings.monitor),
    )
    ema = {} if settings.ema is None else {"use_ema": True, "ema_momentum": settings.ema}
    accuracy = (
        keras.metrics.MeanMetricWrapper(_binary_hits, "accuracy")
        if len(feed.classes) == 2
        else keras.metrics.CategoricalAccuracy("accuracy")
    )
    optimizer = recipe.optimizer(learning_rate=rate, **ema)
    network.compile(optimizer, recipe.loss, metrics=[accuracy], jit_compile=recipe.jit_compile)
    return callbacks


def _stopping(settings: TrainingConfig) -> keras.callbacks.Callback:
    patience = settings.early_stopping.patience
    return keras.callbacks.EarlyStopping(
        monitor=settings.monitor,
        mode=mode_of(settings.monitor),
        min_delta=settings.early_stopping.min_delta,
        patience=patience if patience is not None else settings.epochs,
    )


def mode_of(monitor: str) -> str:
    """Whether a metric is better when smaller (`min`) or larger (`max`)."""
    return "min" if is_error(monitor) else "max"


def _restore(trainable: list[tuple[keras.layers.Layer, bool]]) -> None:
    """Set layers as they were: a network before the layers in it, which it would change otherwise."""
    for layer, value in trainable:
        layer.trainable = value


def _binary_hits(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Whether each logit is on the side of its label; mixed pairs count as the class they have more of."""
    return keras.ops.cast(keras.ops.equal(labels > 0.5, logits > 0), "float32")


class _Phase(NamedTuple):
    """First epoch, end, whether only the head trains, and the factor on the learning rate."""

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
