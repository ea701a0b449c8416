"""Metrics over seeds, and comparisons of recipes with several seeds."""

import numpy as np
import pytest
from scipy.special import expit, ndtri

from melanoma.evaluation.intervals import intervals_of
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.paired import compare_predictions
from melanoma.evaluation.plots import seeds_figure
from melanoma.evaluation.predictions import Bootstrap, Predictions
from melanoma.evaluation.seeds import OverSeeds, compare_over_seeds, over_seeds

DISTANCE = float(ndtri(0.85) * np.sqrt(2))  # of the means of both classes, for an AUC of 0.85
FEW = Bootstrap(20)


def models(targets: np.ndarray, distances: np.ndarray, rng: np.random.Generator) -> list[Predictions]:
    """Models that find the same images difficult, each with an error of its own."""
    common = np.sqrt(0.7) * rng.normal(size=len(targets))
    found = []
    for distance in distances:
        place = distance * (targets - 0.5) + common + np.sqrt(0.3) * rng.normal(size=len(targets))
        positive = expit(distance * place)
        found.append(Predictions(targets, np.stack([1 - positive, positive], axis=1), ["benign", "malignant"]))
    return found


def combined(predictions: list[Predictions]) -> dict[str, OverSeeds]:
    return over_seeds(predictions, [measure(p) for p in predictions], [intervals_of(p, FEW) for p in predictions])


def test_mean_standard_deviation_and_values():
    targets = np.arange(60) % 2
    predictions = models(targets, np.array([0.5, 1.5, 2.5]), np.random.default_rng(0))
    found = combined(predictions)["auc"]
    values = [measure(p)["auc"] for p in predictions]
    assert found.values == tuple(values)
    assert (found.mean, found.std) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert found.both[0] < found.sampling[0] < found.mean < found.sampling[1] < found.both[1] <= 1


def test_the_figure_has_a_row_for_each_metric():
    predictions = models(np.arange(60) % 2, np.array([0.5, 1.5]), np.random.default_rng(0))
    found = combined(predictions)
    figure = seeds_figure({name: found[name] for name in ("auc", "accuracy")}, [3, 4], 60)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["auc", "accuracy"]
    assert "2 seeds from 3 to 4, 60 test images" in figure.axes[0].get_xlabel()


def test_equal_seeds_add_nothing_to_the_interval():
    targets = np.arange(60) % 2
    (one,) = models(targets, np.array([1.5]), np.random.default_rng(0))
    found, alone = combined([one, one, one]), intervals_of(one, FEW)
    for name in ("auc", "accuracy", "log_loss"):
        assert found[name].both == pytest.approx(alone[name], abs=1e-6)


def test_a_metric_that_a_seed_lacks_has_no_value_and_one_without_interval_no_interval():
    targets = np.arange(60) % 2
    predictions = models(targets, np.array([1.0, 1.5]), np.random.default_rng(0))
    metrics = [measure(p) for p in predictions]
    del metrics[1]["auc"]
    found = over_seeds(predictions, metrics, [intervals_of(predictions[0], FEW), {}])
    assert "auc" not in found
    assert found["accuracy"].both is None


def test_recipes_whose_seeds_agree_are_as_uncertain_as_models():
    """Accuracies that are equal over the seeds by chance do not make a difference certain."""
    rng, targets = np.random.default_rng(0), np.arange(60) % 2

    def wrong_on(count: int) -> Predictions:
        right = np.ones(60, bool)
        right[rng.permutation(60)[:count]] = False
        positive = np.where(right == (targets == 1), 0.8, 0.2)
        return Predictions(targets, np.stack([1 - positive, positive], axis=1), ["benign", "malignant"])

    ours, theirs = [wrong_on(12), wrong_on(12)], [wrong_on(15), wrong_on(15)]
    (accuracy,) = [one for one in compare_over_seeds(ours, theirs, FEW) if one.metric == "accuracy"]
    assert accuracy.difference == pytest.approx(0.05)
    assert accuracy.low < 0 < accuracy.high
    assert accuracy.high - accuracy.low > 0.1
    assert 0.05 < accuracy.p_value < 1


def test_one_seed_each_is_a_comparison_of_two_models():
    targets = np.arange(80) % 2
    one, other = models(targets, np.array([1.0, 2.0]), np.random.default_rng(0))
    assert compare_over_seeds([one], [other], FEW) == compare_predictions(one, other, FEW)


def test_one_seed_against_several():
    targets = np.arange(80) % 2
    predictions = models(targets, np.array([1.0, 2.0, 2.2, 1.8]), np.random.default_rng(0))
    found = {one.metric: one for one in compare_over_seeds(predictions[1:], predictions[:1], FEW)}
    values = [measure(p)["auc"] for p in predictions]
    assert found["auc"].difference == pytest.approx(np.mean(values[1:]) - values[0])
    assert found["auc"].low < found["auc"].difference < found["auc"].high
    assert "over seeds" in found["auc"].test
