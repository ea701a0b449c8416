"""Does the augmentation of this folder equal that of training? `python -m benchmarks.accelerator.check` (CPU).

Resampling with the same coefficients, both forms with the same seed, and over many draws, the mean and the standard
deviation of each pixel; and the optimizer that is written out in the export.
"""

import argparse
import json
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import cv2
import keras
import numpy as np
import tensorflow as tf

from benchmarks.accelerator.augmentation import FORMS, LAYERS, coefficients, draw, resample
from benchmarks.accelerator.export import DECAY, RATE, SIDE, adamw
from melanoma.training import augmentation
from melanoma.training.optimizers import AdamW

COPIES = 64  # of an image in a batch of draws
Augment = Callable[[tf.Tensor, int], tf.Tensor]


def smooth(rng: np.random.Generator, n: int) -> np.ndarray:
    """Images like photographs: soft shapes with a little noise."""
    shapes = rng.uniform(0, 255, (n, 16, 16, 3)).astype(np.float32)
    large = np.stack([cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for one in shapes])
    return np.clip(large + rng.normal(0, 2, large.shape), 0, 255).astype(np.uint8)


def difference(found: Any, wanted: Any) -> dict[str, float]:
    """The largest difference and the mean one."""
    apart = np.abs(np.asarray(found, np.float64) - np.asarray(wanted))
    return {"largest": float(apart.max()), "mean": float(apart.mean())}


def resampling(images: np.ndarray) -> dict[str, float]:
    """Against OpenCV, which rounds to whole grey levels."""
    transform = coefficients(draw(len(images), tf.constant([1, 2])), SIDE)
    matrices = np.stack(transform, axis=1).reshape(-1, 2, 3)
    return difference(
        resample(tf.constant(images), transform), augmentation._warp(images, matrices, cv2.BORDER_REFLECT)
    )


def optimizer() -> dict[str, float]:
    """The written-out AdamW against the project's, over 20 steps."""
    rng = np.random.default_rng(0)
    variable = keras.Variable(rng.normal(size=50).astype(np.float32))
    wanted = AdamW(RATE, weight_decay=DECAY)
    wanted.build([variable])
    weights = [tf.constant(variable.numpy())]
    moments = [tf.constant(0, tf.int64), tf.zeros(50), tf.zeros(50)]
    for _ in range(20):
        gradient = tf.constant(rng.normal(size=50).astype(np.float32))
        wanted.apply([gradient], [variable])
        weights, moments = adamw(weights, [gradient], moments)
    return difference(weights[0], variable.numpy())


def trained_with() -> Augment:
    """The layers of training, one after the other."""
    layers = [getattr(augmentation, name)(**LAYERS[name], seed=seed) for seed, name in enumerate(LAYERS, 1)]

    def augment(images: tf.Tensor, _: int) -> tf.Tensor:
        for layer in layers:
            images = layer(images if getattr(layer, "takes_uint8", False) else tf.cast(images, tf.float32))
        return images

    return augment


def seeded(form: Callable, start: int) -> Augment:
    """A form of the augmentation with one seed for each batch of draws."""
    return lambda images, batch: form(images, tf.constant([start, batch]))


def moments_of(augment: Augment, images: np.ndarray, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each pixel over the draws."""
    means, deviations = [], []
    for image in images:
        copies = tf.constant(np.repeat(image[None], COPIES, axis=0))
        total = np.zeros(image.shape)
        squares = np.zeros(image.shape)
        for batch in range(draws // COPIES):
            changed = augment(copies, batch).numpy().astype(np.float64)
            total += changed.sum(axis=0)
            squares += (changed**2).sum(axis=0)
        means.append(total / draws)
        deviations.append(np.sqrt(squares / draws - means[-1] ** 2))
    return np.stack(means), np.stack(deviations)


def distributions(forms: dict[str, Callable], images: np.ndarray, draws: int) -> dict[str, dict[str, float]]:
    """Root mean square of z of the means, and ratio of the standard deviations, against the layers of training.

    The layers of training are drawn a second time, too: what chance alone makes of both numbers.
    """
    layers = trained_with()
    mean, deviation = moments_of(layers, images, draws)
    ways: dict[str, Augment] = {"layers of training, again": layers}
    for start, (name, form) in enumerate(forms.items(), 11):
        ways[name] = seeded(form, start)
    found = {}
    for name, way in ways.items():
        other_mean, other_deviation = moments_of(way, images, draws)
        z = (other_mean - mean) / np.sqrt((deviation**2 + other_deviation**2) / draws)
        ratio = other_deviation / deviation
        found[name] = {
            "rms z of means": float(np.sqrt((z**2).mean())),
            "ratio of deviations": float(ratio.mean()),
            "smallest ratio": float(ratio.min()),
            "largest ratio": float(ratio.max()),
        }
    return found


def main() -> None:
    """Print what was found as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=4096, help=f"of each image, a multiple of {COPIES}")
    draws = parser.parse_args().draws
    rng = np.random.default_rng(0)
    images, noise = smooth(rng, COPIES), rng.integers(0, 256, (COPIES, SIDE, SIDE, 3), np.uint8)
    forms = {name: tf.function(form, jit_compile=True) for name, form in FORMS.items()}
    both = [form(tf.constant(images), tf.constant([5, 6])) for form in forms.values()]
    results = {
        "opencv": cv2.__version__,
        "resampling, smooth images": resampling(images),
        "resampling, white noise": resampling(noise),
        "fast against line_by_line, same seed": difference(*both),
        "optimizer": optimizer(),
        "draws": draws,
        "distributions": distributions(forms, images[:3], draws),
    }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
