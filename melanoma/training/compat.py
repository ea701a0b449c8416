"""All uses of the private API of Keras; `tests/unit/training/test_compat.py` tests each of them.

Keras may change its private API without notice; the tests fail with a version that does.
"""

import keras
import tensorflow as tf

__all__ = ["adam_moments", "all_layers", "is_called_by_the_graph"]


def all_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """Return a network and all its layers at any depth, each before its sublayers.

    `network.layers` does not include layers inside a layer that is not a model.
    """
    return list(network._flatten_layers())


def is_called_by_the_graph(layer: keras.layers.Layer) -> bool:
    """Return whether a layer is a node of a functional model; a sublayer of a custom layer is called by that layer."""
    return bool(layer._inbound_nodes)


def adam_moments(optimizer: keras.optimizers.Adam, variable: tf.Variable) -> tuple[tf.Variable, tf.Variable]:
    """Return Adam's estimates of the first and second moment of a variable's gradients."""
    index = optimizer._get_variable_index(variable)
    return optimizer._momentums[index].value, optimizer._velocities[index].value
