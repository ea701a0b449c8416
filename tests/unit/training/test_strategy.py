"""One model on two devices learns what it would on one."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from melanoma.config.schema import TrainingConfig
from melanoma.models.build import build_network, head
from melanoma.training.batches import encode
from melanoma.training.fit import Feed, Recipe, fit
from melanoma.training.hardware import prepare, strategy_of
from melanoma.training.optimizers import Adam
from melanoma.training.schedules import constant
from tests.commands import forked


def builder(image_size, classes):
    inputs = keras.Input((image_size, image_size, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    return keras.Model(inputs, head(keras.layers.Flatten()(x), classes))


def train_on_both(file: str) -> None:
    """In a process of its own, because the devices are fixed once TensorFlow has run."""
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (64, 8, 8, 3)).astype("float32")
    targets = (images[..., 0].mean(axis=(1, 2)) > images[..., 1].mean(axis=(1, 2))).astype(int)
    labels, weights = encode(targets, 2), np.ones(64, "float32")

    batches = tf.data.Dataset.from_tensor_slices((images, labels, weights)).batch(16).repeat()
    validation = tf.data.Dataset.from_tensor_slices(images).batch(16)
    feed = Feed(lambda first=0: batches.skip(first), 4, 64, 64, validation, targets, ["dark", "bright"])
    trained = []
    for name in ("single", "mirrored"):
        prepare(0, True)
        history = []
        strategy = strategy_of(name)
        with strategy.scope():
            network = build_network(builder, image_size=8, classes=2, policy="float32")
            recipe = Recipe(keras.losses.BinaryCrossentropy(from_logits=True), Adam, 1e-2, constant)
            settings = TrainingConfig(epochs=4, monitor="val/loss", restore_best=False)
            fit(network, feed, recipe, settings, lambda epoch, metrics, history=history: history.append(metrics))
        losses = [[one["train/loss"], one["val/loss"], one["train/accuracy"]] for one in history]
        trained.append((strategy.num_replicas_in_sync, losses))
    Path(file).write_text(json.dumps(trained))


def test_two_devices_give_the_losses_of_one(tmp_path: Path):
    process = forked(train_on_both, str(tmp_path / "losses"))
    process.join(120)
    assert process.exitcode == 0
    (one_device, single), (two_devices, mirrored) = json.loads((tmp_path / "losses").read_text())
    assert (one_device, two_devices) == (1, 2)
    assert mirrored[-1][0] < single[0][0]
    for one, other in zip(single, mirrored, strict=True):
        assert other == pytest.approx(one, abs=2e-4)
