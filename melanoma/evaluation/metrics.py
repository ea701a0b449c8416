"""Metrics of predictions. Names are those in the tracking store."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from melanoma.evaluation.curves import curve

__all__ = ["area_under_roc", "epoch_metrics", "expected_calibration_error", "metrics_of", "problems"]

CALIBRATION_BINS = 15


def metrics_of(
    targets: NDArray[np.integer],
    probabilities: NDArray,
    classes: Sequence[str],
    views: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, float]:
    """All metrics of one set of predictions.

    Means over classes are over those that occur. A metric that is not defined is left out: AUC with a single class,
    precision of a class that is never predicted, and so on.

    Args:
        targets: class index of each image, shape (n,).
        probabilities: shape (n, len(classes)).
        classes: class names in the order of the columns.
        views: names of questions, and the classes that count as positive, as in `{"malignant": ["melanoma", ...]}`.

    Returns:
        `accuracy`, `balanced_accuracy` (mean sensitivity), `macro_f1`, `weighted_f1`, `mcc` (Gorodkin 2004), `auc`,
        `average_precision`, `log_loss`, `brier` (of two classes the mean squared error of the second's probability,
        else summed over classes, Brier 1950), `ece` (expected calibration error, see there); `sensitivity/<class>`,
        `specificity/<class>`, `precision/<class>`, `f1/<class>` and `support/<class>`; with more than two classes
        `auc/<class>` and `average_precision/<class>` against the rest; and of two classes, or as `<view>/...` of each
        view, `partial_auc`, `sensitivity_at_specificity_90` and so on: see `melanoma.evaluation.curves`.
    """
    predicted = probabilities.argmax(axis=1)
    present = np.unique(targets)
    shared: dict = {"y_true": targets, "y_pred": predicted, "labels": present}
    found = {
        "accuracy": metrics.accuracy_score(targets, predicted),
        "balanced_accuracy": metrics.recall_score(**shared, average="macro", zero_division=0),
        "macro_f1": metrics.f1_score(**shared, average="macro", zero_division=0),
        "weighted_f1": metrics.f1_score(**shared, average="weighted", zero_division=0),
        "mcc": metrics.matthews_corrcoef(targets, predicted) if len(present) > 1 else np.nan,
        **_probability_metrics(targets, probabilities),
        **_class_metrics(targets, predicted, classes),
    }
    if np.isfinite(probabilities).all():
        for prefix, (positive, scores) in problems(targets, probabilities, classes, views).items():
            for name, value in curve(positive, scores).measures().items():
                found.setdefault(f"{prefix}{name}", value[0])
        for c in present if len(present) > 1 and len(classes) > 2 else ():
            against_rest = curve(targets == c, probabilities[:, c])
            found[f"auc/{classes[c]}"] = against_rest.auc()[0]
            found[f"average_precision/{classes[c]}"] = against_rest.average_precision()[0]
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def problems(
    targets: NDArray[np.integer],
    probabilities: NDArray,
    classes: Sequence[str],
    views: Mapping[str, Sequence[str]] | None,
) -> dict[str, tuple[NDArray[np.bool_], NDArray]]:
    """The questions with two answers that predictions are asked: prefix of the metric to who is positive, and scores.

    With two classes that is the second against the first, with the prefix empty; else one for each view.
    """
    if len(classes) == 2:
        return {"": (targets == 1, probabilities[:, 1])}
    asked = {}
    for name, positives in (views or {}).items():
        columns = [i for i, label in enumerate(classes) if label in positives]
        asked[f"{name}/"] = (np.isin(targets, columns), probabilities[:, columns].sum(axis=1))
    return asked


def epoch_metrics(targets: NDArray[np.integer], probabilities: NDArray, classes: int) -> dict[str, float]:
    """`loss` (cross-entropy, whatever loss is trained on), `accuracy`, `balanced_accuracy` and `auc`."""
    predicted = probabilities.argmax(axis=1)
    present = np.unique(targets)
    recall = metrics.recall_score(targets, predicted, labels=present, average="macro", zero_division=0)
    return {
        "loss": _log_loss(targets, probabilities, classes),
        "accuracy": float(metrics.accuracy_score(targets, predicted)),
        "balanced_accuracy": float(recall),
        "auc": area_under_roc(targets, probabilities),
    }


def area_under_roc(targets: NDArray[np.integer], probabilities: NDArray) -> float:
    """Area under the ROC curve: of the second of two classes, else the mean over classes, each against the rest.

    NaN where fewer than two classes occur or a probability is not finite. A class that does not occur is not in
    the mean.
    """
    return _mean_over_classes(metrics.roc_auc_score, targets, probabilities)


def expected_calibration_error(targets: NDArray[np.integer], probabilities: NDArray) -> float:
    """Mean distance of confidence and accuracy over 15 equal bins of the predicted class's probability (Guo 2017)."""
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - hit, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(targets))


def _probability_metrics(targets: NDArray[np.integer], probabilities: NDArray) -> dict[str, float]:
    if not np.isfinite(probabilities).all():
        return {}
    classes = probabilities.shape[1]
    score = probabilities[:, 1] if classes == 2 else probabilities
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of float32 that sums to 1 within 1e-6
        brier = metrics.brier_score_loss(targets, score, labels=np.arange(classes))
    return {
        "auc": area_under_roc(targets, probabilities),
        "average_precision": _mean_over_classes(metrics.average_precision_score, targets, probabilities),
        "log_loss": _log_loss(targets, probabilities, classes),
        "brier": brier,
        "ece": expected_calibration_error(targets, probabilities),
    }


def _class_metrics(
    targets: NDArray[np.integer], predicted: NDArray[np.integer], classes: Sequence[str]
) -> dict[str, float]:
    counts = metrics.confusion_matrix(targets, predicted, labels=np.arange(len(classes)))
    hits, support, named = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    others = len(targets) - support
    with np.errstate(invalid="ignore", divide="ignore"):
        measures = {
            "sensitivity": hits / support,
            "specificity": 1 - (named - hits) / others,
            "precision": hits / named,
            "f1": np.where(support > 0, 2 * hits / (support + named), np.nan),
            "support": support.astype(float),
        }
    return {f"{name}/{label}": values[i] for name, values in measures.items() for i, label in enumerate(classes)}


def _mean_over_classes(score: object, targets: NDArray[np.integer], probabilities: NDArray) -> float:
    """A score of the second of two classes, else its mean over the classes that occur, each against the rest."""
    present = np.unique(targets)
    if len(present) < 2 or not np.isfinite(probabilities).all():
        return float("nan")
    columns = [1] if probabilities.shape[1] == 2 else present
    return float(np.mean([score(targets == c, probabilities[:, c]) for c in columns]))  # type: ignore[operator]


def _log_loss(targets: NDArray[np.integer], probabilities: NDArray, classes: int) -> float:
    if not np.isfinite(probabilities).all():
        return float("nan")
    with warnings.catch_warnings():
        # float32 softmax sums to 1 within 1e-6, on which scikit-learn remarks.
        warnings.simplefilter("ignore", UserWarning)
        return float(metrics.log_loss(targets, probabilities, labels=np.arange(classes)))
