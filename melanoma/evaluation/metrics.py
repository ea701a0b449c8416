"""Metrics of predictions.

To add a metric of all classes together, add an entry to `OVERALL`; its name is also its name in the tracking store.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from melanoma.evaluation.calibration_line import CALIBRATION_MEASURES, calibration_line
from melanoma.evaluation.curves import CURVE_MEASURES, curve
from melanoma.evaluation.predictions import Predictions

__all__ = [
    "CALIBRATION_BINS",
    "EPOCH_METRICS",
    "HEADLINES",
    "LOGGED",
    "PAIRED",
    "REPORTED",
    "Metric",
    "area_under_roc",
    "brier_scores",
    "calibration_gaps",
    "default_primary_metric",
    "epoch_metrics",
    "expected_calibration_error",
    "headlines",
    "is_error",
    "log_losses",
    "measure",
    "measured_names",
    "metric_of",
]

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Metric:
    """A metric of all classes together.

    Attributes:
        name: Name in the tracking store.
        value: Function from predictions to the value, which is NaN if it is not defined.
        higher_is_better: False for errors.
        shown: `headline` for every summary, `report` for comparisons and the model card, `detail` for the store only.
        logged: Whether MLflow shows the metric by default; the file of all metrics has every one.
        needs_both: Whether the metric is undefined if all images are of one class.
        paired: Whether the metric is used for paired comparisons of two models.
    """

    name: str
    value: Callable[[Predictions], float]
    higher_is_better: bool = True
    shown: Literal["headline", "report", "detail"] = "report"
    logged: bool = False
    needs_both: bool = False
    paired: bool = False


@cache
def _sklearn() -> Any:
    """Import scikit-learn's metrics late, so that a command refuses its arguments without a wait of a second."""
    from sklearn import metrics

    return metrics


def _macro(score: str, average: str) -> Callable[[Predictions], float]:
    def value(p: Predictions) -> float:
        return getattr(_sklearn(), score)(p.targets, p.predicted, labels=p.present, average=average, zero_division=0)

    return value


def _mcc(p: Predictions) -> float:
    return _sklearn().matthews_corrcoef(p.targets, p.predicted) if len(p.present) > 1 else np.nan


def _log_loss(p: Predictions) -> float:
    if not p.finite:
        return float("nan")
    with warnings.catch_warnings():
        # scikit-learn warns because a float32 softmax sums to 1 only within 1e-6.
        warnings.simplefilter("ignore", UserWarning)
        return float(_sklearn().log_loss(p.targets, p.probabilities, labels=np.arange(len(p.classes))))


def log_losses(p: Predictions) -> NDArray[np.float64]:
    """Return the log loss of each image, with probabilities cut off as by scikit-learn, shape (n,)."""
    kept = np.clip(p.probabilities, np.finfo(p.probabilities.dtype).eps, 1)
    return -np.log(kept[np.arange(len(p)), p.targets])


def _brier(p: Predictions) -> float:
    if not p.finite:
        return float("nan")
    classes = len(p.classes)
    score = p.probabilities[:, 1] if classes == 2 else p.probabilities
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # as above
        return float(_sklearn().brier_score_loss(p.targets, score, labels=np.arange(classes)))


def brier_scores(p: Predictions) -> NDArray[np.float64]:
    """Return the Brier score of each image: of the second of two classes, else summed over the classes, shape (n,)."""
    squares = ((p.probabilities - np.eye(len(p.classes))[p.targets]) ** 2).sum(axis=1)
    return squares / 2 if len(p.classes) == 2 else squares


def expected_calibration_error(p: Predictions) -> float:
    """Compute the mean absolute gap between confidence and accuracy in 15 equal bins (Guo et al. 2017)."""
    if not p.finite:
        return float("nan")
    bins, gaps = calibration_gaps(p)
    return float(np.abs(np.bincount(bins, weights=gaps, minlength=CALIBRATION_BINS)).sum() / len(p))


