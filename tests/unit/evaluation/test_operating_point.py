"""Thresholds chosen by each rule, and what they cost, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from melanoma.config.schema import OperatingPointConfig
from melanoma.evaluation.operating_point import (
    OperatingPoint,
    choose_operating_points,
    measure_at,
    measure_intervals_at,
)
from melanoma.evaluation.predictions import Bootstrap, Predictions

# Ten negatives at 0.05, 0.15, ... 0.95 and five positives.
SCORES = np.r_[np.arange(10) / 10 + 0.05, 0.99, 0.88, 0.62, 0.41, 0.12]
TARGETS = np.r_[np.zeros(10), np.ones(5)].astype(int)
BINARY = Predictions(TARGETS, np.stack([1 - SCORES, SCORES], axis=1), ["benign", "malignant"])


def chosen(**settings) -> OperatingPoint:
    [point] = choose_operating_points(BINARY, OperatingPointConfig(**settings))
    return point


@pytest.mark.parametrize(
    ("sensitivity", "threshold"), [(0.2, 0.99), (0.4, 0.88), (0.6, 0.62), (0.61, 0.41), (0.8, 0.41), (0.95, 0.12)]
)
def test_the_highest_threshold_that_finds_enough(sensitivity, threshold):
    point = chosen(sensitivity=sensitivity)
    assert (point.binary_task, point.threshold) == ("malignant", threshold)
    assert measure_at(point, BINARY)["sensitivity"] >= sensitivity


def test_youden_maximises_the_sum():
    point = chosen(rule="youden")
    sums = [(SCORES[10:] >= t).mean() + (SCORES[:10] < t).mean() for t in SCORES]
    found = measure_at(point, BINARY)
    assert found["sensitivity"] + found["specificity"] == pytest.approx(max(sums))


@pytest.mark.parametrize("ratio", [0.5, 1, 3, 100])
def test_cost_is_least(ratio):
    point = chosen(rule="cost", cost_ratio=ratio)
    costs = [ratio * (SCORES[10:] < t).sum() + (SCORES[:10] >= t).sum() for t in SCORES]
    at = point.threshold
    assert ratio * (SCORES[10:] < at).sum() + (SCORES[:10] >= at).sum() == min(costs)


def test_a_fixed_threshold_stays():
    assert chosen(rule="fixed", threshold=0.5).threshold == 0.5


def test_what_a_threshold_finds_and_costs():
    point = OperatingPoint("malignant", 0.5, "")
    found = measure_at(point, BINARY)
    # Three of five found, five of ten negatives referred.
    assert found == pytest.approx(
        {"sensitivity": 0.6, "specificity": 0.5, "precision": 3 / 8, "npv": 5 / 7, "referred": 8 / 15,
         "referrals_per_found": 8 / 3, "missed_per_1000": 2000 / 15}
    )  # fmt: skip


def test_what_is_not_defined_is_left_out():
    found = measure_at(OperatingPoint("malignant", 2.0, ""), BINARY)
    assert "precision" not in found
    assert "referrals_per_found" not in found
    assert found["sensitivity"] == 0


def test_each_binary_task_has_a_threshold_of_its_own():
    rng = np.random.default_rng(0)
    targets, probabilities = rng.integers(0, 3, 90), rng.dirichlet(np.ones(3), 90)
    given = Predictions(targets, probabilities, list("abc"), {"malignant": ["b", "c"], "melanoma": ["c"]})
    points = choose_operating_points(given, OperatingPointConfig())
    assert [point.binary_task for point in points] == ["malignant", "melanoma"]
    for point in points:
        assert measure_at(point, given)["sensitivity"] >= 0.95
    assert measure_at(points[0], replace(given, binary_tasks={})) == {}


def test_without_positives_there_is_no_threshold():
    assert choose_operating_points(replace(BINARY, targets=np.zeros(15, int)), OperatingPointConfig()) == []


def test_intervals_at_a_threshold_are_never_without_width():
    many = replace(BINARY, targets=np.tile(TARGETS, 2), probabilities=np.tile(BINARY.probabilities, (2, 1)))
    point = OperatingPoint("malignant", 0.1, "")  # finds all ten
    found = measure_intervals_at(point, many, Bootstrap(500))
    # Wilson's interval for 10 of 10: 1 / (1 + z^2 / 10).
    assert found["sensitivity"] == pytest.approx((1 / (1 + 1.959964**2 / 10), 1.0), abs=1e-6)
    low, high = found["specificity"]
    assert low < 0.1 < high
    assert found["referrals_per_found"] == pytest.approx(tuple(1 / end for end in reversed(found["precision"])))
    assert found["missed_per_1000"][0] == 0
    assert "npv" not in found  # two images are not referred
    assert measure_intervals_at(point, many, Bootstrap(0)) == {}


def test_there_are_no_intervals_of_five_positives():
    found = measure_intervals_at(OperatingPoint("malignant", 0.1, ""), BINARY, Bootstrap(500))
    assert set(found) == {"specificity", "precision", "referrals_per_found", "referred", "missed_per_1000"}


def test_images_of_one_lesion_widen_the_interval():
    targets = np.r_[np.zeros(200), np.ones(200)].astype(int)
    scores = np.r_[np.zeros(200), np.repeat([0.9, 0.1], 100)]
    probabilities = np.stack([1 - scores, scores], axis=1)
    point = OperatingPoint("malignant", 0.5, "")
    images = Predictions(targets, probabilities, list("ab"))
    alone = measure_intervals_at(point, images, Bootstrap(500))["sensitivity"]
    lesions = replace(images, groups=np.repeat(np.arange(20), 20))
    grouped = measure_intervals_at(point, lesions, Bootstrap(500))["sensitivity"]
    assert grouped[0] < alone[0] < 0.5 < alone[1] < grouped[1]
