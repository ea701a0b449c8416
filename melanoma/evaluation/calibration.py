"""Calibration of probabilities, so that they match observed frequencies, fitted on validation images."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp, softmax
from sklearn.isotonic import IsotonicRegression

__all__ = ["Isotonic", "Recalibration", "Temperature", "fit_calibration", "fit_recalibration"]

_LOWEST, _HIGHEST = 0.05, 20.0
_KNOTS = 101
_SLOPE_SPREAD, _INTERCEPT_SPREAD = 0.5, 2.0  # standard deviations of the prior of a recalibration
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


@dataclass(frozen=True)
class Recalibration:
    """Logits times a slope plus an intercept for each class, for images of another site.

    For two classes this is logistic recalibration (Cox 1958; Steyerberg et al. 2004), for more it is temperature
    scaling with corrected bias (Alexandari, Kundaje & Shrikumar 2020).

    Attributes:
        slope: Above 0; below 1 for a model that is overconfident at the new site.
        intercepts: Intercept of each class with a sum of 0, above 0 for a class that is more frequent than the
            probabilities say.
    """

    slope: float
    intercepts: NDArray[np.float64]

    def applied(self, probabilities: NDArray) -> NDArray[np.float64]:
        """Return recalibrated probabilities of the same shape."""
        return softmax(self.slope * _logs(probabilities) + self.intercepts, axis=1)


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


def fit_recalibration(targets: NDArray[np.integer], probabilities: NDArray) -> Recalibration:
    """Fit slope and intercepts by minimum log loss, with a weak prior at no change, which matters for few images.

    Args:
        targets: Class index of each image of the new site, shape (n,).
        probabilities: Predicted probabilities, shape (n, classes).
    """
    logs, rows = _logs(probabilities), np.arange(len(targets))
    # Without the mean of each image, the slope and the intercepts depend on each other less.
    logs -= logs.mean(axis=1, keepdims=True)

    def loss(parameters: NDArray) -> tuple[float, NDArray]:
        slope, intercepts = np.exp(parameters[0]), parameters[1:]
        scaled = slope * logs + intercepts
        wrong = softmax(scaled, axis=1)
        value = float((logsumexp(scaled, axis=1) - scaled[rows, targets]).sum())
        wrong[rows, targets] -= 1
        gradient = np.r_[slope * (wrong * logs).sum(), wrong.sum(axis=0)]
        spread = np.r_[_SLOPE_SPREAD, np.full(len(intercepts), _INTERCEPT_SPREAD)]
        return value + float(((parameters / spread) ** 2).sum()) / 2, gradient + parameters / spread**2

    found = minimize(loss, np.zeros(1 + probabilities.shape[1]), jac=True, method="L-BFGS-B")
    return Recalibration(float(np.exp(found.x[0])), found.x[1:] - found.x[1:].mean())


def _rising(scores: NDArray, positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    regression = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, positive)
    return regression.predict(np.linspace(0, 1, _KNOTS))


def _logs(probabilities: NDArray) -> NDArray[np.float64]:
    return np.log(np.clip(probabilities.astype(np.float64), 1e-30, 1))
