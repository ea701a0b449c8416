"""Prediction of class probabilities."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from melanoma.data.images import ImageStore
from melanoma.errors import ModelError
from melanoma.evaluation.out_of_distribution import OodDetector

__all__ = [
    "predict_probabilities",
    "predict_scored",
    "predict_with_features",
    "probabilities_from_logits",
    "size_and_latency",
]

_TIMED = 10  # calls
_AT_ONCE = 8192  # images


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
    return _finite(_predicted(model, store, rows, batch_size))


def predict_with_features(
    model: object, store: ImageStore, rows: NDArray[np.integer], *, batch_size: int
) -> tuple[NDArray[np.float64], list[NDArray]]:
    """Predict the probabilities and the features of images with a model of `with_features`, in the order of `rows`.

    Raises:
        ModelError: If a probability is not finite.
    """
    probabilities, *features = _predicted(model, store, rows, batch_size)
    return _finite(probabilities), features


def predict_scored(
    model: object, detector: OodDetector | None, store: ImageStore, rows: NDArray[np.integer], *, batch_size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Predict the probabilities and the out-of-distribution scores of images, in the order of `rows`.

    Args:
        model: Model of `with_features`.
        detector: Detector; None for no scores.
        store: Decoded images.
        rows: Rows of the store.
        batch_size: Images per batch.

    Raises:
        ModelError: If a probability is not finite.
    """
    probabilities, scores = [], []
    images = batch_size * max(1, _AT_ONCE // batch_size)
    for start in range(0, len(rows), images):  # because the features of all images may not fit into memory
        part = rows[start : start + images]
        predicted, features = predict_with_features(model, store, part, batch_size=batch_size)
        probabilities.append(predicted)
        if detector is not None:
            scores.append(detector.scores(features))
    return np.concatenate(probabilities), np.concatenate(scores) if scores else None


def _predicted(model: Any, store: ImageStore, rows: NDArray[np.integer], batch_size: int) -> Any:
    from melanoma.data.batches import prediction_batches

    return model.predict(prediction_batches(store, rows, batch_size), verbose=0)


def _finite(probabilities: NDArray) -> NDArray[np.float64]:
    wrong = ~np.isfinite(probabilities).all(axis=1)
    if wrong.any():
        raise ModelError(
            "The model's predictions are not finite numbers; it cannot be measured. Train it anew, with a lower "
            f"learning rate. Received: NaN for {wrong.sum()} of {len(wrong)}"
        )
    return probabilities.astype(np.float64)
