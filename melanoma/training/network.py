"""Training of a model from a data set and settings."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from melanoma.config.schema import TrainConfig
from melanoma.data.balance import class_weights, oversample
from melanoma.data.batches import prediction_batches
from melanoma.data.dataset import Dataset
from melanoma.models.build import build_network, with_probabilities
from melanoma.models.losses import training_loss
from melanoma.terminal import stage
from melanoma.training.batches import TrainingImages, augmenter, encode, training_batches
from melanoma.training.checkpoint import Checkpoints
from melanoma.training.fit import Feed, Recipe, fit
from melanoma.training.hardware import has_gpu, resolve_precision, strategy_of
from melanoma.training.normalization import with_fused_normalization
from melanoma.training.range_test import RangeTest, range_test
from melanoma.training.time_plan import epochs_within

__all__ = ["Fitted", "Parts", "epochs_in_time", "find_learning_rate", "fit_network"]

log = logging.getLogger("melanoma")


@dataclass(frozen=True)
class Fitted:
    """A trained model and its training history.

    Attributes:
        model: Model that maps pixels to probabilities, in float32, for both evaluation and saving.
        augment: Augmentation of the training images, or None.
        history: Metrics of each epoch.
        planned: Number of planned epochs, of which early stopping or the time limit may have left out the last.
        epoch: Epoch, from 0, of the kept weights.
        parameters: Number of parameters of the network, trainable or not.
        precision: Keras dtype policy of the training.
    """

    model: keras.Model
    augment: Callable[[Any], Any] | None
    history: list[dict[str, float]]
    planned: int
    epoch: int
    parameters: int
    precision: str


@dataclass(frozen=True)
class Parts:
    """The configurable parts of a training.

    Attributes:
        builder: Function that builds the network, called with `image_size` and `classes`.
        layers: Augmentation layers for training batches.
        optimizer: Function that creates the optimizer, called with `learning_rate`.
        schedule: Learning-rate schedule (see `melanoma.training.schedules`).
        initialise: Function that sets the initial weights of a new network.
    """

    builder: Callable[..., keras.Model]
    layers: Sequence[keras.layers.Layer]
    optimizer: Callable[..., keras.optimizers.Optimizer]
    schedule: Callable[..., Any]
    initialise: Callable[[keras.Model], None]


@stage("Training")
def fit_network(
    dataset: Dataset,
    settings: TrainConfig,
    parts: Parts,
    *,
    on_epoch: Callable[[int, dict[str, float]], None],
    profile: Path | None = None,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Train on the training images, and select the epoch on the validation images.

    Args:
        dataset: Data set after the split and, if configured, with augmented images.
        settings: The whole configuration.
        parts: Network, augmentation, optimizer, schedule and initial weights.
        on_epoch: Function that receives each epoch's number, from 0, and metrics.
        profile: Folder for a TensorFlow profile, or None.
        checkpoints: Checkpoints to go on from, and to write; None for none.
    """
    policy = resolve_precision(settings.training.precision)
    network, augment, feed, recipe, strategy = _prepared(dataset, settings, parts)
    log.info(
        "%s: %s parameters, %s, %d training and %d validation images",
        settings.model.name, f"{network.count_params():,}", policy, feed.rows, len(feed.validation_targets),
    )  # fmt: skip
    with strategy.scope():
        epoch, history = fit(network, feed, recipe, settings.training, on_epoch, profile, checkpoints)
    plain = build_network(
        parts.builder, image_size=settings.data.image_size, classes=len(dataset.classes), policy="float32"
    )
    plain.set_weights(network.get_weights())
    only_images = None if augment is None else lambda images: augment(images, None, None)[0]
    model = with_probabilities(plain, settings.evaluation.test_time_augmentation)
    return Fitted(model, only_images, history, settings.training.epochs, epoch, network.count_params(), policy)


@stage("Finding the learning rate")
def find_learning_rate(dataset: Dataset, settings: TrainConfig, parts: Parts) -> RangeTest:
    """Run a learning-rate range test on a new network, which is discarded. The arguments are those of `fit_network`."""
    network, _, feed, recipe, strategy = _prepared(dataset, settings, parts)
    with strategy.scope():
        return range_test(network, feed, recipe)


