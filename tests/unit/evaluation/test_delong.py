"""DeLong's variance and test: against a published example, and against the definition, pair by pair."""

import numpy as np
import pytest
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

from melanoma.evaluation.delong import auc_influence, auc_interval
from melanoma.evaluation.proportions import t_interval

# 49 patients of DeLong et al. (1988), of whom 43 have all three tests: albumin, total protein, K-G score, and whether
# surgery helped. The areas and standard errors below are those that SAS/STAT prints for them.
PATIENTS = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""


def ovarian() -> tuple[np.ndarray, np.ndarray]:
    """Who was not helped, and scores that rise with it: K-G score, albumin, total protein."""
    albumin, protein, score, helped = np.array(PATIENTS.split(), float).reshape(-1, 4).T
    return helped == 0, np.stack([score, -albumin, -protein])


def by_definition(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Covariance from the structural components, each a mean over pairs."""
    cases, controls = scores[:, positive], scores[:, ~positive]
    wins = (cases[:, :, None] > controls[:, None]) + 0.5 * (cases[:, :, None] == controls[:, None])
    return np.cov(wins.mean(axis=2)) / cases.shape[1] + np.cov(wins.mean(axis=1)) / controls.shape[1]


def together(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUCs of several scores and their covariance."""
    aucs, influences = zip(*(auc_influence(positive, one, np.arange(len(positive))) for one in scores), strict=True)
    return np.array(aucs), np.array(influences) @ np.array(influences).T


def test_the_published_example():
    aucs, covariance = together(*ovarian())
    assert aucs[[0, 2]] == pytest.approx([0.7258, 0.6478], abs=5e-5)
    assert np.sqrt(np.diag(covariance))[[0, 2]] == pytest.approx([0.1028, 0.1000], abs=5e-5)


@pytest.mark.parametrize("digits", [1, 8])
def test_it_is_what_the_definition_says(digits):
    rng = np.random.default_rng(0)
    positive = rng.random(80) < 0.3
    scores = (rng.normal(size=(3, 80)) + positive).round(digits)
    aucs, covariance = together(positive, scores)
    np.testing.assert_allclose(aucs, [roc_auc_score(positive, score) for score in scores])
    np.testing.assert_allclose(covariance, by_definition(positive, scores), atol=1e-12)


def test_the_difference_of_two_is_tested():
    positive, scores = ovarian()
    (one, first), (other, second) = (auc_influence(positive, scores[i], np.arange(43)) for i in (2, 0))
    low, high, p_value = t_interval(one - other, first - second, 12)
    covariance = by_definition(positive, scores[[2, 0]])
    spread = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert one - other == pytest.approx(0.6478 - 0.7258, abs=1e-4)
    assert p_value == pytest.approx(2 * student.sf(abs(one - other) / spread, 12))
    half = student.ppf(0.975, 12) * spread
    assert (low, high) == pytest.approx((one - other - half, one - other + half))


def test_no_difference_has_no_error():
    assert t_interval(0.0, np.zeros(10), 5) == (0, 0, 1)


def test_an_interval_stays_within_0_and_1():
    positive = np.array([False] * 5 + [True] * 4)
    scores = np.array([1, 2, 3, 4, 6.5, 5, 6, 7, 8])
    auc, influence = auc_influence(positive, scores, np.arange(9))
    assert auc == pytest.approx(0.9)
    low, high = auc_interval(auc, float((influence**2).sum()), 4, 5, 1.959964)
    assert 0 < low < auc < high < 1


@pytest.mark.parametrize("seed", range(4))
def test_the_influence_of_single_images_has_delongs_variance(seed: int):
    rng = np.random.default_rng(seed)
    positive = np.arange(60) < 17
    scores = (rng.normal(size=60) + positive).round(1)  # with ties
    auc, influence = auc_influence(positive, scores, np.arange(60))
    cases, controls = scores[positive], scores[~positive]
    wins = (cases[:, None] > controls) + 0.5 * (cases[:, None] == controls)
    assert auc == pytest.approx(wins.mean())
    variance = wins.mean(axis=1).var(ddof=1) / len(cases) + wins.mean(axis=0).var(ddof=1) / len(controls)
    assert (influence**2).sum() == pytest.approx(variance)


def test_copies_of_an_image_in_one_group_say_no_more_than_the_image():
    rng = np.random.default_rng(0)
    positive = np.arange(60) < 17
    scores = rng.normal(size=60) + positive
    once, again = (
        auc_influence(positive, scores, np.arange(60)),
        auc_influence(np.repeat(positive, 4), np.repeat(scores, 4), np.repeat(np.arange(60), 4)),
    )
    assert again[0] == pytest.approx(once[0])
    assert again[1] == pytest.approx(once[1])


@pytest.mark.parametrize(("auc", "positives", "negatives"), [(1.0, 10, 90), (0.0, 90, 10)])
def test_a_perfect_separation_is_no_proof(auc: float, positives: int, negatives: int):
    ends = auc_interval(auc, 0.0, positives, negatives, 1.959964)
    assert ends[int(auc)] == auc
    other = ends[1 - int(auc)]
    variance = other * (1 - other) / 900 * (1 + 49 * ((1 - other) / (2 - other) + other / (1 + other)))
    assert abs(auc - other) == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-6)
    assert abs(auc - other) > 0.1


def test_a_score_interval_is_newcombes_where_the_variance_is_hanleys():
    # Method 5 of Newcombe (2006) solves |auc - a| = z sqrt(variance(a)).
    variance = 0.85 * 0.15 / 900 * (1 + 49 * (0.15 / 1.15 + 0.85 / 1.85))
    low, high = auc_interval(0.85, variance, 10, 90, 1.959964)
    for end in (low, high):
        theirs = end * (1 - end) / 900 * (1 + 49 * ((1 - end) / (2 - end) + end / (1 + end)))
        assert abs(end - 0.85) == pytest.approx(1.959964 * np.sqrt(theirs), rel=1e-6)
