"""Temperature scaling: one number, fitted on validation, that makes probabilities say how often they are right."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

__all__ = ["fitted_temperature", "tempered"]

_LOWEST, _HIGHEST = 0.05, 20.0


def fitted_temperature(targets: NDArray[np.integer], probabilities: NDArray) -> float:
    """The temperature of least log loss (Guo et al. 2017), from 0.05 to 20; above 1 the model was too sure.

    Args:
        targets: class index of each validation image, shape (n,).
        probabilities: shape (n, classes).
    """
    logs = _logs(probabilities)
    rows = np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        return float(np.mean(logsumexp(scaled, axis=1) - scaled[rows, targets]))

    found = minimize_scalar(loss, bounds=(np.log(_LOWEST), np.log(_HIGHEST)), method="bounded")
    return float(np.exp(found.x))


def tempered(probabilities: NDArray, temperature: float) -> NDArray[np.float64]:
    """Probabilities with their logits divided by a temperature."""
    scaled = _logs(probabilities) / temperature
    return np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True))


def _logs(probabilities: NDArray) -> NDArray[np.float64]:
    return np.log(np.clip(probabilities.astype(np.float64), 1e-30, 1))
