"""Metrics against tables worked out by hand and against scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.special import expit
from sklearn import metrics as sk

from melanoma.evaluation.calibration_line import CALIBRATION_MEASURES
from melanoma.evaluation.curves import CURVE_MEASURES
from melanoma.evaluation.evaluate import confusion_json, evaluate, normalized, predictions_of, predictions_table
from melanoma.evaluation.metrics import (
    HEADLINES,
    OVERALL,
    PAIRED,
    REPORTED,
    Metric,
    area_under_roc,
    brier_scores,
    epoch_metrics,
    is_error,
    log_losses,
    measure,
    metric_of,
    needs_both,
)
from melanoma.evaluation.predict import probabilities_from_logits
from melanoma.evaluation.predictions import Bootstrap, Predictions

AT = [("sensitivity", "specificity"), ("specificity", "sensitivity")]


def predicting(table: list[list[int]], sure: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Targets and probabilities that give a confusion table, rows true and columns predicted."""
    cells = [(i, j) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]
    targets, predicted = np.array(cells).T
    others = (1 - sure) / (len(table) - 1)
    return targets, np.where(np.eye(len(table))[predicted] == 1, sure, others)


def random_predictions(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.r_[np.arange(classes), rng.integers(0, classes, n - classes)]
    logits = rng.normal(size=(n, classes)) + 1.2 * np.eye(classes)[targets]
    return targets, probabilities_from_logits(logits)


def test_a_binary_table_by_hand():
    # 50 benign of which 40 are found, 20 malignant of which 15 are found.
    targets, probabilities = predicting([[40, 10], [5, 15]])
    found = measure(Predictions(targets, probabilities, ["benign", "malignant"]))
    expected = {
        "accuracy": 55 / 70,
        "balanced_accuracy": (0.8 + 0.75) / 2,
        "macro_f1": (80 / (80 + 10 + 5) + 30 / (30 + 10 + 5)) / 2,
        "auc": (0.8 + 0.75) / 2,
        "log_loss": -(55 * np.log(0.8) + 15 * np.log(0.2)) / 70,
        "weighted_f1": (50 * 80 / 95 + 20 * 30 / 45) / 70,
        "mcc": (15 * 40 - 10 * 5) / np.sqrt(25 * 20 * 50 * 45),
        "brier": (55 * 0.2**2 + 15 * 0.8**2) / 70,
        "ece": 0.8 - 55 / 70,
        # The curve has one point between its ends: 15 of 20 found at 10 of 50 false alarms.
        "average_precision": 0.75 * 15 / 25 + 0.25 * 20 / 70,
        "partial_auc": 0.2 * (1 - (0.2 + 0.8 * 0.05 / 0.25 + 1) / 2),
        "sensitivity_at_specificity_90": 0.0,
        "sensitivity_at_specificity_95": 0.0,
        "specificity_at_sensitivity_90": 0.0,
        "specificity_at_sensitivity_95": 0.0,
        # Two probabilities, 0.8 (odds of 4) and 0.2, at which the odds of the outcome are 15 to 10 and 5 to 40.
        "calibration_slope": np.log((15 / 10) / (5 / 40)) / np.log(16),
        "calibration_intercept": brentq(lambda a: 25 * expit(a + np.log(4)) + 45 * expit(a - np.log(4)) - 20, -5, 5),
        "sensitivity/benign": 0.8,
        "sensitivity/malignant": 0.75,
        "specificity/benign": 0.75,
        "specificity/malignant": 0.8,
        "precision/benign": 40 / 45,
        "precision/malignant": 15 / 25,
        "f1/benign": 80 / 95,
        "f1/malignant": 30 / 45,
        "support/benign": 50,
        "support/malignant": 20,
    }
    assert found == pytest.approx(expected)
    assert all(type(value) is float for value in found.values())


def test_a_table_of_three_classes_by_hand():
    targets, probabilities = predicting([[6, 2, 2], [0, 5, 0], [1, 1, 3]])
    found = measure(Predictions(targets, probabilities, ["a", "b", "c"]))
    sensitivities = [0.6, 1.0, 0.6]
    f1 = [2 * 6 / (10 + 7), 2 * 5 / (5 + 8), 2 * 3 / (5 + 5)]
    assert found["accuracy"] == pytest.approx(14 / 20)
    assert found["balanced_accuracy"] == pytest.approx(np.mean(sensitivities))
    assert found["macro_f1"] == pytest.approx(np.mean(f1))
    assert [found[f"sensitivity/{c}"] for c in "abc"] == pytest.approx(sensitivities)


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_metrics_equal_those_of_scikit_learn(classes):
    targets, probabilities = random_predictions(300, classes)
    predicted, names = probabilities.argmax(axis=1), [f"class {c}" for c in range(classes)]
    given = Predictions(targets, probabilities, names)
    found = measure(given)
    scores = probabilities[:, 1] if classes == 2 else probabilities
    one_hot = np.eye(classes)[targets]
    expected = {
        "weighted_f1": sk.f1_score(targets, predicted, average="weighted"),
        "mcc": sk.matthews_corrcoef(targets, predicted),
        "average_precision": sk.average_precision_score(one_hot[:, 1:] if classes == 2 else one_hot, scores),
        "brier": ((probabilities - one_hot) ** 2).sum(axis=1).mean() / (2 if classes == 2 else 1),
        "accuracy": sk.accuracy_score(targets, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(targets, predicted),
        "macro_f1": sk.f1_score(targets, predicted, average="macro"),
        "auc": sk.roc_auc_score(targets, scores, multi_class="ovr", average="macro"),
        "log_loss": sk.log_loss(targets, probabilities),
    }
    for c, name in enumerate(names):
        alone: dict = {"labels": [c], "average": "macro"}
        expected[f"sensitivity/{name}"] = sk.recall_score(targets, predicted, **alone)
        expected[f"specificity/{name}"] = sk.recall_score(targets != c, predicted != c)
        expected[f"precision/{name}"] = sk.precision_score(targets, predicted, **alone)
        expected[f"f1/{name}"] = sk.f1_score(targets, predicted, **alone)
        expected[f"support/{name}"] = (targets == c).sum()
        if classes > 2:
            expected[f"auc/{name}"] = sk.roc_auc_score(targets == c, probabilities[:, c])
            expected[f"average_precision/{name}"] = sk.average_precision_score(targets == c, probabilities[:, c])
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    others = {"ece", "partial_auc", *CALIBRATION_MEASURES, *(f"{a}_at_{b}_{n}" for a, b in AT for n in (90, 95))}
    assert set(found) - set(expected) == (others if classes == 2 else {"ece"})
    assert epoch_metrics(given) == pytest.approx(
        {"loss": found["log_loss"], **{name: found[name] for name in ("accuracy", "balanced_accuracy", "auc")}}
    )


@pytest.mark.parametrize(("scores", "auc"), [([0.1, 0.4, 0.35, 0.8], 0.75), ([0.5] * 4, 0.5), ([1, 1, 0, 0], 0.0)])
def test_binary_auc_by_hand(scores, auc):
    scores = np.array(scores, float)
    given = Predictions(np.array([0, 0, 1, 1]), np.stack([1 - scores, scores], axis=1), ["a", "b"])
    assert area_under_roc(given) == auc


def test_a_class_that_does_not_occur_is_in_no_mean():
    targets, probabilities = random_predictions(200, 4)
    kept = targets != 2
    targets, probabilities = targets[kept], probabilities[kept]
    predicted = probabilities.argmax(axis=1)
    assert 2 in predicted
    found = measure(Predictions(targets, probabilities, list("abcd")))
    recalls = [(predicted[targets == c] == c).mean() for c in (0, 1, 3)]
    assert "sensitivity/c" not in found
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(targets, predicted, labels=[0, 1, 3], average="macro"))
    aucs = [sk.roc_auc_score(targets == c, probabilities[:, c]) for c in (0, 1, 3)]
    assert found["auc"] == pytest.approx(np.mean(aucs))


@pytest.mark.parametrize("classes", [2, 3])
def test_with_a_single_class_there_is_no_auc(classes):
    probabilities = np.full((4, classes), 1 / classes)
    probabilities[:3, 1] += 0.1
    given = Predictions(np.ones(4, int), probabilities, list("abc")[:classes])
    found = measure(given)
    undefined = ("auc", "average_precision", "_at_", "mcc")
    assert not [name for name in found if any(word in name for word in undefined)]
    assert {name for name in found if name.startswith("sensitivity")} == {"sensitivity/b"}
    assert found["accuracy"] == found["sensitivity/b"] == 0.75
    assert np.isnan(area_under_roc(given))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_probabilities_that_are_no_numbers_have_no_auc_and_no_loss(value):
    targets, probabilities = random_predictions(30, 3)
    probabilities[4] = value
    given = Predictions(targets, probabilities, list("abc"))
    found = measure(given)
    assert not {"auc", "log_loss"} & set(found)
    assert 0 < found["accuracy"] < 1
    epoch = epoch_metrics(given)
    assert np.isnan([epoch["loss"], epoch["auc"]]).all()
    assert epoch["accuracy"] == found["accuracy"]


def test_probabilities_from_logits():
    logits = np.array([[0.0], [np.log(3)], [-1000.0], [1000.0]], "float32")
    np.testing.assert_allclose(
        probabilities_from_logits(logits), [[0.5, 0.5], [0.25, 0.75], [1, 0], [0, 1]], rtol=1e-6, atol=1e-12
    )
    many = probabilities_from_logits(np.log([[1.0, 2, 5], [1e-300, 1, 1]]))
    np.testing.assert_allclose(many, [[0.125, 0.25, 0.625], [0, 0.5, 0.5]], atol=1e-12)
    assert many.dtype == np.float64


def evaluation(table: list[list[int]], part: str = "test"):
    targets, probabilities = predicting(table)
    classes = list("abcdefghi")[: len(table)]
    rows = pd.DataFrame(
        {"path": [f"{i}.jpg" for i in range(len(targets))], "part": part, "target": targets,
         "label": [classes[t] for t in targets], "row": range(len(targets))}
    )  # fmt: skip
    return evaluate(part, rows, predictions_of(rows, probabilities, classes, {}), Bootstrap(20, 0.9))


def test_an_evaluation_holds_its_confusion_matrix_and_names_its_metrics():
    table = [[6, 2, 2], [0, 0, 0], [1, 1, 3]]
    found = evaluation(table)
    assert found.confusion.tolist() == table
    named = found.named_metrics()
    assert named["test/accuracy"] == pytest.approx(9 / 15)
    assert named["test/accuracy_ci_low"] <= named["test/accuracy"] <= named["test/accuracy_ci_high"]
    assert "test/sensitivity/b" not in named
    assert all(name.startswith("test/") for name in named)


def test_confusion_as_shares_of_the_true_class():
    table = [[6, 2, 2], [0, 0, 0], [1, 1, 3]]
    shares = [[0.6, 0.2, 0.2], [0, 0, 0], [0.2, 0.2, 0.6]]
    np.testing.assert_allclose(normalized(np.array(table)), shares)
    as_json = confusion_json([evaluation(table, "validation"), evaluation([[1, 0], [1, 1]])])
    assert as_json["validation"] == {"counts": table, "normalized": shares}
    assert as_json["test"] == {"counts": [[1, 0], [1, 1]], "normalized": [[1, 0], [0.5, 0.5]]}


def test_the_table_of_predictions_has_a_row_an_image():
    evaluations = [evaluation([[2, 1], [0, 1]], "validation"), evaluation([[1, 0], [1, 1]])]
    table = predictions_table(evaluations)
    assert list(table) == ["path", "part", "label", "predicted", "probability/a", "probability/b"]
    assert table.part.tolist() == ["validation"] * 4 + ["test"] * 3
    assert table.predicted.tolist() == ["a", "a", "b", "b", "a", "a", "b"]
    np.testing.assert_allclose(table[["probability/a", "probability/b"]].sum(axis=1), 1)
    assert (table["probability/b"] > 0.5).tolist() == (table.predicted == "b").tolist()


def test_a_binary_task_of_several_classes_has_metrics_of_its_own():
    targets, probabilities = random_predictions(200, 4)
    binary_tasks = {"malignant": ["a", "d"], "melanoma": ["d"]}
    found = measure(Predictions(targets, probabilities, list("abcd"), binary_tasks))
    positive, score = np.isin(targets, [0, 3]), probabilities[:, [0, 3]].sum(axis=1)
    assert found["malignant/auc"] == pytest.approx(sk.roc_auc_score(positive, score))
    assert found["malignant/average_precision"] == pytest.approx(sk.average_precision_score(positive, score))
    assert found["melanoma/auc"] == found["auc/d"]
    assert "partial_auc" not in found
    assert "melanoma/specificity_at_sensitivity_95" in found


def test_a_binary_task_without_positives_has_no_metrics():
    targets, probabilities = random_predictions(60, 3)
    kept = targets != 2
    found = measure(Predictions(targets, probabilities, list("abc"), {"melanoma": ["c"]}).where(kept))
    assert not [name for name in found if name.startswith("melanoma/")]


def test_calibration_error_by_hand():
    # Two bins: ten images at 0.75 of which 5 are right, ten at 0.95 of which 9 are.
    confidence = np.repeat([0.75, 0.95], 10)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    targets = np.r_[np.zeros(5), np.ones(5), np.zeros(9), np.ones(1)].astype(int)
    assert measure(Predictions(targets, probabilities, ["a", "b"]))["ece"] == pytest.approx((0.25 + 0.05) / 2)


def test_a_class_that_is_never_predicted_has_no_precision():
    targets, probabilities = predicting([[5, 0, 1], [2, 0, 3], [0, 0, 4]])
    found = measure(Predictions(targets, probabilities, list("abc")))
    assert "precision/b" not in found
    assert found["sensitivity/b"] == found["f1/b"] == 0


def test_constant_scores_tell_nothing():
    targets = np.array([0, 0, 0, 1, 1])
    found = measure(Predictions(targets, np.full((5, 2), 0.5), ["a", "b"]))
    assert found["auc"] == 0.5
    assert found["average_precision"] == pytest.approx(0.4)
    assert found["sensitivity_at_specificity_90"] == 0
    assert found["mcc"] == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auc", "auc"),
        ("test/malignant/auc", "auc"),
        ("validation/auc/melanoma", "auc"),
        ("val/balanced_accuracy", "balanced_accuracy"),
        ("test/abstention/accuracy", "accuracy"),
        ("test/brier", "brier"),
        ("external/isic/log_loss", "log_loss"),
        ("val/loss", None),
        ("malignant/partial_auc", None),
        ("sensitivity_at_specificity_90", None),
        ("test/sensitivity/melanoma", None),
        ("test/operating_point/malignant/missed_per_1000", None),
        ("test/auc_ci_low", None),
        ("", None),
    ],
)
def test_the_metric_behind_a_name(name, expected):
    found = metric_of(name)
    assert (found and found.name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loss", True),
        ("val/loss", True),
        ("train/loss", True),
        ("log_loss", True),
        ("validation/log_loss", True),
        ("test/brier", True),
        ("test/calibrated/ece", True),
        ("test/operating_point/malignant/missed_per_1000", True),
        ("validation/operating_point/malignant/referrals_per_found", True),
        ("test/operating_point/malignant/sensitivity", False),
        ("val/accuracy", False),
        ("val/auc", False),
        ("test/malignant/auc", False),
        ("validation/auc/melanoma", False),
        ("malignant/partial_auc", False),
        ("sensitivity_at_specificity_90", False),
        ("test/mcc", False),
    ],
)
def test_of_an_error_less_is_better(name, expected):
    assert is_error(name) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auc", True),
        ("test/malignant/auc", True),
        ("validation/auc/melanoma", True),
        ("average_precision/melanoma", True),
        ("malignant/partial_auc", True),
        ("sensitivity_at_specificity_90", True),
        ("test/malignant/specificity_at_sensitivity_95", True),
        ("accuracy", False),
        ("val/loss", False),
        ("test/brier", False),
        ("test/sensitivity/melanoma", False),
        ("test/operating_point/malignant/missed_per_1000", False),
        ("test/operating_point/malignant/sensitivity", False),
    ],
)
def test_curves_need_positives_and_negatives(name, expected):
    assert needs_both(name) is expected


