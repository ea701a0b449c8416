"""Visual explanations of predictions."""

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from melanoma.models.features import HEAD, network_of

__all__ = ["grad_cam"]


def grad_cam(model: keras.Model, images: NDArray, classes: NDArray[np.integer]) -> NDArray[np.float32] | None:
    """Compute Grad-CAM (Selvaraju et al. 2017) at the last feature maps before the head.

    The heat map shows the regions that raised the logit of a class, at the coarse resolution of the feature maps. It
    does not show that the network uses the structures that a reader sees there.

    Args:
        model: Saved model, from pixels to probabilities.
        images: Images, shape (n, size, size, 3), 0 to 255.
        classes: Index of the class to explain, for each image.

    Returns:
        Heat maps from 0 to 1, with the height and width of the feature maps, shape (n, height, width); None for a
        network without feature maps, or with a head that does not depend on these alone.
    """
    model = network_of(model)
    names = [layer.name for layer in model.layers]
    if HEAD not in names:  # a network that this project did not build
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
        if logits.shape[-1] == 1:  # the logit of the second of two classes
            explained = tf.where(tf.constant(classes == 1), logits[:, 0], -logits[:, 0])
        else:
            explained = tf.gather(logits, classes, axis=1, batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(explained, features), axis=(1, 2), keepdims=True)
    heat = np.asarray(tf.nn.relu(tf.reduce_sum(weights * features, axis=-1)), np.float32)
    highest = heat.max(axis=(1, 2), keepdims=True)
    return np.divide(heat, highest, out=np.zeros_like(heat), where=highest > 0)
