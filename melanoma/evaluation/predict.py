"""Prediction of class probabilities."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from melanoma.data.images import ImageStore
from melanoma.errors import ModelError

__all__ = ["predict_probabilities", "probabilities_from_logits", "size_and_latency"]

_TIMED = 10  # calls


def probabilities_from_logits(logits: NDArray) -> NDArray[np.float64]:
    """Convert logits of shape (n, classes), or (n, 1) for two classes, to probabilities of shape (n, classes)."""
    logits = np.asarray(logits, dtype=np.float64)
    if logits.shape[1] == 1:
        positive = expit(logits)
        return np.concatenate([1 - positive, positive], axis=1)
    return softmax(logits, axis=1)


def size_and_latency(model: Any, image_size: int) -> dict[str, float]:
    """Return `model/megabytes` of the float32 weights, and `model/latency_ms`, the median time per image here."""
    image = np.zeros((1, image_size, image_size, 3), np.float32)
    model.predict_on_batch(image)  # compiles
    times = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        model.predict_on_batch(image)
        times.append(time.perf_counter() - start)
    return {"model/megabytes": model.count_params() * 4 / 1e6, "model/latency_ms": 1000 * float(np.median(times))}


def predict_probabilities(
    model: object, store: ImageStore, rows: NDArray[np.integer], *, batch_size: int
) -> NDArray[np.float64]:
    """Predict probabilities of shape (len(rows), classes) with a saved model, in the order of `rows`.

    Raises:
        ModelError: If a probability is not finite.
    """
    from melanoma.data.batches import prediction_batches

    batches = prediction_batches(store, rows, batch_size)
    probabilities = np.asarray(model.predict(batches, verbose=0), dtype=np.float64)  # type: ignore[attr-defined]
    if not np.isfinite(probabilities).all():
        raise ModelError(
            "The model's predictions are not finite numbers; it cannot be measured. Train it anew, with a lower "
            f"learning rate. Received: NaN for {int((~np.isfinite(probabilities)).any(axis=1).sum())} of {len(rows)}"
        )
    return probabilities
