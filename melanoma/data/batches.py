"""Batches of images for prediction, prefetched while the model computes."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from melanoma.data.images import ImageStore

__all__ = ["prediction_batches"]


def prediction_batches(store: ImageStore, rows: NDArray[np.integer], batch_size: int) -> tf.data.Dataset:
    """Return batches of images (float32, 0 to 255) in the order of `rows`."""

    def batches() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(rows), batch_size):
            yield store.read(rows[start : start + batch_size]).astype(np.float32)

    signature = tf.TensorSpec((None, store.size, store.size, 3), tf.float32)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(-(-len(rows) // batch_size))).prefetch(2)
