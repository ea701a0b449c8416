"""Our statistics against those of statsmodels, MAPIE and dcurves, where these have the same method."""

import numpy as np
import pytest
import statsmodels.api as sm
from mapie.classification import SplitConformalClassifier
from sklearn.base import BaseEstimator, ClassifierMixin
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from melanoma.evaluation.calibration_line import calibration_intervals, calibration_line
from melanoma.evaluation.curve_plots import net_benefit
from melanoma.evaluation.paired import Comparison, compare_predictions, corrected
from melanoma.evaluation.predictions import Bootstrap, Predictions
from melanoma.evaluation.proportions import difference_interval, mean_influence, quantile, score_interval
from melanoma.evaluation.uncertain import PredictionSets, fit_prediction_sets


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize(("hits", "images"), [(9, 20), (50, 118), (1000, 1003), (4, 100), (96, 100)])
def test_wilsons_interval(hits: int, images: int, confidence: float):
    """Where it is not widened: from 3 hits and misses on, from 4 with more than 50 images."""
    low, high = score_interval(hits / images, images, quantile(confidence))
    expected = proportion_confint(hits, images, 1 - confidence, method="wilson")
    if images - hits > 3:
        assert (low, high) == pytest.approx(expected, abs=1e-12)
    else:
        assert low == pytest.approx(expected[0], abs=1e-12)
        assert high >= expected[1]


def test_the_difference_of_two_shares_is_newcombes():
    shares, images = (0.85, 0.7), (118, 90)
    first, second = (
        (share, *score_interval(share, number, quantile(0.95))) for share, number in zip(shares, images, strict=True)
    )
    hits = [share * number for share, number in zip(shares, images, strict=True)]
    expected = confint_proportions_2indep(hits[0], images[0], hits[1], images[1], method="newcomb", compare="diff")
    assert difference_interval(first, second) == pytest.approx(expected, abs=1e-12)


def test_holms_correction():
    rng = np.random.default_rng(0)
    p_values = rng.uniform(size=12) ** 4
    tests = {str(i): [Comparison("auc", 0.0, 0.0, 0.0, float(p), "DeLong")] for i, p in enumerate(p_values)}
    found = [one.adjusted_p for (one,) in corrected(tests, "auc").values()]
    assert found == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-12)


def test_mcnemars_test():
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, 200)
    model, reference = (np.where(rng.random(200) < right, targets, 1 - targets) for right in (0.85, 0.75))
    one, other = (Predictions(targets, np.eye(2)[chosen] * 0.8 + 0.1, ["a", "b"]) for chosen in (model, reference))
    [found] = [test for test in compare_predictions(one, other, Bootstrap(200)) if test.metric == "accuracy"]
    table = [[np.sum((model == targets) & (reference == side)) for side in (targets, 1 - targets)]]
    table += [[np.sum((model != targets) & (reference == side)) for side in (targets, 1 - targets)]]
    assert found.p_value == pytest.approx(mcnemar(np.array(table), exact=True).pvalue, abs=1e-12)


def test_calibration_intercept_and_slope_with_errors_over_groups():
    rng = np.random.default_rng(2)
    groups = np.sort(rng.integers(0, 120, 400))
    groups = np.unique(groups, return_inverse=True)[1]
    odds = rng.normal(-1, 1.5, 400)
    positive = rng.random(400) < 1 / (1 + np.exp(-(0.3 + 0.7 * odds + 0.5 * rng.normal(size=groups.max() + 1)[groups])))
    scores = 1 / (1 + np.exp(-odds))
    found, intervals = calibration_line(positive, scores), calibration_intervals(positive, scores, groups)
    options = {"cov_type": "cluster", "cov_kwds": {"groups": groups, "use_correction": True}}
    family = sm.families.Binomial()
    large = sm.GLM(positive.astype(float), np.ones(400), family=family, offset=odds).fit(tol=1e-12, **options)
    line = sm.GLM(positive.astype(float), sm.add_constant(odds), family=family).fit(tol=1e-12, **options)
    count = groups.max() + 1
    for name, fitted, column in (("calibration_intercept", large, 0), ("calibration_slope", line, 1)):
        assert found[name][0] == pytest.approx(fitted.params[column], abs=1e-8)
        # statsmodels also corrects for the number of coefficients.
        error = fitted.bse[column] / np.sqrt((400 - 1) / (400 - len(fitted.params)))
        degrees = min(len(np.unique(groups[side])) for side in (positive, ~positive)) - 1
        half = (intervals[name][1] - intervals[name][0]) / 2
        assert half == pytest.approx(quantile(0.95, degrees) * error, rel=1e-6)
    assert count > 100


