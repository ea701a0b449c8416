"""Grad-CAM points at what a network looks at."""

import keras
import numpy as np
import pytest

from melanoma.evaluation.calibrated_model import with_calibration
from melanoma.evaluation.calibration import Temperature
from melanoma.evaluation.explain import grad_cam
from melanoma.models.build import head, with_probabilities

CORNERS = [(slice(0, 8), slice(0, 8)), (slice(24, 32), slice(24, 32))]


def network(classes: int, averaged: str = "none") -> keras.Model:
    """One feature map for red and one for blue; red speaks for the first class, blue for the second."""
    inputs = keras.Input((32, 32, 3))
    features = keras.layers.Conv2D(2, 4, strides=4, name="maps")(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, head(keras.layers.GlobalAveragePooling2D()(features), classes))
    kernel = np.zeros((4, 4, 3, 2), np.float32)
    kernel[:, :, 0, 0] = kernel[:, :, 2, 1] = 1
    model.get_layer("maps").set_weights([kernel, np.zeros(2)])
    weights = np.array([[-1.0], [1.0]]) if classes == 2 else np.eye(2, classes)
    model.get_layer("head").set_weights([weights, np.zeros(weights.shape[1])])
    return with_probabilities(model, averaged)


def picture() -> np.ndarray:
    image = np.zeros((32, 32, 3), np.uint8)
    image[CORNERS[0]], image[CORNERS[1]] = (255, 0, 0), (0, 0, 255)
    return image


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("averaged", ["none", "dihedral"])
def test_the_heat_is_where_the_class_asked_about_is(classes, calibrated, averaged):
    model = network(classes, averaged)
    if calibrated:
        model = with_calibration(model, Temperature(2.0))
    heat = grad_cam(model, np.stack([picture(), picture()]), np.array([0, 1]))
    assert heat.shape == (2, 8, 8)
    for one, (rows, columns) in zip(heat, CORNERS, strict=True):
        inside = np.zeros((8, 8), bool)
        inside[rows.start // 4 : rows.stop // 4, columns.start // 4 : columns.stop // 4] = True
        np.testing.assert_allclose(one[inside], 1)
        np.testing.assert_allclose(one[~inside], 0)


def test_a_class_that_nothing_speaks_for_has_no_heat():
    assert not grad_cam(network(3), picture()[None], np.array([2])).any()


def test_a_network_without_feature_maps_has_none():
    inputs = keras.Input((8, 8, 3))
    flat = keras.layers.Dense(4)(keras.layers.Flatten()(inputs))
    model = with_probabilities(keras.Model(inputs, head(flat, 3)))
    assert grad_cam(model, np.zeros((1, 8, 8, 3)), np.array([0])) is None


def test_a_network_from_elsewhere_is_not_explained():
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(inputs)))
    assert grad_cam(with_probabilities(keras.Model(inputs, outputs)), np.zeros((1, 8, 8, 3)), np.array([0])) is None


def test_a_head_that_hangs_on_more_than_the_maps_is_not_explained():
    inputs = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()
    both = keras.layers.Concatenate()([pooled(inputs), pooled(keras.layers.Conv2D(2, 3)(inputs))])
    model = with_probabilities(keras.Model(inputs, head(both, 3)))
    assert grad_cam(model, np.zeros((1, 8, 8, 3)), np.array([0])) is None