@stage("Timing a few batches")
def epochs_in_time(dataset: Dataset, settings: TrainConfig, parts: Parts, minutes: float) -> int:
    """Return how many epochs fit into some minutes. The other arguments are those of `fit_network`."""
    network, _, feed, recipe, strategy = _prepared(dataset, settings, parts)
    with strategy.scope():
        return epochs_within(minutes, network, feed, recipe)


class _Prepared(NamedTuple):
    """All that a training needs: a new network with its initial weights, and what it is trained with."""

    network: keras.Model
    augment: Callable[..., tuple] | None
    feed: Feed
    recipe: Recipe
    strategy: tf.distribute.Strategy


def _prepared(dataset: Dataset, settings: TrainConfig, parts: Parts) -> _Prepared:
    policy = resolve_precision(settings.training.precision)
    classes, mix = len(dataset.classes), settings.augmentation.mix
    strategy = strategy_of(settings.training.strategy)
    with strategy.scope():
        network = build_network(parts.builder, image_size=settings.data.image_size, classes=classes, policy=policy)
        parts.initialise(network)
        network = with_fused_normalization(network)
        recipe = _recipe(settings, parts, classes)
    augment = augmenter([] if settings.debug.overfit else parts.layers, mixup=mix.mixup, cutmix=mix.cutmix)
    feed = _feed(dataset, settings, augment)
    return _Prepared(network, augment, feed, recipe, strategy)


def _feed(dataset: Dataset, settings: TrainConfig, augment: Callable[..., tuple] | None) -> Feed:
    rows, targets, weights = _training_rows(dataset, settings)
    validation = dataset.part("validation")
    if settings.debug.overfit:
        rows, targets, weights, validation = _few(dataset, settings)
    classes, batch_size = len(dataset.classes), settings.training.batch_size
    steps = -(-len(rows) // batch_size)
    if settings.debug.train_batches is not None:
        steps = min(steps, settings.debug.train_batches)
    images = TrainingImages(dataset.store, rows, encode(targets, classes), weights)
    return Feed(
        batches=partial(training_batches, images, batch_size=batch_size, seed=settings.seed, augment=augment),
        steps_per_epoch=steps,
        rows=len(rows),
        images=min(steps * batch_size, len(rows)),
        validation=prediction_batches(dataset.store, validation.row.to_numpy(), settings.evaluation.batch_size),
        validation_targets=validation.target.to_numpy(),
        classes=dataset.classes,
        binary_tasks=settings.data.binary_tasks,
        primary=settings.primary_metric,
    )


def _recipe(settings: TrainConfig, parts: Parts, classes: int) -> Recipe:
    training, pretrained = settings.training, settings.model.weights not in (None, "none")
    return Recipe(
        loss=training_loss(
            classes,
            label_smoothing=training.label_smoothing,
            focal_gamma=settings.balance.gamma if settings.balance.name == "focal" else None,
        ),
        optimizer=parts.optimizer,
        learning_rate=settings.optimizer.learning_rate,
        schedule=parts.schedule,
        warmup_epochs=settings.model.warmup_epochs if pretrained else 0,
        finetune_factor=settings.model.finetune_factor,
        jit_compile=has_gpu() if training.jit_compile is None else training.jit_compile,
    )


def _training_rows(
    dataset: Dataset, settings: TrainConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the row in the store, the class and the weight in the loss of each training image."""
    train = dataset.part("train")
    rows, targets = train.row.to_numpy(), train.target.to_numpy()
    if settings.balance.name == "oversample":
        positions = oversample(targets, settings.seed)
        rows, targets = rows[positions], targets[positions]
    weights = np.ones(len(rows), np.float32)
    if settings.balance.name == "class_weight":
        weights = class_weights(targets, len(dataset.classes))[targets]
    return rows, targets, weights


def _few(dataset: Dataset, settings: TrainConfig) -> tuple:
    """Return a few training images for training and also for validation."""
    count = (settings.debug.train_batches or 1) * settings.training.batch_size
    few = dataset.part("train").sample(frac=1, random_state=settings.seed).head(count)
    return few.row.to_numpy(), few.target.to_numpy(), np.ones(len(few), np.float32), few
