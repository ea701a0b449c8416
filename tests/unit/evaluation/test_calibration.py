"""Temperature scaling finds the temperature that was put on, and the saved model carries it."""

import keras
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from melanoma.evaluation.calibration import fitted_temperature, tempered
from melanoma.models.build import with_probabilities, with_temperature


def honest(n: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets drawn with the probabilities that are given for them."""
    rng = np.random.default_rng(0)
    probabilities = softmax(1.5 * rng.normal(size=(n, classes)), axis=1)
    return (probabilities.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), probabilities


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("put_on", [0.4, 1.0, 3.0])
def test_the_temperature_that_was_put_on_is_found(classes, put_on):
    targets, probabilities = honest(20_000, classes)
    sharpened = tempered(probabilities, 1 / put_on)
    assert fitted_temperature(targets, sharpened) == pytest.approx(put_on, rel=0.06)


def test_a_fitted_temperature_never_raises_the_loss_it_is_fitted_on():
    rng = np.random.default_rng(1)
    targets, probabilities = rng.integers(0, 3, 60), rng.dirichlet(np.ones(3) / 3, 60)
    found = fitted_temperature(targets, probabilities)
    assert log_loss(targets, tempered(probabilities, found)) <= log_loss(targets, probabilities) + 1e-6


def test_probabilities_of_zero_and_one_are_tempered():
    found = tempered(np.array([[1.0, 0.0], [0.5, 0.5]]), 2.0)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found[1], 0.5)


@pytest.mark.parametrize("outputs", [1, 4])
def test_a_model_with_a_temperature_gives_tempered_probabilities_and_survives_saving(outputs, tmp_path):
    inputs = keras.Input((6, 6, 3))
    network = keras.Model(inputs, keras.layers.Dense(outputs)(keras.layers.Flatten()(inputs)))
    plain = with_probabilities(network)
    warm = with_temperature(plain, 2.5)
    images = np.random.default_rng(0).normal(size=(5, 6, 6, 3)).astype("float32")
    expected = tempered(plain.predict(images, verbose=0), 2.5)
    np.testing.assert_allclose(warm.predict(images, verbose=0), expected, atol=1e-6)
    warm.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(again.predict(images, verbose=0), expected, atol=1e-6)
