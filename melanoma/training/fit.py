"""Fitting a network: phases, loss, optimizer, and the weights that are kept."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from melanoma.models.build import HEAD
from melanoma.training.callbacks import Keep, Profile, Report, StopOnNaN, Validate

__all__ = ["FitSettings", "fit", "mode_of"]


@dataclass(frozen=True)
class FitSettings:
    """How long and how to train; see `conf/training/default.yaml`.

    Attributes:
        warmup_epochs: epochs in which only the head trains.
        finetune_factor: of the learning rate, once all of a warmed-up network trains.
    """

    epochs: int
    steps_per_epoch: int
    monitor: str
    restore_best: bool
    patience: int | None = None
    min_delta: float = 0.0
    ema: float | None = None
    jit_compile: bool = False
    warmup_epochs: int = 0
    finetune_factor: float = 1.0


def fit(
    network: keras.Model,
    batches: tf.data.Dataset,
    validation: tf.data.Dataset,
    validation_targets: NDArray[np.integer],
    *,
    classes: int,
    images: int,
    loss: keras.losses.Loss,
    optimizer: Callable[..., keras.optimizers.Optimizer],
    learning_rate: float,
    schedule: Callable[..., tuple[Any, list[keras.callbacks.Callback]]],
    settings: FitSettings,
    on_epoch: Callable[[int, dict[str, float]], None],
    profile: Path | None = None,
) -> int:
    """Train a network in place and leave it with the weights to keep.

    Args:
        network: from pixels to logits.
        batches: endless training batches, see `training_batches`.
        validation: see `prediction_batches`.
        validation_targets: class index of each validation image.
        classes: number of classes.
        images: training images an epoch.
        loss: on logits.
        optimizer: called with `learning_rate` and, for an average of weights, `use_ema` and `ema_momentum`.
        learning_rate: at its highest.
        schedule: see `melanoma.training.schedules`.
        settings: see `FitSettings`.
        on_epoch: receives each epoch's number, from 0, and metrics.
        profile: folder for a TensorFlow profile, or None.

    Returns:
        The epoch, from 0, whose weights the network has.

    Raises:
        TrainingError: the loss became NaN.
    """
    report = Report(settings.epochs, settings.steps_per_epoch, on_epoch)
    mode = mode_of(settings.monitor)
    keep = Keep(settings.monitor, mode, settings.restore_best)
    trainable = [(layer, layer.trainable) for layer in network._flatten_layers()]
    try:
        for first, last, frozen, factor in _phases(settings):
            _restore(trainable)
            for layer in network.layers:
                if frozen and layer.name != HEAD:
                    layer.trainable = False
            rate, extra = schedule(
                learning_rate=learning_rate * factor,
                epochs=last - first,
                steps_per_epoch=settings.steps_per_epoch,
                monitor=settings.monitor,
                mode=mode,
            )
            ema = {} if settings.ema is None else {"use_ema": True, "ema_momentum": settings.ema}
            accuracy = (
                keras.metrics.MeanMetricWrapper(_binary_hits, "accuracy")
                if classes == 2
                else keras.metrics.CategoricalAccuracy("accuracy")
            )
            network.compile(
                optimizer(learning_rate=rate, **ema), loss, metrics=[accuracy], jit_compile=settings.jit_compile
            )
            stopping = keras.callbacks.EarlyStopping(
                monitor=settings.monitor,
                mode=mode,
                min_delta=settings.min_delta,
                patience=settings.patience if settings.patience is not None else settings.epochs,
            )
            callbacks = [
                *([keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if ema else []),
                Validate(validation, validation_targets, classes, images),
                StopOnNaN(),
                *extra,
                keep,
                *([] if frozen else [stopping]),  # the warm-up is short, and runs to its end
                report,
                *([Profile(profile)] if profile is not None else []),
            ]
            network.fit(
                batches,
                initial_epoch=first,
                epochs=last,
                steps_per_epoch=settings.steps_per_epoch,
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )
            network.set_weights(keep.weights)
    finally:
        report.close()
        _restore(trainable)
    return keep.epoch


def mode_of(monitor: str) -> str:
    """Whether a metric is better when smaller (`min`) or larger (`max`)."""
    return "min" if monitor.endswith("loss") else "max"


def _restore(trainable: list[tuple[keras.layers.Layer, bool]]) -> None:
    """Set layers as they were: a network before the layers in it, which it would change otherwise."""
    for layer, value in trainable:
        layer.trainable = value


def _binary_hits(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Whether each logit is on the side of its label; mixed pairs count as the class they have more of."""
    return keras.ops.cast(keras.ops.equal(labels > 0.5, logits > 0), "float32")


def _phases(settings: FitSettings) -> list[tuple[int, int, bool, float]]:
    """First epoch, end, whether only the head trains, and the factor on the learning rate."""
    if not settings.warmup_epochs:
        return [(0, settings.epochs, False, 1.0)]
    warmup = min(settings.warmup_epochs, settings.epochs)
    phases = [(0, warmup, True, 1.0)]
    if warmup < settings.epochs:
        phases.append((warmup, settings.epochs, False, settings.finetune_factor))
    return phases
