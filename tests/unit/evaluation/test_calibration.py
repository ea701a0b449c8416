"""Calibration finds what was done to honest probabilities, and the saved model carries it."""

import keras
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from melanoma.evaluation.calibrated_model import with_calibration
from melanoma.evaluation.calibration import Isotonic, Temperature, fit_calibration, fit_recalibration
from melanoma.models.build import build_network, copy_weights, head, with_probabilities


def honest(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets drawn with the probabilities that are given for them."""
    rng = np.random.default_rng(seed)
    probabilities = softmax(1.5 * rng.normal(size=(n, classes)), axis=1)
    return (probabilities.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), probabilities


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("put_on", [0.4, 1.0, 3.0])
def test_the_temperature_that_was_put_on_is_found(classes, put_on):
    targets, probabilities = honest(20_000, classes)
    sharpened = Temperature(1 / put_on).applied(probabilities)
    found = fit_calibration("temperature", targets, sharpened)
    assert found.temperature == pytest.approx(put_on, rel=0.06)


def test_a_fitted_temperature_never_raises_the_loss_it_is_fitted_on():
    rng = np.random.default_rng(1)
    targets, probabilities = rng.integers(0, 3, 60), rng.dirichlet(np.ones(3) / 3, 60)
    found = fit_calibration("temperature", targets, probabilities)
    assert log_loss(targets, found.applied(probabilities)) <= log_loss(targets, probabilities) + 1e-6


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_probabilities_of_zero_and_one_stay_probabilities(kind):
    found = fit_calibration(kind, np.array([0, 1, 1]), np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))
    calibrated = found.applied(np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))
    assert (calibrated > 0).all()
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)


@pytest.mark.parametrize("classes", [2, 5])
def test_isotonic_mends_what_no_temperature_can(classes):
    """Every class but the first was halved: a temperature cannot undo that, a curve for each class can."""
    targets, probabilities = honest(20_000, classes)
    bent = probabilities * np.where(np.arange(classes) == 0, 1.0, 0.5)
    bent /= bent.sum(axis=1, keepdims=True)
    seen, fresh = slice(0, 10_000), slice(10_000, None)
    losses = {
        kind: log_loss(targets[fresh], fit_calibration(kind, targets[seen], bent[seen]).applied(bent[fresh]))
        for kind in ("temperature", "isotonic")
    }
    assert losses["isotonic"] < losses["temperature"] - 0.01
    assert losses["isotonic"] < log_loss(targets[fresh], probabilities[fresh]) + 0.02


def test_the_curve_of_two_classes_is_scikit_learns_at_its_steps():
    targets, probabilities = honest(500, 2)
    found = fit_calibration("isotonic", targets, probabilities)
    reference = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(probabilities[:, 1], targets)
    steps = np.linspace(0, 1, 101)
    at_steps = found.applied(np.stack([1 - steps, steps], axis=1))[:, 1]
    np.testing.assert_allclose(at_steps, reference.predict(steps), atol=1e-5)
    assert (np.diff(at_steps) >= 0).all()


def another_site(n: int, slope: float, shifts: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, the probabilities of a model from elsewhere, and the true probabilities."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n, len(shifts)))
    true = softmax(slope * logits + shifts, axis=1)
    return (true.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), softmax(logits, axis=1), true


@pytest.mark.parametrize(("slope", "shifts"), [(1.0, [0.0, 0.0]), (0.5, [0.0, -2.0]), (0.6, [1.0, 0.0, -1.0])])
def test_recalibration_finds_the_slope_and_the_frequencies_of_another_site(slope, shifts):
    targets, probabilities, true = another_site(50_000, slope, shifts)
    found = fit_recalibration(targets, probabilities)
    assert found.slope == pytest.approx(slope, rel=0.03)
    np.testing.assert_allclose(found.intercepts, np.array(shifts) - np.mean(shifts), atol=0.04)
    np.testing.assert_allclose(found.applied(probabilities), true, atol=0.02)


@pytest.mark.parametrize(
    ("slope", "shifts", "most"), [(1.0, [0.0] * 2, 0.02), (0.5, [0.0, -2.0], 0.02), (0.5, [1.0, 0, 0, -1, -2], 0.04)]
)
def test_a_hundred_images_of_another_site_suffice(slope, shifts, most):
    """The loss on fresh images is near the least possible one: there is little to lose where nothing was wrong."""
    fresh, probabilities, true = another_site(20_000, slope, shifts)
    losses = []
    for seed in range(1, 41):
        targets, seen, _ = another_site(100, slope, shifts, seed)
        losses.append(log_loss(fresh, fit_recalibration(targets, seen).applied(probabilities)))
    assert np.mean(losses) < log_loss(fresh, true) + most


def test_a_class_without_images_keeps_a_probability():
    targets, probabilities, _ = another_site(60, 1.0, [0.0, 0.0, 0.0])
    kept = targets < 2
    found = fit_recalibration(targets[kept], probabilities[kept]).applied(probabilities)
    assert (found[:, 2] > 0).all()
    assert found[:, 2].mean() < 0.1


@pytest.mark.parametrize("outputs", [1, 4])
def test_a_model_can_be_recalibrated_twice(outputs, tmp_path):
    inputs = keras.Input((6, 6, 3))
    model = with_probabilities(keras.Model(inputs, keras.layers.Dense(outputs)(keras.layers.Flatten()(inputs))))
    images = np.random.default_rng(0).normal(size=(60, 6, 6, 3)).astype("float32")
    probabilities = model.predict(images, verbose=0)
    targets = np.random.default_rng(1).integers(0, probabilities.shape[1], 60)
    for _ in range(2):
        found = fit_recalibration(targets, probabilities)
        model = with_calibration(model, found)
        expected = found.applied(probabilities)
        assert np.abs(expected - probabilities).max() > 0.01
        probabilities = model.predict(images, verbose=0)
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(again.predict(images, verbose=0), expected, atol=1e-5)


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_a_calibrated_model_survives_saving(kind, outputs, tmp_path):
    inputs = keras.Input((6, 6, 3))
    network = keras.Model(inputs, keras.layers.Dense(outputs)(keras.layers.Flatten()(inputs)))
    plain = with_probabilities(network)
    images = np.random.default_rng(0).normal(size=(60, 6, 6, 3)).astype("float32")
    probabilities = plain.predict(images, verbose=0)
    targets = np.random.default_rng(1).integers(0, probabilities.shape[1], 60)
    calibration = fit_calibration(kind, targets, probabilities)
    expected = calibration.applied(probabilities)
    assert np.abs(expected - probabilities).max() > 0.01
    calibrated = with_calibration(plain, calibration)
    np.testing.assert_allclose(calibrated.predict(images, verbose=0), expected, atol=1e-5)
    calibrated.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(again.predict(images, verbose=0), expected, atol=1e-5)


def test_training_can_start_from_a_calibrated_model():
    def builder(image_size: int, classes: int) -> keras.Model:
        inputs = keras.Input((image_size, image_size, 3))
        return keras.Model(inputs, head(keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(inputs)), classes))

    first, second = (build_network(builder, image_size=6, classes=3, policy="float32") for _ in range(2))
    calibrated = with_calibration(with_probabilities(first), Isotonic(np.tile(np.linspace(0, 1, 101) ** 2, (3, 1))))
    assert copy_weights(calibrated, second)
    for theirs, ours in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(theirs, ours)
