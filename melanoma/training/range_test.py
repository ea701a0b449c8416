"""Learning-rate range test: the loss of a new network over a few batches, while the learning rate rises.

Source: Smith 2017, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186.
"""

from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from melanoma.errors import TrainingError
from melanoma.training.callbacks import Ramp
from melanoma.training.fit import Feed, Recipe, head_only

__all__ = ["RangeTest", "choose", "range_test"]

_LOWEST, _HIGHEST, _STEPS = 1e-6, 10.0, 120
_DIVERGED = 3.0  # multiple of the lowest loss at which the test stops
_SMOOTHING = 6.0  # steps, the standard deviation of the Gaussian
_BEGINNING = 30  # steps, up to a learning rate of 5e-5
_FALL = 0.9  # share of the fall of the loss
_CLEAR = 3.0  # least fall of the loss, in standard deviations of the loss of single batches


@dataclass(frozen=True)
class RangeTest:
    """Result of a range test.

    Attributes:
        rates: Learning rate of each step, shape `(steps,)`.
        losses: Loss of each step's batch, smoothed, shape `(steps,)`.
        chosen: The chosen learning rate; None if the loss did not fall clearly.
    """

    rates: NDArray[np.floating]
    losses: NDArray[np.floating]
    chosen: float | None


def range_test(network: keras.Model, feed: Feed, recipe: Recipe) -> RangeTest:
    """Train a network on one batch for each of up to 120 learning rates, from 1e-6 to 10, and choose one.

    The test ends once the loss is no longer finite or has grown to 3 times its lowest value. The network's weights are
    of no use afterwards. If the training begins with an epoch in which only the head is trained, so does the test.

    Raises:
        TrainingError: If the loss is not finite from the beginning.
    """
    rates = np.geomspace(_LOWEST, _HIGHEST, _STEPS)
    ramp = Ramp(rates, _DIVERGED)
    with head_only(network, recipe.warmup_epochs > 0):
        network.compile(recipe.optimizer(learning_rate=_LOWEST), recipe.loss, jit_compile=recipe.jit_compile)
        network.fit(feed.batches(), steps_per_epoch=_STEPS, callbacks=[ramp], shuffle=False, verbose=0)
    if len(ramp.losses) < 2:
        raise TrainingError(
            "No learning rate was found: the loss is not a finite number at the lowest of them. Check the model, or "
            f"try training.precision=float32. Received: a learning rate of {_LOWEST:g}"
        )
    rates, losses = rates[: len(ramp.losses)], np.asarray(ramp.losses)
    return RangeTest(rates, _smoothed(losses), choose(rates, losses))


def choose(rates: NDArray[np.floating], losses: NDArray[np.floating]) -> float | None:
    """Return the learning rate at which nine tenths of the fall of the loss are reached.

    It is close to the best of a grid of learning rates, and the steepest point and a tenth of the lowest point are two
    to seven times lower (`benchmarks/learning_rate.py`).

    Args:
        rates: Learning rates, rising, shape `(steps,)`.
        losses: Loss of each batch, shape `(steps,)`.

    Returns:
        The learning rate; None if the loss falls by less than 3 times the noise of single batches.
    """
    smooth = _smoothed(losses)
    lowest, beginning = int(np.argmin(smooth)), slice(0, _BEGINNING)
    start, noise = float(np.median(smooth[beginning])), float(np.std((losses - smooth)[beginning]))
    fall = start - float(smooth[lowest])
    if fall <= _CLEAR * noise:
        return None
    above = np.flatnonzero(smooth[: lowest + 1] > start - _FALL * fall)
    return float(f"{rates[above[-1]]:.2g}")


def _smoothed(losses: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(gaussian_filter1d(losses, _SMOOTHING))
