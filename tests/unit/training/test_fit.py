"""Training a tiny network: it learns, keeps the right weights, stops in time, and repeats itself."""

import hashlib
import os
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from melanoma.config.schema import EarlyStoppingConfig, TrainingConfig
from melanoma.errors import TrainingError
from melanoma.evaluation.metrics import epoch_metrics
from melanoma.evaluation.predict import probabilities_from_logits
from melanoma.evaluation.predictions import Predictions
from melanoma.models.build import build_network, head
from melanoma.models.losses import training_loss
from melanoma.training.batches import encode
from melanoma.training.fit import Feed, Recipe, fit, mode_of
from melanoma.training.hardware import prepare
from melanoma.training.schedules import constant, cosine, plateau
from tests.commands import forked

N, SIZE, BATCH = 24, 16, 8
TARGETS = np.arange(N) % 2
# Bright and dark images; a network can tell them apart.
IMAGES = (np.random.default_rng(0).uniform(0, 100, (N, SIZE, SIZE, 3)) + 100 * TARGETS[:, None, None, None]).astype(
    "f4"
)
WRONG = 1 - TARGETS  # with these as validation labels, each epoch of learning makes the validation worse


def network(image_size: int = SIZE, classes: int = 2) -> keras.Model:
    inputs = keras.Input((image_size, image_size, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu", name="body")(x)
    return keras.Model(inputs, head(keras.layers.GlobalAveragePooling2D()(x), classes))


def training_data(labels: np.ndarray) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((IMAGES, labels, np.ones(N, "float32"))).batch(BATCH).repeat()


def feed(batches: tf.data.Dataset, validation: tf.data.Dataset, targets: np.ndarray, classes: int = 2) -> Feed:
    return Feed(
        batches=lambda first=0: batches.skip(first), steps_per_epoch=N // BATCH, rows=N, images=N,
        validation=validation, validation_targets=targets, classes=list("abc")[:classes],
    )  # fmt: skip


class Trained:
    """A fitted network with what was reported on the way."""

    def __init__(
        self, net=None, validation=TARGETS, classes=2, rate=0.05, schedule=constant, optimizer=keras.optimizers.Adam,
        callback=lambda epoch: None, warmup_epochs=0, finetune_factor=1.0, patience=None, min_delta=0.0, **settings,
    ):  # fmt: skip
        keras.utils.set_random_seed(1)
        self.network, self.validation, self.classes = net or network(classes=classes), validation, classes
        self.history: list[dict[str, float]] = []
        defaults = {"epochs": 5, "monitor": "val/loss", "restore_best": True}

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            assert epoch == len(self.history)
            self.history.append(metrics)
            callback(epoch)

        images = tf.data.Dataset.from_tensor_slices(IMAGES).batch(10)
        self.kept, _ = fit(
            self.network,
            feed(training_data(encode(TARGETS, classes)), images, validation, classes),
            Recipe(training_loss(classes), optimizer, rate, schedule, warmup_epochs, finetune_factor),
            TrainingConfig(early_stopping=EarlyStoppingConfig(patience, min_delta), **defaults | settings),
            on_epoch,
        )

    def reported(self, name: str) -> list[float]:
        return [epoch[name] for epoch in self.history]

    def now(self) -> dict[str, float]:
        logits = self.network.predict(IMAGES, verbose=0)
        classes = list("abc")[: self.classes]
        return epoch_metrics(Predictions(self.validation, probabilities_from_logits(logits), classes))


@pytest.mark.parametrize("classes", [2, 3])
def test_training_learns_what_can_be_learnt(classes):
    trained = Trained(classes=classes, epochs=8)
    for name in ("train/loss", "val/loss"):
        assert trained.reported(name)[-1] < 0.8 * trained.reported(name)[0]
    assert trained.now()["auc"] > 0.95
    assert set(trained.history[0]) == {
        "train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/balanced_accuracy", "val/auc",
        "learning_rate", "images_per_second", "seconds_per_epoch",
    }  # fmt: skip
    assert trained.reported("learning_rate") == pytest.approx([0.05] * 8)


@pytest.mark.parametrize("ema", [None, 0.8])
@pytest.mark.parametrize("warmup", [0, 2])
@pytest.mark.parametrize("validation", [TARGETS, WRONG], ids=["improving", "worsening"])
def test_the_weights_are_those_of_the_best_epoch(validation, warmup, ema):
    trained = Trained(validation=validation, warmup_epochs=warmup, ema=ema)
    losses = trained.reported("val/loss")
    assert len(losses) == 5
    assert trained.kept == int(np.argmin(losses))
    assert trained.now()["loss"] == pytest.approx(min(losses), rel=1e-4)
    assert min(losses) < 0.9 * max(losses)


@pytest.mark.parametrize("ema", [None, 0.8])
@pytest.mark.parametrize(("patience", "epochs"), [(None, 5), (2, 3)])
def test_without_restoring_the_weights_are_those_of_the_last_epoch(ema, patience, epochs):
    trained = Trained(validation=WRONG, restore_best=False, ema=ema, patience=patience)
    losses = trained.reported("val/loss")
    assert (len(losses), trained.kept) == (epochs, epochs - 1)
    assert trained.now()["loss"] == pytest.approx(losses[-1], rel=1e-4)
    assert losses[-1] > 1.1 * losses[0]


def test_a_larger_metric_is_better_unless_it_is_a_loss():
    assert [mode_of(name) for name in ("val/loss", "val/auc", "val/balanced_accuracy")] == ["min", "max", "max"]
    trained = Trained(validation=WRONG, monitor="val/auc")
    found = trained.reported("val/auc")
    assert found[trained.kept] == max(found)
    assert trained.now()["auc"] == pytest.approx(max(found))


@pytest.mark.parametrize(
    ("validation", "options", "epochs"),
    [
        (WRONG, {"patience": 1}, 2),
        (WRONG, {"patience": 3}, 4),
        (WRONG, {"patience": None}, 5),
        (TARGETS, {"patience": 1}, 5),
        (TARGETS, {"patience": 1, "min_delta": 10.0}, 2),
    ],
)
def test_early_stopping(validation, options, epochs):
    assert len(Trained(validation=validation, **options).history) == epochs


def test_an_average_of_weights_lags_behind_them():
    plain, averaged = Trained(), Trained(ema=0.9)
    assert plain.now()["loss"] < averaged.now()["loss"] < averaged.reported("val/loss")[0]


def test_warmup_trains_the_head_only_and_then_all():
    net = network()
    seen = []

    def remember(epoch: int) -> None:
        seen.append((net.get_layer("body").get_weights()[0].copy(), net.get_layer("head").get_weights()[0].copy()))

    body = net.get_layer("body").get_weights()[0].copy()
    trained = Trained(net=net, epochs=4, warmup_epochs=2, finetune_factor=0.1, callback=remember)
    assert [np.array_equal(b, body) for b, _ in seen] == [True, True, False, False]
    assert all(not np.array_equal(a[1], b[1]) for a, b in pairwise(seen))
    assert trained.reported("learning_rate") == pytest.approx([0.05, 0.05, 0.005, 0.005])
    assert all(layer.trainable for layer in net.layers)


def test_warmup_longer_than_the_training_is_all_of_it():
    net = network()
    body = net.get_layer("body").get_weights()[0].copy()
    assert len(Trained(net=net, epochs=2, warmup_epochs=5).history) == 2
    np.testing.assert_array_equal(net.get_layer("body").get_weights()[0], body)


def test_what_a_builder_froze_stays_frozen_when_all_else_trains():
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    inner = keras.Model(inputs, keras.layers.BatchNormalization(name="norm")(x), name="backbone")
    inner.get_layer("norm").trainable = False
    outer = keras.Input((SIZE, SIZE, 3))
    net = keras.Model(outer, head(keras.layers.GlobalAveragePooling2D()(inner(outer / 255)), 2))
    norm, kernel = inner.get_layer("norm").get_weights(), inner.get_layer("conv").get_weights()[0]
    Trained(net=net, epochs=2, warmup_epochs=1, restore_best=False)
    for before, after in zip(norm, inner.get_layer("norm").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert not np.array_equal(inner.get_layer("conv").get_weights()[0], kernel)
    assert not inner.get_layer("norm").trainable


@pytest.mark.parametrize("rate", [float("nan"), 1e38])
def test_a_loss_that_is_no_number_ends_the_training_with_advice(rate):
    with pytest.raises(
        TrainingError, match=r"lower optimizer.learning_rate.*Received: loss=(nan|inf) in epoch 1, step"
    ):
        Trained(rate=rate, optimizer=keras.optimizers.SGD)


@pytest.mark.parametrize("warmup", [0, 2])
def test_cosine_starts_anew_in_each_phase(warmup):
    trained = Trained(epochs=6, warmup_epochs=warmup, schedule=partial(cosine, warmup_epochs=0, final_fraction=0.1))
    ends = trained.reported("learning_rate")
    assert ends[-1] == pytest.approx(0.005)
    assert ends[warmup - 1] == pytest.approx(0.005)
    assert ends[warmup] > 0.02


def test_plateau_cuts_the_rate_where_nothing_improves():
    trained = Trained(validation=WRONG, schedule=partial(plateau, factor=0.5, patience=1))
    assert trained.reported("learning_rate") == pytest.approx([0.05, 0.05, 0.025, 0.0125, 0.00625])


def test_accuracy_of_mixed_labels_counts_the_class_they_have_more_of():
    soft = training_data(0.2 + 0.6 * encode(TARGETS, 2))
    history = []
    keras.utils.set_random_seed(1)
    fit(
        network(),
        feed(soft, tf.data.Dataset.from_tensors(IMAGES), TARGETS),
        Recipe(training_loss(2), keras.optimizers.Adam, 0.05, constant),
        TrainingConfig(epochs=12, monitor="val/loss", restore_best=True),
        lambda epoch, metrics: history.append(metrics),
    )
    assert history[-1]["train/accuracy"] > 0.9


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_trains(policy):
    net = build_network(network, image_size=SIZE, classes=2, policy=policy)
    trained = Trained(net=net, epochs=8, ema=0.5)
    assert trained.now()["auc"] > 0.95
    assert {weight.dtype for weight in net.weights} == {"float32"}


def digest_of_a_training(seed: int) -> str:
    """Of the weights of a training with everything random in it."""
    from melanoma.data.batches import prediction_batches
    from melanoma.data.images import ImageStore
    from melanoma.training.augmentation import RandomAffine, RandomBlur, RandomColor, RandomCutout
    from melanoma.training.batches import TrainingImages, augmenter, training_batches

    prepare(seed, deterministic=True)
    net = build_network(network, image_size=SIZE, classes=2, policy="float32")
    layers = [RandomAffine(True, rotation=90), RandomColor(0.1, 0.1, 0.1, 0.1), RandomBlur(), RandomCutout()]
    file = os.memfd_create("images")
    os.write(file, IMAGES.astype(np.uint8).tobytes())
    store, rows = ImageStore(SIZE, (file,), (0, N)), np.arange(N)
    images = TrainingImages(store, rows, encode(TARGETS, 2), np.ones(N, "float32"))
    batches = training_batches(images, batch_size=7, seed=seed, augment=augmenter(layers, mixup=0.2))
    fit(
        net,
        replace(feed(batches, prediction_batches(store, rows, 10), TARGETS), steps_per_epoch=4),
        Recipe(training_loss(2), keras.optimizers.Adam, 0.01, cosine),
        TrainingConfig(epochs=2, monitor="val/loss", restore_best=False),
        lambda epoch, metrics: None,
    )
    return hashlib.sha256(b"".join(weight.tobytes() for weight in net.get_weights())).hexdigest()


def write_digest(seed: int, file: str) -> None:
    Path(file).write_text(digest_of_a_training(seed))


def test_the_seed_decides_every_weight(tmp_path: Path):
    process = forked(write_digest, 3, str(tmp_path / "digest"))
    first = [digest_of_a_training(seed) for seed in (3, 4)]
    process.join(120)
    assert [len(digest) for digest in first] == [64, 64]
    assert (tmp_path / "digest").read_text() == first[0]
    assert first[0] != first[1]


def test_a_time_limit_ends_the_training_between_epochs(caplog: pytest.LogCaptureFixture):
    assert len(Trained(max_minutes=1e-6).history) == 1
    assert "training.max_minutes=1e-06 is used up" in caplog.text
    caplog.clear()
    assert len(Trained(max_minutes=60.0).history) == 5
    assert len(Trained(max_minutes=1e-6, epochs=1).history) == 1
    assert "used up" not in caplog.text
