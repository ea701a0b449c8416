"""What is used of Keras beyond its public interface, in one place; `tests/unit/training/test_compat.py` watches each.

Keras may change these without notice: a new version of it that does fails those tests.
"""

import keras
import tensorflow as tf

__all__ = ["adam_moments", "all_layers", "is_called_by_the_graph"]


def all_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """A network and all layers in it at any depth, each before those inside it.

    `network.layers` has no layers that are inside another layer than a model.
    """
    return list(network._flatten_layers())


def is_called_by_the_graph(layer: keras.layers.Layer) -> bool:
    """Whether a layer is a node of a functional model; one inside a layer of the user's is called by that layer."""
    return bool(layer._inbound_nodes)


def adam_moments(optimizer: keras.optimizers.Adam, variable: tf.Variable) -> tuple[tf.Variable, tf.Variable]:
    """First and second moment of a variable's gradients, as Adam keeps them."""
    index = optimizer._get_variable_index(variable)
    return optimizer._momentums[index].value, optimizer._velocities[index].value
