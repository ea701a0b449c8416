"""The training input pipeline: shuffled, augmented and prefetched batches of pixels, labels and weights."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from melanoma.data.batches import without_autotuning
from melanoma.data.images import ImageStore
from melanoma.training.augmentation import mix_pairs

__all__ = ["TrainingImages", "augmenter", "encode", "training_batches"]

_DRAWS = 1024  # random draws that each generator has for one batch


def encode(targets: NDArray[np.integer], classes: int) -> NDArray[np.float32]:
    """Encode labels in the layout of the network's outputs: one 0/1 column for two classes, otherwise one-hot."""
    if classes == 2:
        return targets.astype(np.float32)[:, None]
    return np.eye(classes, dtype=np.float32)[targets]


def augmenter(
    layers: Sequence[keras.layers.Layer], *, mixup: float = 0.0, cutmix: float = 0.0
) -> Callable[..., tuple] | None:
    """Return one function for the whole augmentation of a training batch, or None if there is none.

    The function takes and returns images of shape (n, size, size, 3), 0 to 255, uint8 or float32, with labels and
    weights. If the labels are None, it changes only the images and mixes no pairs. What it draws depends on the seeds
    of the layers and the number of the batch only, so that a training that is resumed sees the same images.
    """
    if not layers and not mixup and not cutmix:
        return None
    trained = [(layer, "training" in inspect.signature(layer.call).parameters) for layer in layers]
    generator = keras.random.SeedGenerator()
    states = [one for layer in layers for one in layer.variables if one.name == generator.state.name] + [
        generator.state
    ]
    beginnings = [keras.ops.convert_to_numpy(state).astype(np.int64) for state in states]

    def change(images: tf.Tensor, labels: tf.Tensor | None, weights: tf.Tensor | None, number: Any = 0) -> tuple:
        for state, (seed, counter) in zip(states, beginnings, strict=True):
            counter = (counter + tf.cast(number, tf.int64) * _DRAWS) % 2**32
            state.assign(tf.cast(tf.stack([tf.constant(seed, tf.int64), counter]), state.dtype))
        for layer, knows_training in trained:
            if not getattr(layer, "takes_uint8", False):
                images = tf.cast(images, tf.float32)
            images = layer(images, training=True) if knows_training else layer(images)
        if labels is not None and (mixup or cutmix):
            images = tf.cast(images, tf.float32)
            images, labels, weights = mix_pairs(
                images, labels, weights, mixup=mixup, cutmix=cutmix, generator=generator
            )
        return images, labels, weights

    return change


@dataclass(frozen=True)
class TrainingImages:
    """The training images.

    Attributes:
        store: Store of decoded images.
        rows: Row in the store of each training image, shape (n,).
        labels: Labels, shape (n, outputs); see `encode`.
        weights: Weight of each image in the loss, shape (n,).
    """

    store: ImageStore
    rows: NDArray[np.integer]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]


def training_batches(
    images: TrainingImages, *, batch_size: int, seed: int, augment: Callable[..., tuple] | None = None, first: int = 0
) -> tf.data.Dataset:
    """Return endless shuffled batches; each pass over the images is one epoch of ceil(n / batch_size) batches.

    Args:
        images: Training images.
        batch_size: Images per batch; the last batch of an epoch may be smaller.
        seed: Seed of the random order.
        augment: Augmentation function (see `augmenter`).
        first: Number of batches to leave out at the beginning.
    """
    store, rows, labels, weights = images.store, images.rows, images.labels, images.weights

    def batches() -> Iterator[tuple]:
        rng = np.random.default_rng(seed)
        per_pass = -(-len(rows) // batch_size)
        for _ in range(first // per_pass):
            rng.permutation(len(rows))
        number, start = first, first % per_pass * batch_size
        while True:
            order = rng.permutation(len(rows))
            for place in range(start, len(order), batch_size):
                batch = order[place : place + batch_size]
                yield store.read(rows[batch]), labels[batch], weights[batch], number
                number += 1
            start = 0

    def change(pixels: tf.Tensor, y: tf.Tensor, w: tf.Tensor, number: tf.Tensor) -> tuple:
        if augment is not None:
            pixels, y, w = augment(pixels, y, w, number)
        return tf.ensure_shape(pixels, (None, store.size, store.size, 3)), y, w

    dataset = tf.data.Dataset.from_generator(
        batches,
        output_signature=(
            tf.TensorSpec((None, store.size, store.size, 3), tf.uint8),
            tf.TensorSpec((None, labels.shape[1]), tf.float32),
            tf.TensorSpec((None,), tf.float32),
            tf.TensorSpec((), tf.int64),
        ),
    )
    # No parallel calls: the layers' generators must advance in order, and their operations already use all cores.
    return without_autotuning(dataset.prefetch(2).map(change).prefetch(2))
