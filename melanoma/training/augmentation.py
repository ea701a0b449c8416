"""Augmentation of training batches, as Keras layers.

Layers map float32 images of shape (n, height, width, 3), 0 to 255, to images of the same shape and range. A layer with
`takes_uint8 = True` may also receive uint8 images, which need a quarter of the memory bandwidth. The input pipeline
applies the layers, so they are never part of a saved model. To add a layer, write a Keras layer and set it as
`_target_` in a YAML file of `conf/augmentation`. All image augmentation layers of keras.layers work too.
"""

import math
from functools import partial
from typing import Any

import cv2
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

__all__ = ["RandomAffine", "RandomBlur", "RandomColor", "RandomCutout", "mix_pairs"]


_BORDERS = {
    "nearest": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT,
    "wrap": cv2.BORDER_WRAP,
    "constant": cv2.BORDER_CONSTANT,
}


class _Seeded(keras.layers.Layer):
    """Base class of layers with their own random generator, seeded by `seed` or else by the global seed."""

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(dtype="float32", **kwargs)
        self.generator = keras.random.SeedGenerator(seed)

    def _uniform(self, shape: Any, low: float, high: float) -> tf.Tensor:
        return keras.random.uniform(shape, low, high, seed=self.generator)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape


class RandomAffine(_Seeded):
    """Random flip, rotation, shift, shear and zoom in one resampling, which is faster and sharper than several.

    Args:
        horizontal_flip: Whether to flip left and right with probability 0.5.
        vertical_flip: Whether to flip top and bottom with probability 0.5.
        rotation: Maximum rotation in degrees, in both directions.
        shift: Maximum shift as a fraction of the side, in both directions and independent for each axis.
        shear: Maximum shear in degrees, in both directions.
        zoom: Range of the scale factor, 1 - zoom to 1 + zoom, independent for each axis.
        fill_mode: Filling of pixels outside the image: `nearest`, `reflect`, `wrap` or `constant` (black).
        seed: Seed of this layer; None derives it from the global seed.
    """

    takes_uint8 = True

    def __init__(  # noqa: PLR0913 - keys of a configuration
        self,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rotation: float = 0.0,
        shift: float = 0.0,
        shear: float = 0.0,
        zoom: float = 0.0,
        fill_mode: str = "reflect",
        seed: int | None = None,
    ):
        super().__init__(seed)
        _within(0, math.inf, rotation=rotation, shift=shift, shear=shear)
        if fill_mode not in _BORDERS:
            raise ValueError(f"fill_mode must be nearest, reflect, wrap or constant. Received: fill_mode={fill_mode}")
        if not 0 <= zoom < 1:
            raise ValueError(f"zoom must be from 0 to below 1. Received: zoom={zoom}")
        self.flips = (horizontal_flip, vertical_flip)
        self.rotation, self.shear = math.radians(rotation), math.radians(shear)
        self.shift, self.zoom, self.border = shift, zoom, _BORDERS[fill_mode]

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Transform each image at random; shape and range are unchanged."""
        shape = tf.shape(images)
        n = shape[0]
        height, width = tf.cast(shape[1], tf.float32), tf.cast(shape[2], tf.float32)
        angle = self._uniform((n,), -self.rotation, self.rotation)
        shear = self._uniform((n,), -self.shear, self.shear)
        scale_x, scale_y = (self._uniform((n,), 1 - self.zoom, 1 + self.zoom) for _ in range(2))
        scale_x *= self._sign(n, self.flips[0])
        scale_y *= self._sign(n, self.flips[1])
        shift_x = self._uniform((n,), -self.shift, self.shift) * width
        shift_y = self._uniform((n,), -self.shift, self.shift) * height
        # Maps output to input coordinates about the centre: rotation @ shear @ scale, then the shift.
        a, b = tf.cos(angle) * scale_x, -tf.sin(angle + shear) * scale_y
        d, e = tf.sin(angle) * scale_x, tf.cos(angle + shear) * scale_y
        centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
        c = centre_x + shift_x - a * centre_x - b * centre_y
        f = centre_y + shift_y - d * centre_x - e * centre_y
        matrices = tf.stack([tf.stack([a, b, c], axis=1), tf.stack([d, e, f], axis=1)], axis=1)
        moved = tf.numpy_function(partial(_warp, border=self.border), [images, matrices], images.dtype, stateful=False)
        return tf.ensure_shape(moved, images.shape)

    def _sign(self, n: tf.Tensor, flip: bool) -> tf.Tensor:
        return tf.sign(self._uniform((n,), -1.0, 1.0) + 1e-12) if flip else tf.ones((n,))


class RandomColor(_Seeded):
    """Random brightness, contrast, saturation and hue as one affine map of the RGB values of each image.

    Args:
        brightness: Maximum change as a fraction of the full range, in both directions.
        contrast: Range of the factor about mid-grey, 1 - contrast to 1 + contrast.
        saturation: Range of the factor, 1 - saturation to 1 + saturation.
        hue: Maximum rotation about the grey axis in turns, in both directions.
        seed: Seed of this layer; None derives it from the global seed.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        seed: int | None = None,
    ):
        super().__init__(seed)
        _within(0, 1, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Change the colours of each image at random; shape and range are unchanged."""
        n = tf.shape(images)[0]
        angle = self._uniform((n, 1, 1), -self.hue, self.hue) * 2 * math.pi
        saturation = self._uniform((n, 1, 1), 1 - self.saturation, 1 + self.saturation)
        contrast = self._uniform((n, 1, 1), 1 - self.contrast, 1 + self.contrast)
        offset = self._uniform((n, 1, 1), -self.brightness, self.brightness) * 255
        grey = tf.fill((3, 3), 1 / 3)
        cross = tf.constant([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
        # Rodrigues' rotation about the grey axis; the saturation scales the component orthogonal to that axis.
        turn = tf.cos(angle) * (tf.eye(3) - grey) + tf.sin(angle) * cross
        matrix = contrast * (grey + saturation * turn)
        pixels = tf.reshape(images, (n, -1, 3))
        pixels = tf.matmul(pixels, matrix, transpose_b=True) + 127.5 * (1 - contrast) + offset
        return tf.clip_by_value(tf.reshape(pixels, tf.shape(images)), 0, 255)


class RandomBlur(_Seeded):
    """Random binomial 5x5 blur of a random strength.

    Args:
        probability: Probability that an image is blurred.
        seed: Seed of this layer; None derives it from the global seed.
    """

    def __init__(self, probability: float = 0.2, seed: int | None = None):
        super().__init__(seed)
        _within(0, 1, probability=probability)
        self.probability = probability

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Blur images at random; shape and range are unchanged."""
        n = tf.shape(images)[0]
        chosen = tf.where(self._uniform((n,), 0.0, 1.0) < self.probability)
        amount = self._uniform((n, 1, 1, 1), 0.3, 1.0)
        # TensorFlow cannot pad an empty batch.
        return tf.cond(tf.size(chosen) > 0, lambda: self._blurred(images, chosen, amount), lambda: images)

    def _blurred(self, images: tf.Tensor, chosen: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
        row = tf.constant([1.0, 4, 6, 4, 1]) / 16
        kernel = tf.tile(row[:, None, None, None], (1, 1, 3, 1))
        picked = tf.gather_nd(images, chosen)
        padded = tf.pad(picked, ((0, 0), (2, 2), (2, 2), (0, 0)), "REFLECT")
        blurred = tf.nn.depthwise_conv2d(padded, kernel, (1, 1, 1, 1), "VALID")
        blurred = tf.nn.depthwise_conv2d(blurred, tf.transpose(kernel, (1, 0, 2, 3)), (1, 1, 1, 1), "VALID")
        mixed = picked + tf.gather_nd(amount, chosen) * (blurred - picked)
        return tf.tensor_scatter_nd_update(images, chosen, mixed)


class RandomCutout(_Seeded):
    """Random cutout: cover a square of the image with grey (DeVries & Taylor 2017, arXiv:1708.04552).

    Args:
        probability: Probability that an image is changed.
        size: Side of the square as a fraction of the side of the image.
        seed: Seed of this layer; None derives it from the global seed.
    """

    def __init__(self, probability: float = 0.5, size: float = 0.25, seed: int | None = None):
        super().__init__(seed)
        _within(0, 1, probability=probability, size=size)
        self.probability, self.size = probability, size

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Cover a square of images at random; shape and range are unchanged."""
        shape = tf.shape(images)
        n = shape[0]
        inside = _boxes(self.generator, n, shape[1], shape[2], tf.fill((n,), self.size))
        chosen = self._uniform((n, 1, 1, 1), 0.0, 1.0) < self.probability
        return tf.where(inside & chosen, 127.5, images)


def _warp(images: NDArray, matrices: NDArray[np.float32], border: int) -> NDArray:
    """Resample each image bilinearly; `matrices` of shape (n, 2, 3) map output to input coordinates.

    OpenCV takes a sixth of the time of TensorFlow's ImageProjectiveTransformV3, and lets other threads run.
    """
    out = np.empty_like(images)
    size = images.shape[2], images.shape[1]
    for source, target, matrix in zip(images, out, matrices, strict=True):
        cv2.warpAffine(
            source, matrix, size, dst=target, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border
        )
    return out


def mix_pairs(
    images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, *, mixup: float, cutmix: float, generator: Any
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mix each image, its label and its weight with those of another image of the batch, by mixup or CutMix.

    Args:
        images: Images of shape (n, height, width, 3).
        labels: Labels of shape (n, outputs), one-hot or a single 0/1 column.
        weights: Weights of shape (n,).
        mixup: Alpha of the Beta distribution of mixup (Zhang et al. 2018, arXiv:1710.09412); 0 for off.
        cutmix: Alpha of the Beta distribution of CutMix (Yun et al. 2019, arXiv:1905.04899); 0 for off.
        generator: A keras.random.SeedGenerator.
    """
    n = tf.shape(images)[0]
    alpha = mixup or cutmix
    share = keras.random.beta((n,), alpha, alpha, seed=generator)
    order = tf.argsort(keras.random.uniform((n,), seed=generator))
    others = tf.gather(images, order)
    if mixup:
        weight = share[:, None, None, None]
        mixed = weight * images + (1 - weight) * others
    else:
        inside = _boxes(generator, n, tf.shape(images)[1], tf.shape(images)[2], tf.sqrt(1 - share))
        mixed = tf.where(inside, others, images)
        share = 1 - tf.reduce_mean(tf.cast(inside, tf.float32), axis=(1, 2, 3))
    keep = share[:, None]
    labels = keep * labels + (1 - keep) * tf.gather(labels, order)
    weights = share * weights + (1 - share) * tf.gather(weights, order)
    return mixed, labels, weights


def _within(low: float, high: float, **arguments: float) -> None:
    for name, value in arguments.items():
        if not low <= value <= high:
            raise ValueError(f"{name} must be from {low} to {high}. Received: {name}={value}")


def _boxes(generator: Any, n: tf.Tensor, height: tf.Tensor, width: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """Return masks of shape (n, height, width, 1) of randomly centred boxes.

    `side` of shape (n,) is a fraction of the side of the image.
    """
    y = tf.linspace(0.0, 1.0, height)[None, :] - keras.random.uniform((n, 1), seed=generator)
    x = tf.linspace(0.0, 1.0, width)[None, :] - keras.random.uniform((n, 1), seed=generator)
    rows, columns = tf.abs(y) < side[:, None] / 2, tf.abs(x) < side[:, None] / 2
    return (rows[:, :, None] & columns[:, None, :])[..., None]