def test_the_variance_of_a_mean_over_groups():
    rng = np.random.default_rng(3)
    groups = np.unique(rng.integers(0, 60, 300), return_inverse=True)[1]
    values = rng.normal(size=300) + rng.normal(size=groups.max() + 1)[groups]
    mean, influence = mean_influence(values, groups)
    options = {"cov_type": "cluster", "cov_kwds": {"groups": groups, "use_correction": False}}
    expected = sm.OLS(values, np.ones(300)).fit(**options)
    count = groups.max() + 1
    assert mean == pytest.approx(expected.params[0], abs=1e-12)
    assert np.sum(influence**2) == pytest.approx(expected.bse[0] ** 2 * count / (count - 1), rel=1e-9)


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its probabilities."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Given":
        self.classes_ = np.arange(x.shape[1])
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return x

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x.argmax(axis=1)


def drawn(classes: int, images: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities, and labels."""
    probabilities = rng.dirichlet(np.linspace(1.5, 0.5, classes), images)
    return probabilities, np.array([rng.choice(classes, p=one) for one in probabilities])


@pytest.mark.parametrize("classes", [3, 9])
def test_adaptive_prediction_sets_for_a_threshold(classes: int):
    rng = np.random.default_rng(4)
    (probabilities, labels), (others, _) = drawn(classes, 400, rng), drawn(classes, 300, rng)
    fitted = Given().fit(probabilities, labels)
    model = SplitConformalClassifier(fitted, confidence_level=0.8, conformity_score="aps", prefit=True)
    _, sets = model.conformalize(probabilities, labels).predict_set(others, {"include_last_label": True})
    threshold = float(np.ravel(model._mapie_classifier.conformity_score_function_.quantiles_)[0])
    ours = PredictionSets(0.8, threshold).members(others)
    np.testing.assert_array_equal(ours, sets[:, :, 0])


def test_the_threshold_of_split_conformal_prediction():
    """With two classes and an accuracy below the coverage, adaptive sets and least ambiguous ones are the same."""
    rng = np.random.default_rng(5)
    (probabilities, labels), (others, _) = drawn(2, 333, rng), drawn(2, 300, rng)
    assert np.mean(probabilities.argmax(axis=1) == labels) < 0.9
    fitted = Given().fit(probabilities, labels)
    model = SplitConformalClassifier(fitted, confidence_level=0.9, conformity_score="lac", prefit=True)
    _, sets = model.conformalize(probabilities, labels).predict_set(others)
    ours = fit_prediction_sets(labels, probabilities, 0.9)
    expected = float(np.ravel(model._mapie_classifier.conformity_score_function_.quantiles_)[0])
    assert ours.threshold == pytest.approx(expected, abs=1e-12)
    np.testing.assert_array_equal(ours.members(others), sets[:, :, 0])


@pytest.mark.parametrize(
    ("threshold", "model", "everybody"),
    [
        (0.05, 0.025614035087719297, 0.09473684210526317),
        (0.10, 0.018518518518518517, 0.04444444444444445),
        (0.15, 0.010588235294117645, -0.011764705882352927),
        (0.20, 0.0016666666666666635, -0.075),
        (0.30, -0.02, -0.2285714285714286),
    ],
)
def test_net_benefit_is_that_of_dcurves(threshold: float, model: float, everybody: float):
    """R's dcurves (Sjoberg 2022): its example of family history, positive in 24 of 105 cancers and 91 of 645 others."""
    cancer = np.repeat([1, 0], [105, 645])
    history = np.concatenate([np.repeat([1, 0], [24, 81]), np.repeat([1, 0], [91, 554])])
    for scores, expected in ((history, model), (np.ones(750), everybody)):
        probabilities = np.stack([1 - scores, scores], axis=1).astype(float)
        predictions = Predictions(cancer, probabilities, ["none", "cancer"])
        found, _ = net_benefit(predictions.binary[0], predictions.group_numbers, threshold)
        assert found == pytest.approx(expected, abs=1e-12)
