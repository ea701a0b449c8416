"""Fused batch normalisation computes what Keras's own layer does."""

import keras
import numpy as np
import pytest
from keras import layers

from melanoma.models.backbone import backbone
from melanoma.models.resnet_small import resnet_small
from melanoma.training.compat import all_layers
from melanoma.training.normalization import FusedBatchNormalization, with_fused_normalization


def fused_layers(network: keras.Model) -> list[str]:
    return [one.name for one in all_layers(network) if isinstance(one, FusedBatchNormalization)]


def trained(network: keras.Model) -> list[np.ndarray]:
    """Weights after four steps of plain gradient descent."""
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(0, 255, (32, 32, 32, 3)).astype("float32"), rng.integers(0, 3, 32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(0.01), loss)
    network.fit(images, labels, batch_size=8, shuffle=False, verbose=0)
    return network.get_weights()


def test_training_gives_the_weights_that_keras_gives():
    keras.utils.set_random_seed(0)
    network = resnet_small(32, 3, widths=(4, 8), blocks=(1, 1), dropout=0.0)
    fused = with_fused_normalization(network)
    assert len(fused_layers(fused)) == 6
    assert not fused_layers(network)
    names = [w.path.rsplit("/", 1)[-1] for w in network.weights]
    before, theirs, ours = network.get_weights(), trained(network), trained(fused)
    moved = {name for name, start, end in zip(names, before, theirs, strict=True) if not np.array_equal(start, end)}
    assert moved == {"kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"}
    for name, expected, got in zip(names, theirs, ours, strict=True):
        # n / (n - 1) of the variance of 8 maps of at least 8 x 8
        np.testing.assert_allclose(got, expected, rtol=3e-3, atol=1e-4, err_msg=name)


def test_it_trains_in_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        fused = with_fused_normalization(resnet_small(32, 3, widths=(4, 8), blocks=(1, 1)))
    finally:
        keras.config.set_dtype_policy("float32")
    assert all(np.isfinite(w).all() for w in trained(fused))


def test_weights_and_predictions_are_kept():
    network = resnet_small(32, 3, widths=(4, 8), blocks=(1, 1))
    images = np.random.default_rng(1).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    trained(network)
    np.testing.assert_array_equal(with_fused_normalization(network)(images), network(images))


def test_a_network_inside_the_network_is_fused_too():
    fused = with_fused_normalization(backbone(32, 2, family="MobileNetV3Small", pretrained=False))
    assert len(fused_layers(fused)) == 34
    assert fused.layers[1].name == "backbone"


class Wrapped(layers.Layer):
    """A layer of a user's, with batch normalisation inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.BatchNormalization()

    def call(self, inputs, training=None):
        return self.inner(inputs, training=training)


@pytest.mark.parametrize(
    "network",
    [
        keras.Sequential([layers.Input((8, 8, 3)), Wrapped()]),
        keras.Sequential([layers.Input((8, 8, 3)), layers.BatchNormalization(renorm=True)]),
        keras.Sequential([layers.Input((8, 8, 3)), layers.BatchNormalization(synchronized=True)]),
        backbone(32, 2, family="MobileNetV3Small", pretrained=True),
        keras.Sequential([layers.Input((8, 8, 3)), layers.BatchNormalization(axis=1), layers.Flatten()]),
        keras.Sequential([layers.Input((8,)), layers.BatchNormalization()]),
        keras.Sequential([layers.Input((8, 8, 3)), layers.BatchNormalization(scale=False)]),
        keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3)]),
    ],
    ids=[
        "in another layer",
        "renorm",
        "synchronized",
        "stored statistics",
        "another axis",
        "vectors",
        "no scale",
        "none",
    ],
)
def test_what_cannot_be_fused_is_left_alone(network):
    assert with_fused_normalization(network) is network
