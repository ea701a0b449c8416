"""Learning rates at known steps and losses at known values."""

from functools import partial

import keras
import numpy as np
import pytest
from hydra.utils import UNSAFE_DISABLE_EXECUTION_CHECKS, instantiate
from omegaconf import OmegaConf

from melanoma.models.losses import training_loss
from melanoma.paths import conf_dir
from melanoma.training.schedules import constant, cosine, plateau

FIT = {"learning_rate": 0.1, "epochs": 10, "steps_per_epoch": 20, "monitor": "val/loss", "mode": "min"}
LOGITS = np.array([[2.0], [-1.0], [0.5]])
LABELS = np.array([[1.0], [1.0], [0.0]])
MANY_LOGITS = np.array([[2.0, 0.0, -1.0], [0.3, 0.2, 0.1]])
MANY_LABELS = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def rates(schedule, steps: list[int]) -> list[float]:
    return [float(schedule(step)) for step in steps]


def test_constant():
    assert constant(**FIT) == (0.1, [])


def test_cosine_rises_linearly_then_falls_to_its_end():
    schedule, callbacks = cosine(**FIT, warmup_epochs=2, final_fraction=0.05)
    assert callbacks == []
    # Step 40 is the end of the warm-up, 120 the middle of the cosine, 200 the end of the training.
    start = 0.1 / 40
    expected = [start, start + (0.1 - start) / 2, 0.1, 0.1 * (0.05 + 0.95 / 2), 0.1 * 0.05, 0.1 * 0.05]
    np.testing.assert_allclose(rates(schedule, [0, 20, 40, 120, 200, 500]), expected, rtol=1e-5)
    every = rates(schedule, list(range(200)))
    assert np.argmax(every) == 40
    assert (np.diff(every[:41]) > 0).all()
    assert (np.diff(every[40:]) < 0).all()


def test_cosine_without_warmup_starts_at_the_top():
    schedule, _ = cosine(**FIT, warmup_epochs=0, final_fraction=0.0)
    np.testing.assert_allclose(rates(schedule, [0, 100, 200]), [0.1, 0.05, 0], atol=1e-7)


@pytest.mark.parametrize(("epochs", "steps"), [(1, 10), (1, 1), (2, 3)])
def test_cosine_cuts_a_warmup_longer_than_half_of_the_training(epochs, steps):
    fit = FIT | {"epochs": epochs, "steps_per_epoch": steps}
    schedule, _ = cosine(**fit, warmup_epochs=5)
    found = rates(schedule, list(range(epochs * steps + 1)))
    assert found.index(max(found)) <= epochs * steps / 2
    assert max(found) == pytest.approx(0.1)
    assert found[-1] == pytest.approx(0.001)


def test_plateau_is_told_what_to_watch():
    rate, [callback] = plateau(**FIT | {"monitor": "val/auc", "mode": "max"}, factor=0.5, patience=4)
    assert rate == 0.1
    assert (callback.monitor, callback.mode, callback.factor, callback.patience) == ("val/auc", "max", 0.5, 4)


@pytest.mark.parametrize("name", ["constant", "cosine", "plateau"])
def test_yaml_files_build_schedules(name):
    node = OmegaConf.to_container(OmegaConf.load(conf_dir() / "schedule" / f"{name}.yaml"))
    rate, callbacks = instantiate(node, **FIT, _execution_whitelist_=UNSAFE_DISABLE_EXECUTION_CHECKS)
    optimizer = keras.optimizers.SGD(rate)
    assert 0 < float(optimizer.learning_rate) < 0.1001
    assert len(callbacks) == (name == "plateau")


def binary(smoothing: float = 0.0, gamma: float = 0.0) -> float:
    y, p = LABELS * (1 - smoothing) + smoothing / 2, sigmoid(LOGITS)
    right = y * p + (1 - y) * (1 - p)
    return float(np.mean((1 - right) ** gamma * -(y * np.log(p) + (1 - y) * np.log(1 - p))))


def categorical(smoothing: float = 0.0, gamma: float = 0.0) -> float:
    y, p = MANY_LABELS * (1 - smoothing) + smoothing / 3, softmax(MANY_LOGITS)
    return float(np.mean(((1 - p) ** gamma * -y * np.log(p)).sum(axis=1)))


@pytest.mark.parametrize(
    ("options", "expected", "expected_of_many"),
    [
        ({}, binary(), categorical()),
        ({"label_smoothing": 0.2}, binary(0.2), categorical(0.2)),
        ({"focal_gamma": 2.0}, binary(gamma=2), categorical(gamma=2)),
        ({"focal_gamma": 0.5}, binary(gamma=0.5), categorical(gamma=0.5)),
        ({"focal_gamma": 0.0}, binary(), categorical()),
        ({"focal_gamma": 2.0, "label_smoothing": 0.1}, binary(0.1, 2), categorical(0.1, 2)),
    ],
)
def test_losses_equal_the_formula(options, expected, expected_of_many):
    assert float(training_loss(2, **options)(LABELS, LOGITS)) == pytest.approx(expected, rel=1e-4)
    assert float(training_loss(3, **options)(MANY_LABELS, MANY_LOGITS)) == pytest.approx(expected_of_many, rel=1e-4)


def test_two_values_worked_out_by_hand():
    even = np.zeros((1, 1))
    assert float(training_loss(2)(np.ones((1, 1)), even)) == pytest.approx(np.log(2))
    assert float(training_loss(2, focal_gamma=2.0)(np.ones((1, 1)), even)) == pytest.approx(np.log(2) / 4)


@pytest.mark.parametrize("make", [training_loss, partial(training_loss, focal_gamma=2.0)])
def test_losses_weigh_images(make):
    loss = make(2)
    one, other = (float(loss(LABELS[i : i + 1], LOGITS[i : i + 1])) for i in (0, 1))
    both = float(loss(LABELS[:2], LOGITS[:2], sample_weight=np.array([3.0, 1.0])))
    assert both == pytest.approx((3 * one + other) / 2, rel=1e-5)