def calibration_gaps(p: Predictions) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the bin of each image by its confidence, and confidence minus whether the prediction is right, (n,)."""
    confidence = p.probabilities.max(axis=1)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return bins, confidence - (p.predicted == p.targets)


def area_under_roc(p: Predictions) -> float:
    """Compute the AUC: for the second of two classes, else the mean over classes, each against the rest.

    Classes that do not occur are left out of the mean. The result is NaN if fewer than two classes occur or a
    probability is not finite.
    """
    return _mean_over_classes(_sklearn().roc_auc_score, p)


def _average_precision(p: Predictions) -> float:
    return _mean_over_classes(_sklearn().average_precision_score, p)


def _mean_over_classes(score: Callable[..., float], p: Predictions) -> float:
    """Compute a score of the second of two classes, or its mean over the classes that occur, each against the rest."""
    if len(p.present) < 2 or not p.finite:
        return float("nan")
    columns = [1] if len(p.classes) == 2 else p.present
    return float(np.mean([score(p.targets == c, p.probabilities[:, c]) for c in columns]))


OVERALL = (
    Metric(
        "accuracy",
        lambda p: _sklearn().accuracy_score(p.targets, p.predicted),
        shown="headline",
        logged=True,
        paired=True,
    ),
    # mean sensitivity of the classes that occur
    Metric("balanced_accuracy", _macro("recall_score", "macro"), shown="headline", logged=True, paired=True),
    Metric("macro_f1", _macro("f1_score", "macro"), shown="headline", logged=True, paired=True),
    Metric("weighted_f1", _macro("f1_score", "weighted"), shown="detail"),
    Metric("mcc", _mcc, needs_both=True),  # Gorodkin 2004
    Metric("auc", area_under_roc, shown="headline", logged=True, needs_both=True, paired=True),
    Metric("average_precision", _average_precision, logged=True, needs_both=True),
    Metric("log_loss", _log_loss, higher_is_better=False, logged=True, paired=True),
    # two classes: of the second, else summed
    Metric("brier", _brier, higher_is_better=False, logged=True),
    Metric("ece", expected_calibration_error, higher_is_better=False),
)
HEADLINES = tuple(one.name for one in OVERALL if one.shown == "headline")
REPORTED = tuple(one.name for one in OVERALL if one.shown != "detail")
LOGGED = tuple(one.name for one in OVERALL if one.logged)
EPOCH_METRICS = ("loss", "accuracy", "balanced_accuracy", "auc")  # of the validation images, as `val/...`
PAIRED = tuple(one.name for one in OVERALL if one.paired)
_PARTS = ("train", "val", "validation", "test")
_CLASSWISE = ("sensitivity", "specificity", "precision", "f1", "support")
# Other metrics for which lower is better: the loss of an epoch, and metrics of an operating point.
_OTHER_ERRORS = ("loss", "referrals_per_found", "missed_per_1000")


def headlines(primary: str | None) -> tuple[str, ...]:
    """Return the metrics for every summary, the primary metric first."""
    return tuple(dict.fromkeys([*([primary] if primary else []), *HEADLINES]))


def metric_of(name: str) -> Metric | None:
    """Return the overall metric in a name such as `auc`, `test/malignant/auc` or `validation/auc/melanoma`, or None."""
    known = {one.name: one for one in OVERALL}
    first, *rest = name.split("/")
    words = rest if first in _PARTS and rest else [first, *rest]
    if words[0] in _CLASSWISE:
        return None  # the last word is the name of a class
    return known.get(words[0], known.get(words[-1]))


def is_error(name: str) -> bool:
    """Return whether lower is better for a metric, by any of its names, such as `val/loss` or `test/brier`."""
    metric = metric_of(name)
    return name.rsplit("/", 1)[-1] in _OTHER_ERRORS if metric is None else not metric.higher_is_better


def needs_both(name: str) -> bool:
    """Return whether a metric, by any of its names, is undefined if all images are positive or all are negative."""
    metric = metric_of(name)
    return (metric is not None and metric.needs_both) or any(
        word in (*CURVE_MEASURES, *CALIBRATION_MEASURES) for word in name.split("/")
    )


def default_primary_metric(classes: int, published: bool = False) -> str:
    """Return the metric that selects models unless `primary_metric` is set.

    It is the AUC for two classes (ISIC 2020) and the balanced accuracy for more (ISIC 2018 and 2019). With the
    published protocol it is the accuracy, which its studies report.
    """
    if published:
        return "accuracy"
    return "auc" if classes == 2 else "balanced_accuracy"


def measured_names(classes: Sequence[str], binary_tasks: Mapping[str, Sequence[str]]) -> set[str]:
    """Return the names of the metrics of `measure` on predictions of these classes."""
    targets = np.repeat(np.arange(len(classes)), 2)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(len(classes)), len(targets))
    # The precision is defined only if the class is predicted, so that a few random predictions may lack it.
    return set(measure(Predictions(targets, probabilities, classes, binary_tasks))) | {
        f"precision/{label}" for label in classes
    }


def measure(predictions: Predictions) -> dict[str, float]:
    """Compute all metrics of predictions.

    Means over classes include only the classes that occur. Undefined metrics are left out, such as the AUC with a
    single class, or the precision of a class that is never predicted.

    Returns:
        The metrics of `OVERALL`; `sensitivity/<class>`, `specificity/<class>`, `precision/<class>`, `f1/<class>` and
        `support/<class>`; with more than two classes, `auc/<class>` and `average_precision/<class>` against the rest;
        and `partial_auc`, `sensitivity_at_specificity_90` and so on (see `melanoma.evaluation.curves`),
        `calibration_intercept` and `calibration_slope` (see `calibration_line`) for two classes, or as `<task>/...` for
        each binary task.
    """
    p = predictions
    found = {one.name: one.value(p) for one in OVERALL} | _class_metrics(p)
    if p.finite:
        for task in p.binary:
            for name, value in curve(task.positive, task.scores).measures().items():
                found.setdefault(f"{task.prefix}{name}", value[0])
            for name, (value_of_line, _) in calibration_line(task.positive, task.scores).items():
                found[f"{task.prefix}{name}"] = value_of_line
        for c in p.present if len(p.present) > 1 and len(p.classes) > 2 else ():
            against_rest = curve(p.targets == c, p.probabilities[:, c])
            found[f"auc/{p.classes[c]}"] = against_rest.auc()[0]
            found[f"average_precision/{p.classes[c]}"] = against_rest.average_precision()[0]
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def epoch_metrics(predictions: Predictions, primary: str | None = None) -> dict[str, float]:
    """Compute the metrics of `EPOCH_METRICS`, and the primary metric if it is another.

    The loss is the cross-entropy, regardless of the training loss. An undefined metric is NaN.
    """
    values = {one.name: one.value for one in OVERALL} | {"loss": _log_loss}
    found = {name: float(values[name](predictions)) for name in EPOCH_METRICS}
    if primary is not None and primary not in found:
        found[primary] = measure(predictions).get(primary, float("nan"))
    return found


def _class_metrics(p: Predictions) -> dict[str, float]:
    counts = _sklearn().confusion_matrix(p.targets, p.predicted, labels=np.arange(len(p.classes)))
    hits, support, named = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        measures = {
            "sensitivity": hits / support,
            "specificity": 1 - (named - hits) / (len(p) - support),
            "precision": hits / named,
            "f1": np.where(support > 0, 2 * hits / (support + named), np.nan),
            "support": support.astype(float),
        }
    return {f"{name}/{label}": values[i] for name, values in measures.items() for i, label in enumerate(p.classes)}
