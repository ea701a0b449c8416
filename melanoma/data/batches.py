"""Batches of images for prediction, prefetched while the model computes."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from melanoma.data.images import ImageStore

__all__ = ["prediction_batches", "without_autotuning"]


def prediction_batches(store: ImageStore, rows: NDArray[np.integer], batch_size: int) -> tf.data.Dataset:
    """Return batches of images (float32, 0 to 255) in the order of `rows`."""

    def batches() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(rows), batch_size):
            yield store.read(rows[start : start + batch_size]).astype(np.float32)

    signature = tf.TensorSpec((None, store.size, store.size, 3), tf.float32)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(-(-len(rows) // batch_size)))
    return without_autotuning(dataset.prefetch(2))


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Turn off the autotuning of a pipeline whose buffers have fixed sizes.

    It has nothing to tune there, and the end of an iterator waits for its thread, which sleeps for about as long as the
    iterator has lived, up to a minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
