"""Intervals of proportions, against published values and against the truth of a simulation."""

import numpy as np
import pytest

from melanoma.evaluation.proportions import (
    average_interval,
    difference_interval,
    mean_interval,
    proportion_interval,
    quantile,
    widened,
)


def of(hits: int, images: int, confidence: float = 0.95) -> tuple[float, float]:
    return proportion_interval(np.arange(images) < hits, np.arange(images), confidence)


# Newcombe (1998), table I, method 3: Wilson's interval without continuity correction.
@pytest.mark.parametrize(
    ("hits", "images", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)],
)
def test_single_images_have_wilsons_interval(hits: int, images: int, low: float, high: float):
    assert of(hits, images) == pytest.approx((low, high), abs=5e-5)


def test_the_bound_of_a_single_hit_is_that_of_the_poisson_distribution():
    # Brown, Cai & DasGupta (2001), section 4.1.1: -log(1 - 0.05) / n for one hit, instead of Wilson's 0.0061.
    assert of(1, 29) == pytest.approx((-np.log(0.95) / 29, 0.1718), abs=5e-5)
    assert of(28, 29) == pytest.approx((1 - 0.1718, 1 + np.log(0.95) / 29), abs=5e-5)


def test_all_right_is_not_certainty_and_counts_groups():
    groups = np.repeat(np.arange(10), 5)
    low, high = proportion_interval(np.ones(50, bool), groups)
    assert high == 1
    assert low == pytest.approx(0.66, abs=0.01)  # of ten lesions, not of fifty images
    assert of(50, 50)[0] == pytest.approx(0.93, abs=0.01)
    assert proportion_interval(np.zeros(50, bool), groups) == pytest.approx((1 - high, 1 - low))


def test_copies_in_one_group_do_not_narrow_the_interval():
    rng = np.random.default_rng(0)
    hits = rng.random(200) < 0.8
    once = proportion_interval(hits, np.arange(200))
    copies = proportion_interval(np.repeat(hits, 4), np.repeat(np.arange(200), 4))
    assert copies == pytest.approx(once, abs=0.002)


@pytest.mark.parametrize(
    ("groups", "share", "most", "likeness"),
    [
        (30, 0.9, 1, 0.0),
        (100, 0.987, 1, 0.0),
        (30, 0.8, 5, 0.9),
        (90, 0.95, 5, 0.9),
        (30, 0.8, 5, 0.3),
        (200, 0.987, 5, 0.9),
    ],
)
def test_95_percent_of_the_intervals_contain_the_truth(groups: int, share: float, most: int, likeness: float):
    rng, simulations, covered = np.random.default_rng(1), 600, 0
    for _ in range(simulations):
        chance = np.full(groups, share)
        if likeness:
            chance = rng.beta(*(part * (1 - likeness) / likeness for part in (share, 1 - share)), size=groups)
        sizes = rng.integers(1, most + 1, size=groups)
        of_group = np.repeat(np.arange(groups), sizes)
        low, high = proportion_interval(rng.random(len(of_group)) < chance[of_group], of_group)
        covered += low <= share <= high
    assert 0.92 < covered / simulations < 0.985  # 93 to 97% with two standard errors, and discreteness


def test_a_mean_of_independent_shares_has_the_variance_of_the_mean():
    shares = [(40, 50), (30, 60), (81, 90)]
    ends = np.array([of(*one) for one in shares])
    values = np.array([hits / images for hits, images in shares])
    low, high = mean_interval([(value, *pair) for value, pair in zip(values, ends, strict=True)])
    normal = 1.96 * np.sqrt(sum(v * (1 - v) / n for v, (_, n) in zip(values, shares, strict=True))) / 3
    assert high - low == pytest.approx(2 * normal, rel=0.03)
    assert low < values.mean() < high


def test_a_mean_of_values_that_rise_together_has_a_wider_interval():
    bounded = [(0.8, 0.7, 0.9)] * 2
    influence = np.array([0.01, -0.02, 0.01])
    apart, together = mean_interval(bounded), mean_interval(bounded, [influence, influence])
    assert together == pytest.approx((0.7, 0.9))
    assert apart == pytest.approx((0.8 - 0.1 / 2**0.5, 0.8 + 0.1 / 2**0.5))


def test_a_difference_of_independent_shares_is_newcombes_of_1998():
    # The example of his method 10: 56/70 against 48/80, with the interval from 0.0524 to 0.3339.
    first, second = ((hits / images, *of(hits, images)) for hits, images in ((56, 70), (48, 80)))
    assert difference_interval(first, second) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_the_interval_of_a_mean_follows_its_groups_and_its_largest_values():
    values = np.random.default_rng(0).exponential(size=200)
    low, high = average_interval(values, np.arange(200))
    normal = 1.96 * values.std() / 200**0.5
    assert low < values.mean() - 0.8 * normal
    assert high > values.mean() + normal
    copies = average_interval(np.repeat(values, 4), np.repeat(np.arange(200), 4))
    assert copies == pytest.approx((low, high), rel=1e-6)
    odd = np.r_[np.full(99, 0.01), 5.0]
    low, high = average_interval(odd, np.arange(100))
    assert high / odd.mean() > 20  # one image makes up most of it


@pytest.mark.parametrize(("hits", "images"), [(8, 10), (14, 16), (95, 100), (480, 500), (10, 10), (0, 10)])
@pytest.mark.parametrize("confidence", [0.983, 0.999])
def test_a_widened_interval_is_that_of_the_higher_level_or_wider(hits: int, images: int, confidence: float):
    value, anew = hits / images, of(hits, images, confidence)
    factor = quantile(confidence) / quantile(0.95)
    low, high = (widened(value, end, factor) for end in of(hits, images))
    assert low == pytest.approx(anew[0], abs=0.07)
    assert low <= anew[0] + 1e-3
    assert high >= anew[1] - 0.01
    assert widened(0.3, -0.1, 2.0) == pytest.approx(-0.5)  # not a share
