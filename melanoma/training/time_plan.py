"""Number of epochs that fit into a time limit, from the measured time of a few batches."""

import time

import keras
import numpy as np

from melanoma.training.callbacks import BatchEnds
from melanoma.training.fit import Feed, Recipe

__all__ = ["epochs_within"]

_STEPS = 12  # training batches that are timed
_MARGIN = 0.95  # share of the limit that is planned


def epochs_within(minutes: float, network: keras.Model, feed: Feed, recipe: Recipe) -> int:
    """Return how many epochs of training and validation fit into some minutes, at least 1.

    The network is trained for a few batches, so that its weights are of no use afterwards.
    """
    network.compile(recipe.optimizer(learning_rate=1e-6), recipe.loss, jit_compile=recipe.jit_compile)
    ends, started = BatchEnds(), time.perf_counter()
    network.fit(feed.batches(), steps_per_epoch=_STEPS, callbacks=[ends], shuffle=False, verbose=0)
    compiling = ends.times[0] - started
    network.predict(feed.validation, steps=1, verbose=0)  # compiles too
    batches = max(int(feed.validation.cardinality()), 1)
    timed, started = min(batches, _STEPS), time.perf_counter()
    network.predict(feed.validation, steps=timed, verbose=0)
    validation = (time.perf_counter() - started) * batches / timed
    training = float(np.median(np.diff(ends.times))) * feed.steps_per_epoch
    return max(int((minutes * 60 * _MARGIN - compiling) / (training + validation)), 1)
