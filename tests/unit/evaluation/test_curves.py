"""ROC and precision-recall, with and without weights, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn import metrics as sk

from melanoma.evaluation.curves import curve


def scored(n: int = 200, digits: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    return positive, (rng.normal(size=n) + positive).round(digits), rng.integers(0, 4, (5, n)).astype(np.float32)


@pytest.mark.parametrize("digits", [1, 9])
def test_areas_equal_scikit_learns_with_any_weights(digits):
    positive, scores, weights = scored(digits=digits)
    found = curve(positive, scores, weights)
    auc = [sk.roc_auc_score(positive, scores, sample_weight=w) for w in weights]
    ap = [sk.average_precision_score(positive, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(found.auc(), auc)
    np.testing.assert_allclose(found.average_precision(), ap)


@pytest.mark.parametrize("digits", [1, 9])
def test_partial_area_equals_scikit_learns_of_the_curve_turned_around(digits):
    positive, scores, weights = scored(digits=digits)
    floor = 0.8
    for row, found in zip(weights, curve(positive, scores, weights).partial_auc(floor), strict=True):
        # Above a true-positive rate is below a false-positive rate once classes and scores change sides; scikit-learn
        # scales that area (McClish 1989).
        scaled = sk.roc_auc_score(~positive, -scores, sample_weight=row, max_fpr=1 - floor)
        least, most = (1 - floor) ** 2 / 2, 1 - floor
        assert found == pytest.approx(least + (2 * scaled - 1) * (most - least))


def test_partial_area_of_a_perfect_and_of_a_blind_model():
    positive = np.array([False] * 50 + [True] * 50)
    assert curve(positive, positive.astype(float)).partial_auc(0.8)[0] == pytest.approx(0.2)
    assert curve(positive, np.zeros(100)).partial_auc(0.8)[0] == pytest.approx(0.2**2 / 2)
    assert curve(positive, -positive.astype(float)).partial_auc(0.8)[0] == pytest.approx(0)


def test_sensitivity_at_a_specificity_by_hand():
    # Ten negatives at 0..9 and five positives: one at 8.5, above 9 of the negatives, two above all.
    scores = np.r_[np.arange(10), 8.5, 3.5, 2.5, 11, 12].astype(float)
    positive = np.arange(15) >= 10
    found = curve(positive, scores)
    assert found.sensitivity_at_specificity(0.95)[0] == pytest.approx(2 / 5)
    assert found.sensitivity_at_specificity(0.90)[0] == pytest.approx(3 / 5)
    assert found.specificity_at_sensitivity(0.95)[0] == pytest.approx(3 / 10)
    assert found.specificity_at_sensitivity(0.80)[0] == pytest.approx(4 / 10)


@pytest.mark.parametrize("all_positive", [True, False])
def test_with_one_answer_only_nothing_is_defined(all_positive):
    found = curve(np.full(5, all_positive), np.arange(5.0)).measures()
    assert all(
        np.isnan(value).all() for name, value in found.items() if name != "average_precision" or not all_positive
    )
