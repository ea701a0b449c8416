"""What is said of images on which a metric says little or nothing; and that such metrics are left out, not zero."""

import numpy as np
import pandas as pd
import pytest

from melanoma.evaluation.evaluate import evaluate, predictions_of
from melanoma.evaluation.predictions import Bootstrap
from melanoma.evaluation.remarks import remark_on_groups

NAMES = ["nevus", "melanoma", "keratosis"]
BINARY_TASKS = {"melanoma": ["melanoma"]}


def evaluation(targets: list[int], probabilities: np.ndarray | None = None, names: list[str] = NAMES):
    rng = np.random.default_rng(0)
    if probabilities is None:
        probabilities = rng.dirichlet(np.ones(len(names)), len(targets))
    rows = pd.DataFrame({"target": targets, "path": [f"{i}.jpg" for i in range(len(targets))]})
    binary_tasks = BINARY_TASKS if len(names) > 2 else {}
    return evaluate("test", rows, predictions_of(rows, probabilities, names, binary_tasks), Bootstrap(30))


def test_of_good_images_nothing_is_said():
    assert evaluation([0, 1, 2] * 10).remarks == []


def test_a_class_without_images():
    found = evaluation([0, 1] * 10)
    assert found.remarks == ["No test image is of keratosis: it has no metrics, and means are over the other classes."]
    assert not {"sensitivity/keratosis", "auc/keratosis", "f1/keratosis"} & set(found.metrics)
    assert found.metrics["balanced_accuracy"] == pytest.approx(
        (found.metrics["sensitivity/nevus"] + found.metrics["sensitivity/melanoma"]) / 2
    )
    assert found.metrics["support/keratosis"] == 0


def test_classes_with_few_images():
    found = evaluation([0] * 12 + [1] + [2] * 9)
    assert found.remarks == [
        "One test image is of melanoma: its metrics are those of a single image.",
        "Some test metrics have no interval: 1 image of melanoma, where 10 are needed; 9 images of keratosis, where 10 "
        "are needed; 1 image positive for melanoma, where 10 are needed.",
    ]
    assert all(np.isfinite(value) for value in found.named_metrics().values())
    assert not {"auc", "melanoma/auc", "sensitivity/keratosis", "balanced_accuracy"} & set(found.intervals)
    assert {"accuracy", "sensitivity/nevus", "log_loss"} <= set(found.intervals)


@pytest.mark.parametrize("names", [NAMES, NAMES[:2]])
def test_constant_scores(names):
    targets = [0, 1, len(names) - 1] * 10
    found = evaluation(targets, np.full((30, len(names)), 1 / len(names)), names)
    assert found.remarks == ["All test images have the same scores: the model does not discriminate."]
    assert found.metrics["auc"] == pytest.approx(0.5)
    low, high = found.intervals["auc"]
    assert low < 0.5 < high


def test_a_binary_task_of_which_all_images_are_negative():
    found = evaluation([0, 2] * 10)
    assert found.remarks[-1] == "All test images are negative for melanoma: it is not measured."
    assert "melanoma/auc" not in found.metrics
    assert not any(np.isnan(value) for value in found.named_metrics().values())


def test_a_binary_task_of_which_all_images_are_positive():
    found = evaluation([1] * 10)
    assert found.remarks[-1] == "All test images are positive for melanoma: it is not measured."
    assert "melanoma/auc" not in found.metrics


def test_a_single_class():
    found = evaluation([1] * 10, names=NAMES[:2])
    assert found.remarks == ["No test image is of nevus: it has no metrics, and means are over the other classes."]
    assert "auc" not in found.metrics
    assert "accuracy" in found.metrics


@pytest.mark.parametrize(
    ("columns", "unknown"),
    [
        ({}, 4),
        ({"lesion": ["a", None, "b", None]}, 2),
        ({"lesion": ["a", None, "b", None], "patient": [None, "p", None, None]}, 1),
        ({"lesion": ["a", "b", "c", "c"]}, 0),
        ({"lesion": ["a", None, None, "b"], "parent": ["", "", "x", "w"]}, 1),
    ],
)
def test_images_of_which_neither_lesion_nor_patient_is_known(columns: dict, unknown: int):
    table = pd.DataFrame({"path": [*"wxyz"], "parent": "", **columns})
    delivered = (table.parent == "").sum()
    expected = f"Neither lesion nor patient is known for {unknown} of {delivered} images" if unknown else ""
    assert remark_on_groups(table).partition(", so that")[0] == expected
