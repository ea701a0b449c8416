"""Calibration of probabilities, so that they match observed frequencies, fitted on validation images."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.isotonic import IsotonicRegression

__all__ = ["Isotonic", "Temperature", "fit_calibration"]

_LOWEST, _HIGHEST = 0.05, 20.0
_KNOTS = 101
LEAST = 1e-6  # added to every calibrated value, so that none is zero


@dataclass(frozen=True)
class Temperature:
    """Temperature scaling (Guo et al. 2017): logits divided by a number, which is above 1 for an overconfident model.

    Predicted classes do not change.
    """

    temperature: float

    def applied(self, probabilities: NDArray) -> NDArray[np.float64]:
        """Return calibrated probabilities of the same shape."""
        scaled = _logs(probabilities) / self.temperature
        return np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True))


@dataclass(frozen=True)
class Isotonic:
    """Isotonic regression of each class's probability, normalized to a sum of one (Zadrozny & Elkan 2002).

    Attributes:
        values: Calibrated value of each class, from 0 to 1, at 101 equally spaced probabilities, shape (classes, 101),
            with linear interpolation between them.
    """

    values: NDArray[np.float64]

    @property
    def knots(self) -> NDArray[np.float64]:
        """Probabilities at which `values` are given."""
        return np.linspace(0, 1, self.values.shape[1])

    def applied(self, probabilities: NDArray) -> NDArray[np.float64]:
        """Return calibrated probabilities of the same shape."""
        curves = [np.interp(p, self.knots, v) for p, v in zip(probabilities.T, self.values, strict=True)]
        risen = np.stack(curves, axis=1) + LEAST
        return risen / risen.sum(axis=1, keepdims=True)


def fit_calibration(
    kind: Literal["temperature", "isotonic"], targets: NDArray[np.integer], probabilities: NDArray
) -> Temperature | Isotonic:
    """Fit a calibration by minimum log loss (temperature, from 0.05 to 20) or least squares (isotonic).

    Args:
        kind: Kind of calibration.
        targets: Class index of each validation image, shape (n,).
        probabilities: Predicted probabilities, shape (n, classes).
    """
    if kind == "isotonic":
        return Isotonic(np.stack([_rising(probabilities[:, c], targets == c) for c in range(probabilities.shape[1])]))
    logs, rows = _logs(probabilities), np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        return float(np.mean(logsumexp(scaled, axis=1) - scaled[rows, targets]))

    found = minimize_scalar(loss, bounds=(np.log(_LOWEST), np.log(_HIGHEST)), method="bounded")
    return Temperature(float(np.exp(found.x)))


def _rising(scores: NDArray, positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    regression = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, positive)
    return regression.predict(np.linspace(0, 1, _KNOTS))


def _logs(probabilities: NDArray) -> NDArray[np.float64]:
    return np.log(np.clip(probabilities.astype(np.float64), 1e-30, 1))
