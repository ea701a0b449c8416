"""Metrics per lesion and per patient, by hand, and their intervals for lesions of several images."""

import numpy as np
import pandas as pd
import pytest

from melanoma.evaluation.levels import measure_levels, per_lesion, per_patient
from melanoma.evaluation.operating_point import OperatingPoint
from melanoma.evaluation.predictions import Bootstrap, Predictions

CLASSES = ["benign", "malignant"]
NONE = Bootstrap(resamples=0)


def of_scores(scores: list[float], targets: list[int]) -> Predictions:
    scores = np.array(scores)
    return Predictions(np.array(targets), np.stack([1 - scores, scores], axis=1), CLASSES)


def test_a_lesion_has_the_mean_of_its_images_and_an_unknown_one_is_alone():
    rows = pd.DataFrame({"lesion": ["a", "a", "b", None, None]})
    found = per_lesion(rows, of_scores([0.2, 0.6, 0.9, 0.5, 0.1], [0, 0, 1, 1, 0]))
    np.testing.assert_allclose(found.probabilities[:, 1], [0.4, 0.9, 0.5, 0.1])
    assert found.targets.tolist() == [0, 1, 1, 0]


def test_a_lesion_with_two_labels_is_left_out():
    rows = pd.DataFrame({"lesion": ["a", "a", "b", "b"]})
    found = per_lesion(rows, of_scores([0.2, 0.6, 0.9, 0.7], [0, 1, 1, 1]))
    np.testing.assert_allclose(found.probabilities[:, 1], [0.8])


def test_a_patient_is_positive_if_an_image_is_and_has_the_highest_score():
    rows = pd.DataFrame({"patient": ["p", "p", "q", "q", None]})
    ((task, found),) = per_patient(rows, of_scores([0.2, 0.6, 0.9, 0.7, 0.3], [1, 0, 0, 0, 0]))
    assert task.name == "malignant"
    np.testing.assert_allclose(found.probabilities[:, 1], [0.6, 0.9, 0.3])
    assert found.targets.tolist() == [1, 0, 0]


def test_measures_have_the_level_in_their_names():
    rows = pd.DataFrame({"lesion": ["a", "a", "b", "c"], "patient": ["p", "p", "p", "q"]})
    point = OperatingPoint("malignant", 0.5, "fixed")
    metrics, intervals = measure_levels(rows, of_scores([0.9, 0.3, 0.2, 0.4], [1, 1, 0, 0]), [point], NONE)
    assert intervals == {}
    assert metrics["per_lesion/lesions"] == 3
    assert metrics["per_lesion/accuracy"] == 1  # of the images, one of four is wrong
    assert metrics["per_lesion/operating_point/malignant/sensitivity"] == 1
    assert metrics["per_patient/patients"] == 2
    assert metrics["per_patient/auc"] == 1
    assert metrics["per_patient/operating_point/malignant/specificity"] == 1
    assert "per_patient/accuracy" not in metrics


@pytest.mark.parametrize("rows", [{}, {"lesion": ["a", "b", "c"]}, {"lesion": [None] * 3, "patient": ["x", "y", None]}])
def test_nothing_is_measured_where_no_lesion_or_patient_has_several_images(rows):
    table = pd.DataFrame(rows, index=range(3))
    assert measure_levels(table, of_scores([0.1, 0.2, 0.9], [0, 0, 1]), [], NONE) == ({}, {})


def test_several_tasks_of_several_classes():
    rows = pd.DataFrame({"patient": ["p", "p", "q"]})
    probabilities = np.array([[0.6, 0.3, 0.1], [0.1, 0.5, 0.4], [0.2, 0.2, 0.6]])
    predictions = Predictions(
        np.array([0, 1, 2]), probabilities, ["nv", "mel", "bcc"], {"malignant": ["mel", "bcc"], "mel": ["mel"]}
    )
    found = {task.name: one for task, one in per_patient(rows, predictions)}
    np.testing.assert_allclose(found["malignant"].probabilities[:, 1], [0.9, 0.8])
    np.testing.assert_allclose(found["mel"].probabilities[:, 1], [0.5, 0.2])
    assert found["mel"].targets.tolist() == [1, 0]


def test_intervals_per_lesion_are_wider_than_those_of_as_many_single_images():
    """Lesions of one patient depend on each other."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 4)
    targets = np.repeat(rng.integers(0, 2, 40), 4)
    scores = np.clip(0.5 + 0.2 * (targets - 0.5) + 0.15 * np.repeat(rng.normal(size=40), 4), 0.01, 0.99)
    rows = pd.DataFrame({"lesion": np.arange(160) // 2})
    widths = []
    for groups in (None, patients):
        predictions = Predictions(targets, np.stack([1 - scores, scores], axis=1), CLASSES, groups=groups)
        _, intervals = measure_levels(rows, predictions, [], Bootstrap(20))
        low, high = intervals["per_lesion/auc"]
        widths.append(high - low)
    assert widths[1] > 1.3 * widths[0]


def test_lesions_that_all_have_several_labels_are_not_measured():
    rows = pd.DataFrame({"lesion": ["a", "a", "b", "b"]})
    assert per_lesion(rows, of_scores([0.2, 0.6, 0.9, 0.7], [0, 1, 1, 0])) is None
    metrics, _ = measure_levels(
        pd.DataFrame({"lesion": ["a", "a", "b", "b", "c"]}),
        of_scores([0.2, 0.6, 0.9, 0.7, 0.1], [0, 1, 1, 1, 0]),
        [],
        NONE,
    )
    assert (metrics["per_lesion/lesions"], metrics["per_lesion/left_out"]) == (2, 1)
