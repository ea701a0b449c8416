"""Calibration intercept and slope: against scikit-learn, for known distortions, and how often the intervals hold."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from melanoma.evaluation.calibration_line import calibration_intervals, calibration_line, smooth_calibration


def calibrated(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = expit(rng.normal(-1, 1.5, n))
    return rng.random(n) < scores, scores


def test_the_line_is_that_of_a_logistic_regression_without_penalty():
    positive, scores = calibrated(500)
    found = {name: value for name, (value, _) in calibration_line(positive, scores**1.5).items()}
    line = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(scores**1.5)[:, None], positive)
    assert found["calibration_slope"] == pytest.approx(line.coef_[0, 0], rel=1e-5)
    shifted = expit(logit(scores**1.5) + found["calibration_intercept"])
    assert shifted.mean() == pytest.approx(positive.mean())  # calibrated in the large


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, 0.0), (1.0, 1.0), (2.0, -0.5)])
def test_a_known_distortion_is_found(slope: float, intercept: float):
    positive, scores = calibrated(200_000)
    distorted = expit((logit(scores) - intercept) / slope)
    found = calibration_line(positive, distorted)
    assert found["calibration_slope"][0] == pytest.approx(slope, rel=0.03)
    if slope == 1:
        assert found["calibration_intercept"][0] == pytest.approx(intercept, abs=0.03)


def test_copies_in_one_group_do_not_narrow_the_intervals():
    positive, scores = calibrated(120)
    once = calibration_intervals(positive, scores, np.arange(120))
    copies = calibration_intervals(np.repeat(positive, 3), np.repeat(scores, 3), np.repeat(np.arange(120), 3))
    for name, ends in once.items():
        assert copies[name] == pytest.approx(ends, rel=1e-6)


def test_95_percent_of_the_intervals_contain_the_truth():
    covered = []
    for seed in range(300):
        positive, scores = calibrated(80, seed)
        found = calibration_intervals(positive, scores, np.arange(80))
        covered.append([low <= truth <= high for (low, high), truth in zip(found.values(), (0, 1), strict=True)])
    assert (np.mean(covered, axis=0) > 0.92).all()


def test_what_does_not_exist_is_left_out():
    positive = np.arange(40) < 15
    assert calibration_line(np.zeros(40, bool), np.full(40, 0.5)) == {}
    assert set(calibration_line(positive, np.where(positive, 0.8, 0.1))) == {"calibration_intercept"}
    assert set(calibration_line(positive, np.full(40, 0.3))) == {"calibration_intercept"}
    sure = calibration_line(positive, np.where(np.arange(40) < 20, 1.0, 0.0))
    assert all(np.isfinite(value) for value, _ in sure.values())


def test_the_smooth_curve_of_calibrated_probabilities_is_the_diagonal():
    positive, scores = calibrated(20_000)
    at, share, error = smooth_calibration(positive, scores, np.arange(20_000))
    assert np.abs(share - at).max() < 0.06
    assert (error > 0).all()
    _, _, grouped = smooth_calibration(np.repeat(positive, 2), np.repeat(scores, 2), np.repeat(np.arange(20_000), 2))
    assert grouped == pytest.approx(error, rel=0.02)
