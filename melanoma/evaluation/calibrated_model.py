"""Calibration as part of the saved model, so that the model returns calibrated probabilities."""

import keras
import numpy as np
from keras import layers

from melanoma.evaluation.calibration import LEAST, Isotonic, Recalibration, Temperature

__all__ = ["with_calibration"]


def with_calibration(model: keras.Model, calibration: Temperature | Isotonic | Recalibration) -> keras.Model:
    """Add calibration to a model of `with_probabilities`, using only built-in Keras layers."""
    logits = model.get_layer("probabilities").input
    if isinstance(calibration, Temperature):
        scaled = layers.Rescaling(1 / calibration.temperature, dtype="float32", name="temperature")(logits)
    elif isinstance(calibration, Recalibration):
        # A model can be recalibrated again, and the names of layers must differ.
        name, shifts = f"recalibration_{len(model.layers)}", calibration.intercepts.tolist()
        scaled = layers.Rescaling(calibration.slope, shifts, dtype="float32", name=name)(logits)
    else:
        scaled = _rising_curves(layers.Activation("softmax", dtype="float32")(logits), calibration)
    probabilities = layers.Activation("softmax", dtype="float32", name="probabilities")(scaled)
    return keras.Model(model.input, probabilities, name="melanoma")


def _rising_curves(probabilities: keras.KerasTensor, calibration: Isotonic) -> keras.KerasTensor:
    """Return the logarithm of each class's piecewise linear curve, built from hinges that bend at the knots."""
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
