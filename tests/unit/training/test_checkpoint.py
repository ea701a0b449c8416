"""A training that is interrupted at any place goes on to the result of one that was not."""

import json
import logging
import os
import resource
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest

from melanoma.config.schema import CheckpointConfig, EarlyStoppingConfig, TrainingConfig
from melanoma.data.batches import prediction_batches
from melanoma.data.images import ImageStore
from melanoma.errors import ModelError, RunKilled
from melanoma.models.build import build_network, head
from melanoma.models.losses import training_loss
from melanoma.training.augmentation import RandomAffine, RandomBlur, RandomColor
from melanoma.training.batches import TrainingImages, augmenter, encode, training_batches
from melanoma.training.checkpoint import Checkpoints
from melanoma.training.fit import Feed, Recipe, fit
from melanoma.training.hardware import prepare
from melanoma.training.schedules import cosine, plateau

N, SIZE, BATCH, STEPS, EPOCHS = 26, 12, 5, 6, 7
TARGETS = np.arange(N) % 2
PIXELS = np.random.default_rng(0).integers(0, 255, (N, SIZE, SIZE, 3)).astype(np.uint8)
EMA_AND_STOPPING = {"ema": 0.8, "early_stopping": EarlyStoppingConfig(patience=2)}


def network(image_size: int, classes: int, units: int = 6) -> keras.Model:
    """A network with all that has a state: moving averages, and random numbers."""
    inputs = keras.Input((image_size, image_size, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(units, 3, activation="relu")(x))
    x = keras.layers.Dropout(0.3)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, head(x, classes))


class Crash(Exception):
    """Ends a training as a crash would, in this process."""


class At(keras.callbacks.Callback):
    """Do something after a batch of an epoch."""

    def __init__(self, place: tuple[int, int] | None, action: Callable[[], None]):
        super().__init__()
        self.place, self.action = place, action

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.place:
            self.action()


def crash() -> None:
    raise Crash


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def run(
    folder: Path | None, at: tuple[int, int] | None = None, action=crash, *, units=6, schedule=cosine, **settings
) -> dict:
    """Train as a new process would, to the end or until something happens after a batch of an epoch."""
    prepare(3, deterministic=True)
    net = build_network(partial(network, units=units), image_size=SIZE, classes=2, policy="float32")
    file = os.memfd_create("images")
    os.write(file, PIXELS.tobytes())
    store, rows = ImageStore(SIZE, (file,), (0, N)), np.arange(N)
    images = TrainingImages(store, rows, encode(TARGETS, 2), np.ones(N, "float32"))
    layers = [RandomAffine(True, rotation=90), RandomColor(0.1, 0.1, 0.1, 0.1), RandomBlur()]
    augment = augmenter([*layers, keras.layers.RandomContrast(0.2, value_range=(0, 255))], mixup=0.2)
    batches = partial(training_batches, images, batch_size=BATCH, seed=3, augment=augment)
    feed = Feed(batches, STEPS, N, N, prediction_batches(store, rows, 9), TARGETS, ["a", "b"])

    def with_action(**arguments):
        rate, callbacks = schedule(**arguments)
        return rate, [*callbacks, At(at, action)]

    trained = fit(
        net,
        feed,
        Recipe(training_loss(2), keras.optimizers.Adam, 0.02, with_action, warmup_epochs=2),
        TrainingConfig(**{"epochs": EPOCHS, "monitor": "val/loss", "restore_best": True} | settings),
        lambda epoch, metrics: None,
        None,
        None if folder is None else Checkpoints(folder),
    )
    timed = {"seconds_per_epoch", "images_per_second"}
    return {
        "kept": trained.epoch,
        "history": [{name: value for name, value in one.items() if name not in timed} for one in trained.history],
        "weights": [weight.tolist() for weight in net.get_weights()],
    }


@pytest.fixture
def logged(caplog):
    """What is logged, in `text`."""
    logger = logging.getLogger("melanoma")
    before, logger.propagate = logger.propagate, False
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.propagate = before


@pytest.fixture(scope="module")
def uninterrupted() -> dict:
    return run(None, **EMA_AND_STOPPING)


