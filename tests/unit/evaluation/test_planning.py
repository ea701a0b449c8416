"""A plan says what the intervals, gates and tests of this project do on average."""

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import binom

from melanoma.evaluation.planning import (
    chance_of_auc,
    chance_of_difference,
    chance_of_mean,
    chance_of_mean_auc,
    chance_of_rate,
    detectable_difference,
    expected_auc,
    expected_mean,
    expected_mean_auc,
    expected_rate,
    smallest_multiple,
    specificity_at,
)
from melanoma.evaluation.proportions import proportion_interval


def test_a_gate_at_its_boundary_passes_in_at_most_three_percent():
    assert chance_of_auc(0.85, 0.85, 16, 102) <= 0.04
    assert chance_of_rate(0.9, 0.9, 100) <= 0.03
    assert chance_of_mean(0.8, 0.8, [40, 60, 50]) <= 0.05


def test_more_images_narrow_an_interval_and_raise_the_chances():
    few, many = expected_auc(0.85, 16, 100), expected_auc(0.85, 64, 400)
    assert (many[2] - many[1]) == pytest.approx((few[2] - few[1]) / 2, rel=0.15)  # four times as many, half as wide
    assert chance_of_auc(0.85, 0.75, 16, 100) < chance_of_auc(0.85, 0.75, 64, 400)
    assert chance_of_difference(0.85, 0.05, 30, 100, correlation=0.7) < chance_of_difference(
        0.85, 0.05, 200, 600, correlation=0.7
    )


def test_the_chance_of_a_rate_is_that_of_all_outcomes():
    images, share, floor = 40, 0.9, 0.75
    groups = np.arange(images)
    passes = [proportion_interval(groups < hits, groups)[0] >= floor for hits in range(images + 1)]
    expected = sum(binom.pmf(hits, images, share) for hits in range(images + 1) if passes[hits])
    assert chance_of_rate(share, floor, images) == pytest.approx(expected)


def test_with_too_few_images_there_is_no_interval_and_no_gate_passes():
    assert expected_auc(0.95, 9, 500) is None
    assert expected_rate(0.9, 9) is None
    assert expected_mean(0.9, [5, 5, 50]) is None
    assert expected_mean_auc(0.9, [5, 5, 50]) is None
    assert chance_of_auc(0.99, 0.5, 9, 500) == chance_of_rate(0.99, 0.5, 9) == 0
    assert chance_of_mean_auc(0.99, 0.5, [5, 5]) == chance_of_difference(0.6, 0.3, 9, 9, correlation=0) == 0


def test_the_mean_auc_of_several_classes():
    value, low, high = expected_mean_auc(0.85, [30, 30, 30])
    assert low < value < high
    assert chance_of_mean_auc(0.85, value, [30, 30, 30]) <= 0.1
    assert chance_of_mean_auc(0.85, value - 0.15, [30, 30, 30]) >= 0.95


def test_the_detectable_difference_is_found_with_the_power():
    found = detectable_difference(0.8, 60, 120, correlation=0.7, power=0.8)
    assert chance_of_difference(0.8, found, 60, 120, correlation=0.7) == pytest.approx(0.8, abs=0.06)
    assert detectable_difference(0.95, 10, 12, correlation=0, power=0.9) is None


def test_equal_models_are_seldom_called_different_and_a_wide_margin_is_kept():
    assert chance_of_difference(0.85, 0.0, 60, 200, correlation=0.7) <= 0.05
    assert chance_of_difference(0.85, 0.0, 200, 600, correlation=0.7, margin=0.1) >= 0.95


def test_the_specificity_at_a_sensitivity_is_that_of_normal_scores():
    rng = np.random.default_rng(0)
    positives, negatives = rng.normal(size=400_000) + np.sqrt(2) * ndtri(0.85), rng.normal(size=400_000)
    threshold = np.quantile(positives, 0.05)
    assert specificity_at(0.85, 0.95) == pytest.approx((negatives < threshold).mean(), abs=0.005)


def test_the_smallest_multiple():
    assert smallest_multiple(lambda times: min(times / 10, 1), 0.8) == pytest.approx(8, rel=0.02)
    assert smallest_multiple(lambda times: min(times, 1), 0.25) == pytest.approx(0.25, abs=0.01)
    assert smallest_multiple(lambda _: 0.5, 0.8) is None


def test_the_same_seed_gives_the_same_plan():
    assert expected_auc(0.85, 20, 60, 3) == expected_auc(0.85, 20, 60, 3)
