"""Metrics of predictions. Names are those in the tracking store."""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

__all__ = ["area_under_roc", "epoch_metrics", "metrics_of"]


def metrics_of(targets: NDArray[np.integer], probabilities: NDArray, classes: list[str]) -> dict[str, float]:
    """All metrics of one set of predictions.

    Args:
        targets: class index of each image, shape (n,).
        probabilities: shape (n, len(classes)).
        classes: class names in the order of the columns.

    Returns:
        `accuracy`, `balanced_accuracy` (mean of the sensitivities of the classes that occur), `macro_f1` (over the
        same classes), `auc`, `log_loss`, and `sensitivity/<class>` of each class that occurs. A metric that is not
        defined (AUC with a single class) is left out.
    """
    predicted = probabilities.argmax(axis=1)
    present = np.unique(targets)
    recalls = metrics.recall_score(targets, predicted, labels=present, average=None, zero_division=0)
    found = {
        "accuracy": metrics.accuracy_score(targets, predicted),
        "balanced_accuracy": recalls.mean(),
        "macro_f1": metrics.f1_score(targets, predicted, labels=present, average="macro", zero_division=0),
        "auc": area_under_roc(targets, probabilities),
        "log_loss": _log_loss(targets, probabilities),
        **{f"sensitivity/{classes[c]}": recall for c, recall in zip(present, recalls, strict=True)},
    }
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def epoch_metrics(targets: NDArray[np.integer], probabilities: NDArray, classes: int) -> dict[str, float]:
    """`loss` (cross-entropy, whatever loss is trained on), `accuracy`, `balanced_accuracy` and `auc`."""
    named = metrics_of(targets, probabilities, [str(c) for c in range(classes)])
    return {
        "loss": named.get("log_loss", float("nan")),
        "accuracy": named["accuracy"],
        "balanced_accuracy": named["balanced_accuracy"],
        "auc": named.get("auc", float("nan")),
    }


def area_under_roc(targets: NDArray[np.integer], probabilities: NDArray) -> float:
    """Area under the ROC curve: of the second of two classes, else the mean over classes, each against the rest.

    NaN where fewer than two classes occur or a probability is not finite. A class that does not occur is not in
    the mean.
    """
    present = np.unique(targets)
    if len(present) < 2 or not np.isfinite(probabilities).all():
        return float("nan")
    if probabilities.shape[1] == 2:
        return float(metrics.roc_auc_score(targets, probabilities[:, 1]))
    return float(np.mean([metrics.roc_auc_score(targets == c, probabilities[:, c]) for c in present]))


def _log_loss(targets: NDArray[np.integer], probabilities: NDArray) -> float:
    if not np.isfinite(probabilities).all():
        return float("nan")
    with warnings.catch_warnings():
        # float32 softmax sums to 1 within 1e-6, on which scikit-learn remarks.
        warnings.simplefilter("ignore", UserWarning)
        return float(metrics.log_loss(targets, probabilities, labels=np.arange(probabilities.shape[1])))
