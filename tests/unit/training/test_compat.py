"""Keras still keeps, beyond its public interface, what `melanoma.training.compat` takes from there.

A failure after an update of Keras means that compat.py has to be adapted to it.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from melanoma.training import optimizers
from melanoma.training.compat import adam_moments, all_layers, is_called_by_the_graph


class Composite(layers.Layer):
    """A layer of a user's, with layers inside that it calls by itself, one of them in a list."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(2, name="inner")
        self.more = [layers.BatchNormalization(name="listed")]

    def call(self, inputs):
        return self.more[0](self.inner(inputs))


@pytest.fixture
def network() -> keras.Model:
    """A layer of a user's, and a network inside the network."""
    inside = keras.Input((2,), name="inside")
    nested = keras.Model(inside, layers.Dense(2, name="deep")(inside), name="nested")
    inputs = keras.Input((3,), name="image")
    return keras.Model(inputs, layers.Dense(1, name="head")(nested(Composite(name="outer")(inputs))), name="whole")


def test_all_layers_are_found_each_before_those_inside_it(network):
    names = [layer.name for layer in all_layers(network)]
    assert sorted(names) == sorted(["whole", "image", "outer", "inner", "listed", "nested", "inside", "deep", "head"])
    assert names[0] == "whole"
    assert names.index("outer") < min(names.index("inner"), names.index("listed"))
    assert names.index("nested") < min(names.index("inside"), names.index("deep"))
    assert set(map(id, network.layers)) < set(map(id, all_layers(network)))
    assert not {"inner", "listed", "deep"} & {layer.name for layer in network.layers}


def test_layers_set_back_in_that_order_are_as_they_were(network):
    """Setting a layer sets those inside it: what is inside has to come later."""
    found = {layer.name: layer for layer in all_layers(network)}
    found["inner"].trainable = found["deep"].trainable = False
    before = [(layer, layer.trainable) for layer in all_layers(network)]
    network.trainable = False
    assert not any(layer.trainable for layer in all_layers(network))
    for layer, value in before:
        layer.trainable = value
    assert [layer.trainable for layer, _ in before] == [value for _, value in before]
    assert {layer.name for layer in all_layers(network) if not layer.trainable} == {"inner", "deep"}


def test_a_layer_is_called_by_the_graph_or_by_the_layer_it_is_inside(network):
    called = {layer.name: is_called_by_the_graph(layer) for layer in all_layers(network)}
    assert not called.pop("whole")
    assert {name for name, by_graph in called.items() if not by_graph} == {"inner", "listed"}
    assert all(type(is_called_by_the_graph(layer)) is bool for layer in all_layers(network))
    assert not is_called_by_the_graph(layers.Dense(2))


@pytest.mark.parametrize("kind", [keras.optimizers.Adam, keras.optimizers.AdamW, optimizers.Adam, optimizers.AdamW])
def test_moments_after_one_step_are_those_of_adam(kind):
    gradients = [np.array([1.0, -2.0, 0.5], "float32"), np.array([[3.0], [-0.25]], "float32")]
    weights = [keras.Variable(np.zeros_like(gradient)) for gradient in gradients]
    optimizer = kind(0.1, beta_1=0.8, beta_2=0.95)
    optimizer.build(weights)
    for variable in weights:
        for moment in adam_moments(optimizer, variable):
            np.testing.assert_array_equal(moment, np.zeros(variable.shape))
    optimizer.apply([tf.constant(gradient) for gradient in gradients], weights)
    for variable, gradient in zip(weights, gradients, strict=True):
        first, second = adam_moments(optimizer, variable)
        np.testing.assert_allclose(first, (1 - 0.8) * gradient, rtol=1e-5)
        np.testing.assert_allclose(second, (1 - 0.95) * gradient**2, rtol=1e-5)


def test_what_changes_the_moments_changes_the_optimizers():
    """They are its own variables, with a handle for TensorFlow's operations, not copies."""
    variable, optimizer = keras.Variable(np.zeros(2, "float32")), keras.optimizers.Adam()
    optimizer.build([variable])
    for number, moment in enumerate(adam_moments(optimizer, variable), 1):
        assert moment.handle.dtype == tf.resource
        moment.assign([number, number])
    held = [np.asarray(v).tolist() for v in optimizer.variables if tuple(v.shape) == (2,)]
    assert held == [[1, 1], [2, 2]]
