"""Thresholds chosen by each rule, and what they cost, by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

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


def many(n: int, seed: int, share: float = 0.3, separation: float = 1.5) -> Predictions:
    rng = np.random.default_rng(seed)
    targets = (rng.random(n) < share).astype(int)
    scores = expit(separation * (targets - 0.5) + rng.normal(size=n))
    return Predictions(targets, np.stack([1 - scores, scores], axis=1), ["benign", "malignant"])


@pytest.mark.parametrize(("confidence", "least", "most"), [(None, 0.35, 0.7), (0.95, 0.92, 0.985)])
def test_a_tolerance_bound_holds_on_new_images_as_often_as_it_says(confidence: float | None, least: float, most: float):
    new, held = many(100_000, 1_000), 0
    for seed in range(300):
        [point] = choose_operating_points(many(400, seed), OperatingPointConfig(sensitivity=0.9, confidence=confidence))
        held += measure_at(point, new)["sensitivity"] >= 0.9
    assert least < held / 300 < most


def test_a_tolerance_bound_needs_enough_positives(caplog: pytest.LogCaptureFixture):
    few = many(60, 0)
    count = int((few.targets == 1).sum())
    [point] = choose_operating_points(few, OperatingPointConfig(sensitivity=0.95, confidence=0.95))
    assert point.threshold == few.probabilities[few.targets == 1, 1].min()
    assert f"{count}, where 59 are needed" in caplog.text
    lesions = replace(many(600, 0), groups=np.arange(600) // 20)
    assert "too few" in choose_operating_points(lesions, OperatingPointConfig(confidence=0.95))[0].rule


def test_rates_at_another_prevalence_follow_bayes():
    point = OperatingPoint("malignant", 0.5, "")
    found = measure_at(point, BINARY, {"malignant": 0.02})
    # Sensitivity 0.6 and specificity 0.5 at 2%: of 10,000, 200 are positive, 120 are found, 4,900 are false referrals.
    assert found["at_prevalence/precision"] == pytest.approx(120 / 5020)
    assert found["at_prevalence/npv"] == pytest.approx(4900 / 4980)
    assert found["at_prevalence/referred"] == pytest.approx(0.502)
    assert found["at_prevalence/referrals_per_found"] == pytest.approx(5020 / 120)
    assert found["at_prevalence/missed_per_1000"] == pytest.approx(8)
    same = measure_at(point, BINARY, {"malignant": 1 / 3})
    assert same["at_prevalence/precision"] == pytest.approx(same["precision"])
    assert same["at_prevalence/npv"] == pytest.approx(same["npv"])


def test_intervals_at_another_prevalence_contain_the_truth():
    point, share = OperatingPoint("malignant", 0.5, ""), {"malignant": 0.05}
    truth = measure_at(point, many(400_000, 10_000), share)
    names = [f"at_prevalence/{name}" for name in ("precision", "npv", "referrals_per_found", "missed_per_1000")]
    covered = []
    for seed in range(300):
        found = measure_intervals_at(point, many(150, seed), Bootstrap(1), share)
        covered.append([found[name][0] <= truth[name] <= found[name][1] for name in names])
    assert (np.mean(covered, axis=0) > 0.91).all()
    perfect = Predictions(np.repeat([0, 1], 20), np.eye(2)[np.repeat([0, 1], 20)], ["benign", "malignant"])
    ends = measure_intervals_at(point, perfect, Bootstrap(1), share)["at_prevalence/precision"]
    assert 0.1 < ends[0] < 0.9
    assert ends[1] == pytest.approx(1, abs=1e-6)
