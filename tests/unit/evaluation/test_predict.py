"""Probabilities from a model: of one logit or several, refused where they are no numbers."""

import keras
import numpy as np
import pytest
from scipy.special import softmax

from melanoma.errors import ConfigError, ModelError
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.predict import predict_probabilities, probabilities_from_logits, size_and_latency
from melanoma.evaluation.predictions import Predictions
from melanoma.models.build import build_network, head, with_probabilities


class Pictures:
    """Stands for the store of decoded images: the same grey picture for each row."""

    size = 8

    def read(self, rows: np.ndarray) -> np.ndarray:
        return np.full((len(rows), 8, 8, 3), 128, np.uint8)


def network(image_size: int, classes: int) -> keras.Model:
    inputs = keras.Input((image_size, image_size, 3))
    return keras.Model(inputs, head(keras.layers.Flatten()(inputs), classes))


def test_two_classes_as_one_logit_or_as_two_give_the_same():
    logits = np.random.default_rng(0).normal(size=(20, 1)) * 3
    one, two = (
        probabilities_from_logits(logits),
        probabilities_from_logits(np.concatenate([0 * logits, logits], axis=1)),
    )
    np.testing.assert_allclose(one, two)
    np.testing.assert_allclose(two, softmax(np.concatenate([0 * logits, logits], axis=1), axis=1))
    targets = np.arange(20) % 2
    first, second = (measure(Predictions(targets, probabilities, ["a", "b"])) for probabilities in (one, two))
    assert first == pytest.approx(second)


def test_a_network_of_two_logits_for_two_classes_is_refused():
    def two_logits(image_size: int, classes: int) -> keras.Model:
        inputs = keras.Input((image_size, image_size, 3))
        return keras.Model(inputs, keras.layers.Dense(classes, name="head")(keras.layers.Flatten()(inputs)))

    with pytest.raises(ConfigError, match=r"2 classes must give 1 logits.*\(None, 2\)"):
        build_network(two_logits, image_size=8, classes=2, policy="float32")


@pytest.mark.parametrize("classes", [2, 3])
def test_predictions_that_are_no_numbers_are_refused(classes: int):
    model = with_probabilities(build_network(network, image_size=8, classes=classes, policy="float32"))
    assert predict_probabilities(model, Pictures(), np.arange(5), batch_size=2).shape == (5, classes)
    model.get_layer("head").bias.assign([np.nan] * (1 if classes == 2 else classes))
    with pytest.raises(ModelError, match=r"not finite numbers.*NaN for 5 of 5"):
        predict_probabilities(model, Pictures(), np.arange(5), batch_size=2)


def test_size_and_latency_are_measured():
    model = with_probabilities(build_network(network, image_size=8, classes=3, policy="float32"))
    found = size_and_latency(model, 8)
    assert found["model/megabytes"] == pytest.approx((8 * 8 * 3 * 3 + 3) * 4 / 1e6)
    assert found["model/latency_ms"] > 0
