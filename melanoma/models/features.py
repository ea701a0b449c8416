"""Features of an image inside a network, for the out-of-distribution score.

Every packaged model contains a copy of this file, so it must not import other modules of this project.
"""

from itertools import takewhile

import keras
from keras import layers, ops

__all__ = ["AVERAGED", "HEAD", "network_of", "with_features"]

HEAD = "head"
AVERAGED = "averaged"
_SIDE = 16  # larger feature maps are thinned to about this side: moments need no more


def network_of(model: keras.Model) -> keras.Model:
    """Return the network inside a model that averages over views of the image, or the model itself."""
    return next((layer for layer in model.layers if layer.name == AVERAGED), model)


def with_features(model: keras.Model) -> keras.Model | None:
    """Return a model that gives the probabilities and, for each resolution, the features of the image.

    The features are the mean and the standard deviation of each channel of the last feature maps of a resolution. Low
    resolutions tell what the picture shows, high ones its colours and texture.

    Args:
        model: Saved model, from pixels to probabilities of shape (n, classes).

    Returns:
        A model from pixels to a list: the probabilities, and features of shape (n, 2 * channels) for each resolution;
        None for a network without feature maps, or whose layers are no graph of their own.
    """
    network = network_of(model)
    try:
        maps = _last_maps(network)
        # Named, because the automatic names of a loaded model's layers are given again.
        features = [_Moments(name=f"melanoma_moments_{number}")(one) for number, one in enumerate(maps)]
        if network is not model:
            features = keras.Model(network.input, features)(model.input)  # of the image itself, not of its views
        return keras.Model(model.input, [model.output, *features]) if maps else None
    except (AttributeError, TypeError, ValueError):  # a subclass of Model, or layers that are called a second time
        return None


def _last_maps(network: keras.Model) -> list[keras.KerasTensor]:
    """Return the last feature maps of each resolution before the head.

    The plain output of a convolution is none: as another output it would keep TensorFlow from fusing the convolution
    with what follows.
    """
    before = [*takewhile(lambda layer: layer.name != HEAD, network.layers)]
    plain = {id(layer.output) for layer in before if isinstance(layer, layers.Conv2D) and _is_linear(layer)}
    found: dict[tuple, keras.KerasTensor] = {}
    for layer in before:
        if isinstance(layer, layers.InputLayer | keras.Model):  # the input of a network is that inside it
            continue
        for tensor in keras.tree.flatten(layer.input):
            if len(tensor.shape) == 4 and id(tensor) not in plain and tensor is not network.input:
                found.pop(tensor.shape[1:3], None)
                found[tensor.shape[1:3]] = tensor
    return list(found.values())


def _is_linear(layer: layers.Conv2D) -> bool:
    return layer.activation is None or layer.activation is keras.activations.linear


class _Moments(layers.Layer):
    """Mean and standard deviation of each channel, shape (n, 2 * channels)."""

    def call(self, maps: keras.KerasTensor) -> keras.KerasTensor:
        step = max(1, (maps.shape[1] or 0) // _SIDE)
        maps = ops.cast(maps[:, ::step, ::step], "float32")
        mean = ops.mean(maps, axis=(1, 2))
        variance = ops.mean(maps * maps, axis=(1, 2)) - mean * mean
        return ops.concatenate([mean, ops.sqrt(ops.maximum(variance, 0.0))], axis=1)