def test_what_needs_positives_and_negatives_is_missing_where_there_is_one_class_and_else_there():
    targets, probabilities = random_predictions(80, 3)
    given = Predictions(targets, probabilities, list("abc"), {"malignant": ["b", "c"]})
    everything, one_class = measure(given), measure(given.where(targets == 1))
    assert {f"malignant/{name}" for name in CURVE_MEASURES} <= set(everything)
    assert not [name for name in one_class if needs_both(name) and not name.endswith("average_precision")]
    # Of positives alone the precision is 1 at every threshold.
    assert {name for name in one_class if needs_both(name)} <= {"malignant/average_precision"}


def test_lists_of_metrics_are_those_of_the_one_list():
    assert HEADLINES == ("accuracy", "balanced_accuracy", "macro_f1", "auc")
    assert REPORTED == (
        "accuracy", "balanced_accuracy", "macro_f1", "mcc", "auc", "average_precision", "log_loss", "brier", "ece",
    )  # fmt: skip
    assert PAIRED == ("accuracy", "balanced_accuracy", "macro_f1", "auc", "log_loss")
    assert len({one.name for one in OVERALL}) == len(OVERALL)
    for one in OVERALL:
        assert metric_of(f"test/{one.name}") is one
        assert is_error(f"test/{one.name}") is not one.higher_is_better
        assert needs_both(f"test/{one.name}") is one.needs_both


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_errors_of_images_have_the_metric_as_their_mean(classes, kind):
    targets, probabilities = random_predictions(240, classes)
    probabilities[0] = np.eye(classes)[(targets[0] + 1) % classes]  # as wrong as can be
    given = Predictions(targets, probabilities.astype(kind), list("abcd")[:classes])
    found = measure(given)
    assert log_losses(given).mean() == pytest.approx(found["log_loss"], rel=1e-5)
    assert brier_scores(given).mean() == pytest.approx(found["brier"], rel=1e-5)


@pytest.mark.parametrize(("classes", "absent"), [(2, None), (4, None), (4, 2), (3, 0), (2, 1)])
@pytest.mark.parametrize("metric", OVERALL, ids=lambda metric: metric.name)
def test_a_metric_is_a_number_where_it_is_defined(metric: Metric, classes, absent):
    targets, probabilities = random_predictions(240, classes)
    given = Predictions(targets, probabilities, list("abcd")[:classes]).where(targets != absent)
    assert np.isfinite(metric.value(given)) == (len(given.present) > 1 or not metric.needs_both)
