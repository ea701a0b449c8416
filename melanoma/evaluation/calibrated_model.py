"""Calibration inside the saved model, so that whoever loads it gets calibrated probabilities."""

import keras
import numpy as np
from keras import layers

from melanoma.evaluation.calibration import LEAST, Isotonic, Temperature

__all__ = ["with_calibration"]


def with_calibration(model: keras.Model, calibration: Temperature | Isotonic) -> keras.Model:
    """A model of `with_probabilities` that gives calibrated probabilities, in layers that Keras itself knows."""
    logits = model.get_layer("probabilities").input
    if isinstance(calibration, Temperature):
        scaled = layers.Rescaling(1 / calibration.temperature, dtype="float32", name="temperature")(logits)
    else:
        scaled = _rising_curves(layers.Activation("softmax", dtype="float32")(logits), calibration)
    probabilities = layers.Activation("softmax", dtype="float32", name="probabilities")(scaled)
    return keras.Model(model.input, probabilities, name="melanoma")


def _rising_curves(probabilities: keras.KerasTensor, calibration: Isotonic) -> keras.KerasTensor:
    """The logarithm of each class's curve: straight pieces, each a hinge that bends the slope at its knot."""
    values, knots = calibration.values, calibration.knots[:-1]
    classes, pieces = len(values), len(knots)
    bends = np.diff(np.diff(values) / np.diff(calibration.knots), axis=1, prepend=0)
    hinges = layers.Dense(classes * pieces, "relu", dtype="float32", name="isotonic_knots", trainable=False)
    heights = layers.Dense(classes, dtype="float32", name="isotonic_curves", trainable=False)
    risen = heights(hinges(probabilities))
    own = np.eye(classes)
    hinges.set_weights([np.kron(own, np.ones(pieces)), np.tile(-knots, classes)])
    heights.set_weights([np.kron(own, np.ones((pieces, 1))) * bends.reshape(-1, 1), values[:, 0]])
    return keras.ops.log(keras.ops.maximum(risen, 0.0) + LEAST)
