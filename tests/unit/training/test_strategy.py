"""One model on two devices learns what it would on one, and goes on after an interruption."""

import json
import os
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from melanoma.config.schema import TrainingConfig
from melanoma.errors import RunKilled
from melanoma.models.build import build_network, head
from melanoma.training.batches import encode
from melanoma.training.checkpoint import Checkpoints
from melanoma.training.fit import Feed, Recipe, fit
from melanoma.training.hardware import prepare, strategy_of
from melanoma.training.optimizers import Adam
from tests.commands import forked


def builder(image_size, classes):
    inputs = keras.Input((image_size, image_size, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    return keras.Model(inputs, head(keras.layers.Flatten()(x), classes))


class Preempted(keras.callbacks.Callback):
    """SIGTERM after the second batch of the third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (2, 1):
            os.kill(os.getpid(), signal.SIGTERM)


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

    def train(name: str, *callbacks: keras.callbacks.Callback, checkpoints: Checkpoints | None = None) -> tuple:
        prepare(0, True)
        strategy = strategy_of(name)
        with strategy.scope():
            network = build_network(builder, image_size=8, classes=2, policy="float32")
            loss = keras.losses.BinaryCrossentropy(from_logits=True)
            recipe = Recipe(loss, Adam, 1e-2, lambda learning_rate, **_: (learning_rate, list(callbacks)))
            settings = TrainingConfig(epochs=4, monitor="val/loss", restore_best=False)
            trained = fit(network, feed, recipe, settings, lambda epoch, metrics: None, None, checkpoints)
        losses = [[one["train/loss"], one["val/loss"], one["train/accuracy"]] for one in trained.history]
        return strategy.num_replicas_in_sync, losses

    results = [train("single"), train("mirrored")]
    checkpoints = Checkpoints(Path(file).with_name("run"))
    with pytest.raises(RunKilled):
        train("mirrored", Preempted(), checkpoints=checkpoints)
    assert checkpoints.last_place == "epoch 2 and 2 batches"
    results.append(train("mirrored", keras.callbacks.Callback(), checkpoints=checkpoints))
    Path(file).write_text(json.dumps(results))


def test_two_devices_give_the_losses_of_one(tmp_path: Path):
    process = forked(train_on_both, str(tmp_path / "losses"))
    process.join(120)
    assert process.exitcode == 0
    (one_device, single), (two_devices, mirrored), (_, resumed) = json.loads((tmp_path / "losses").read_text())
    assert (one_device, two_devices) == (1, 2)
    assert resumed == mirrored
    assert mirrored[-1][0] < single[0][0]
    for one, other in zip(single, mirrored, strict=True):
        assert other == pytest.approx(one, abs=2e-4)