@pytest.mark.parametrize(
    ("at", "action"),
    [
        ((0, 3), crash),  # before the first checkpoint
        ((2, 0), crash),  # between the phases
        ((1, 5), sigterm),  # with the last batch of the first phase
        ((2, 4), sigterm),
    ],
)
def test_the_result_is_that_of_a_training_that_was_not_interrupted(tmp_path, uninterrupted, at, action):
    assert len(uninterrupted["history"]) > at[0]
    with pytest.raises(Crash if action is crash else RunKilled):
        run(tmp_path / "run", at, action, **EMA_AND_STOPPING)
    saved = [path.name for path in sorted((tmp_path / "run").glob("*"))]
    if action is sigterm:  # after this batch; after the last one of an epoch, its validation is worth the wait
        epoch, step = (at[0] + 1, 0) if at[1] + 1 == STEPS else (at[0], at[1] + 1)
        assert saved[-1] == f"{epoch:05d}-{step:08d}"
    else:
        assert saved == [f"{epoch:05d}-00000000" for epoch in range(1, at[0] + 1)][-2:]
    assert run(tmp_path / "run", **EMA_AND_STOPPING) == uninterrupted


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again(tmp_path, uninterrupted):
    places = [(0, 2), (0, 1), (3, 0)]  # the second: after three more batches of the same epoch
    for at in places:
        with pytest.raises(RunKilled):
            run(tmp_path / "run", at, sigterm, **EMA_AND_STOPPING)
    assert run(tmp_path / "run", **EMA_AND_STOPPING) == uninterrupted


@pytest.mark.slow
def test_a_plateau_goes_on_too_without_an_average(tmp_path):
    settings = {"schedule": partial(plateau, factor=0.5, patience=1), "restore_best": False, "epochs": 6}
    whole = run(None, **settings)
    assert len({one["learning_rate"] for one in whole["history"]}) > 2
    with pytest.raises(Crash):
        run(tmp_path / "run", (4, 1), **settings)
    assert run(tmp_path / "run", **settings) == whole


def test_a_training_that_was_over_is_not_trained_further(tmp_path, uninterrupted):
    assert run(tmp_path / "run", **EMA_AND_STOPPING) == uninterrupted
    files = sorted((tmp_path / "run").rglob("*"))
    times = [path.stat().st_mtime_ns for path in files]
    assert run(tmp_path / "run", (0, 0), **EMA_AND_STOPPING) == uninterrupted
    assert [path.stat().st_mtime_ns for path in files] == times


def test_checkpoints_within_an_epoch(tmp_path, uninterrupted):
    settings = {**EMA_AND_STOPPING, "checkpoint": CheckpointConfig(minutes=1e-9)}
    with pytest.raises(Crash):
        run(tmp_path / "run", (2, 4), **settings)
    assert [path.name for path in sorted((tmp_path / "run").glob("*"))] == ["00002-00000003", "00002-00000004"]
    assert run(tmp_path / "run", **settings) == uninterrupted


@pytest.mark.parametrize("damage", [pytest.param("cut", marks=pytest.mark.slow), "garbage"])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(tmp_path, uninterrupted, logged, damage):
    with pytest.raises(Crash):
        run(tmp_path / "run", (4, 1), **EMA_AND_STOPPING)
    newest = tmp_path / "run" / "00004-00000000"
    arrays, state = newest / "arrays.npz", newest / "state.json"
    if damage == "cut":
        os.truncate(arrays, arrays.stat().st_size // 2)
    else:
        state.write_text("{")
    assert run(tmp_path / "run", **EMA_AND_STOPPING) == uninterrupted
    assert f"A checkpoint is damaged, and the one before it is used: {newest}" in logged.text


def change_state(folder: Path, **values) -> None:
    """Change a checkpoint as another version would have written it."""
    [path] = [*folder.glob("*/state.json")][-1:]
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    (path.parent / ".checksums.json").unlink()


def test_checkpoints_of_others_are_refused(tmp_path):
    with pytest.raises(Crash):
        run(tmp_path / "run", (1, 1))
    with pytest.raises(ModelError, match=r"another network or optimizer.*Received: a checkpoint of"):
        run(tmp_path / "run", units=7)
    change_state(tmp_path / "run", run="another")
    with pytest.raises(ModelError, match="belongs to the run another"):
        run(tmp_path / "run")
    change = {"format": 2, "versions": {"melanoma": "9.9"}}
    path = tmp_path / "run" / "00001-00000000" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=r"newer version of melanoma \(9.9\)"):
        run(tmp_path / "run")


@pytest.fixture
def no_large_file():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


@pytest.mark.usefixtures("no_large_file")
def test_without_space_the_training_goes_on_and_says_what_is_at_risk(tmp_path, logged):
    assert len(run(tmp_path / "run", units=400)["history"]) == EPOCHS
    assert list((tmp_path / "run").glob("*")) == []
    assert logged.text.count("The checkpoint cannot be written") == 1
    assert "(File too large); if the training is interrupted, it can go on from its beginning only" in logged.text
