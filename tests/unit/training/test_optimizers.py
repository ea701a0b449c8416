"""Our Adam computes what Keras's does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from melanoma.training import optimizers


def trained(kind: type, **arguments: object) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights, and the optimizer's variables, after 12 steps on random images of two classes."""
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 1, (96, 8, 8, 3)).astype("float32")
    labels = (images.mean(axis=(1, 2, 3)) > 0.5).astype("float32")
    network = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten(),
         keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)]
    )  # fmt: skip
    network.compile(kind(0.01, **arguments), keras.losses.BinaryCrossentropy(from_logits=True))
    network.fit(images, labels, batch_size=8, shuffle=False, verbose=0)
    return network.get_weights(), [np.asarray(v) for v in network.optimizer.variables]


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"weight_decay": 0.1},
        {"clipnorm": 0.01},
        {"use_ema": True, "ema_momentum": 0.9},
        {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
        {"amsgrad": True},
        {"gradient_accumulation_steps": 3},
    ],
    ids=lambda arguments: next(iter(arguments), "defaults"),
)
def test_weights_and_state_are_those_of_keras(name: str, arguments: dict):
    theirs = trained(getattr(keras.optimizers, name), **arguments)
    ours = trained(getattr(optimizers, name), **arguments)
    for expected, got in zip((*theirs[0], *theirs[1]), (*ours[0], *ours[1]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


def test_learning_rate_schedule_is_followed():
    halved = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    start, gradient = tf.zeros(4), tf.constant([1.0, -2.0, 3e-3, 0.5])
    ends = []
    for kind in (keras.optimizers.Adam, optimizers.Adam):
        weights, optimizer = keras.Variable(start), kind(halved)
        for _ in range(3):
            optimizer.apply([gradient], [weights])
        ends.append(np.asarray(weights))
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-5)
    assert np.abs(ends[1]).max() < 0.1 + 0.05 + 0.025 + 1e-3


@pytest.mark.parametrize("jit_compile", [True, False])
def test_gradients_in_bfloat16_change_weights_in_float32(jit_compile: bool):
    weights, optimizer = keras.Variable(tf.ones(3)), optimizers.Adam(0.1)

    @tf.function(jit_compile=jit_compile)
    def step() -> None:
        optimizer.apply([tf.constant([1, -1, 2], tf.bfloat16)], [weights])

    optimizer.build([weights])
    step()
    np.testing.assert_allclose(weights, [0.9, 1.1, 0.9], rtol=1e-5)
