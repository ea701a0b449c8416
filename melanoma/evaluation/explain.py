"""Where in an image a network found its class."""

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from melanoma.models.build import HEAD, network_of

__all__ = ["grad_cam"]


def grad_cam(model: keras.Model, images: NDArray, classes: NDArray[np.integer]) -> NDArray[np.float32] | None:
    """Grad-CAM (Selvaraju et al. 2017) at the last feature maps before the head.

    It shows what raised the logit of a class, at the coarse grid of those maps. It does not show that the network saw
    what a reader sees there.

    Args:
        model: a saved model, from pixels to probabilities.
        images: shape (n, size, size, 3), 0 to 255.
        classes: index of the class that is asked about, for each image.

    Returns:
        Heat from 0 to 1, shape (n, height, width) of the feature maps; None for a network that has none, or whose head
        does not hang on them alone.
    """
    model = network_of(model)
    names = [layer.name for layer in model.layers]
    if HEAD not in names:  # a network from elsewhere
        return None
    maps = [layer for layer in model.layers[1 : names.index(HEAD)] if len(getattr(layer.output, "shape", ())) == 4]
    if len(maps) == 0:
        return None
    try:
        before = keras.Model(model.input, maps[-1].output)
        after = keras.Model(maps[-1].output, model.get_layer(HEAD).output)
    except ValueError:
        return None
    features = tf.convert_to_tensor(before(images.astype(np.float32), training=False))
    with tf.GradientTape() as tape:
        tape.watch(features)
        logits = after(features, training=False)
        if logits.shape[-1] == 1:  # of the second of two classes
            asked = tf.where(tf.constant(classes == 1), logits[:, 0], -logits[:, 0])
        else:
            asked = tf.gather(logits, classes, axis=1, batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(asked, features), axis=(1, 2), keepdims=True)
    heat = np.asarray(tf.nn.relu(tf.reduce_sum(weights * features, axis=-1)), np.float32)
    highest = heat.max(axis=(1, 2), keepdims=True)
    return np.divide(heat, highest, out=np.zeros_like(heat), where=highest > 0)
