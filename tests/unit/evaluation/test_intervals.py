"""Intervals: which there are, what they contain, and how images are drawn."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from melanoma.evaluation.evaluate import NO_INTERVALS, evaluate, groups_of, predictions_of, predictions_table
from melanoma.evaluation.intervals import bootstrap_weights, intervals_of, scarcity
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.predict import probabilities_from_logits
from melanoma.evaluation.predictions import Bootstrap, Predictions


def predictions(n: int = 200, classes: int = 3, seed: int = 0, digits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Targets of unequal classes and rounded probabilities, so that there are ties."""
    rng = np.random.default_rng(seed)
    targets = np.r_[np.arange(classes), np.minimum(rng.integers(0, 2 * classes, n - classes), classes - 1)]
    return targets, probabilities_from_logits(rng.normal(size=(n, classes)) + np.eye(classes)[targets]).round(digits)


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_intervals_are_about_the_estimates(classes):
    targets, probabilities = predictions(600, classes)
    given = Predictions(targets, probabilities, [f"class {c}" for c in range(classes)])
    estimates = measure(given)
    found = intervals_of(given, Bootstrap(500))
    assert set(found) == {name for name in estimates if not name.startswith("support/")}
    for name, (low, high) in found.items():
        assert low <= estimates[name] <= high
        assert low < high
    assert found["ece"][0] == 0


def test_intervals_widen_with_confidence_and_narrow_with_images():
    def width(n: int, confidence: float) -> float:
        low, high = intervals_of(Predictions(*predictions(n), "abc"), Bootstrap(confidence=confidence))["accuracy"]
        return high - low

    assert width(200, 0.5) < width(200, 0.95) < width(200, 0.999)
    assert width(3200, 0.95) == pytest.approx(width(200, 0.95) / 4, rel=0.25)


def test_the_interval_of_a_share_is_that_of_the_binomial_distribution():
    targets = np.repeat([0, 1], 200)
    probabilities = np.where(np.arange(400) % 200 < 150, 0.9, 0.1)
    probabilities = np.stack([probabilities, 1 - probabilities], axis=1)
    probabilities[200:] = probabilities[200:, ::-1]
    found = intervals_of(Predictions(targets, probabilities, "ab"), Bootstrap(4000))
    spread = 1.96 * np.sqrt(0.75 * 0.25 / 200)
    assert found["sensitivity/a"] == pytest.approx((0.75 - spread, 0.75 + spread), abs=0.01)
    assert found["accuracy"] == pytest.approx((0.75 - spread / 2**0.5, 0.75 + spread / 2**0.5), abs=0.01)


def test_the_seed_decides():
    given = Predictions(*predictions(), "abc")
    first, second, other = (intervals_of(given, Bootstrap(seed=seed)) for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_no_resamples_no_intervals():
    assert intervals_of(Predictions(*predictions(), "abc"), Bootstrap(0)) == {}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_probabilities_that_are_no_numbers_have_no_intervals(value):
    targets, probabilities = predictions()
    probabilities[3, 1] = value
    assert intervals_of(Predictions(targets, probabilities, "abc"), Bootstrap()) == {}


def test_absent_classes_have_none():
    targets, probabilities = predictions(300, classes=4)
    kept = targets != 1
    found = intervals_of(Predictions(targets[kept], probabilities[kept], "abcd"), Bootstrap())
    assert {n for n in found if n.startswith(("sensitivity", "auc"))} == {
        "auc",
        *(f"{m}/{c}" for c in "acd" for m in ("auc", "sensitivity")),
    }
    alone = intervals_of(Predictions(targets, probabilities, "abcd").where(targets == 3), Bootstrap())
    assert {n for n in alone if n.startswith(("sensitivity", "auc", "mcc"))} == {"sensitivity/d"}


def test_each_draw_of_a_band_keeps_the_size_of_each_class():
    targets, _ = predictions(100, 4)
    weights = bootstrap_weights(targets, None, 50, np.random.default_rng(0))
    assert weights.shape == (50, 100)
    assert np.array_equal(weights, weights.round())
    for c in range(4):
        assert (weights[:, targets == c].sum(axis=1) == (targets == c).sum()).all()
    assert (weights == 0).mean() == pytest.approx(np.exp(-1), abs=0.02)
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.6)


def test_groups_are_drawn_whole():
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 30, 100)
    targets = groups % 3
    weights = bootstrap_weights(targets, groups, 50, np.random.default_rng(0))
    drawn = np.stack([weights[:, groups == g][:, 0] for g in np.unique(groups)], axis=1)
    for position, g in enumerate(np.unique(groups)):
        assert (weights[:, groups == g] == drawn[:, [position]]).all()
    for c in range(3):
        members = np.unique(groups) % 3 == c
        assert (drawn[:, members].sum(axis=1) == members.sum()).all()
    assert len(np.unique(drawn)) > 2


def test_a_group_of_several_classes_stands_with_its_first_image():
    targets = np.array([0, 1, 0, 1, 1, 1])
    groups = np.array(["x", "x", "y", "z", "z", "w"])
    weights = bootstrap_weights(targets, groups, 200, np.random.default_rng(0))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 0] + weights[:, 2] == 2).all()
    assert (weights[:, 3] + weights[:, 5] == 2).all()


def few(positives: int, negatives: int, copies: int = 1) -> Predictions:
    targets = np.repeat(np.arange(2), [negatives, positives])
    _, probabilities = predictions(len(targets), 2, digits=8)
    groups = np.repeat(np.arange(len(targets)), copies) if copies > 1 else None
    return Predictions(
        np.repeat(targets, copies), np.repeat(probabilities, copies, axis=0), ["nevus", "melanoma"], groups=groups
    )


@pytest.mark.parametrize("copies", [1, 3])
def test_below_ten_positives_there_is_no_interval_and_the_reason_is_told(copies: int):
    given = few(9, 60, copies)
    found, reasons = intervals_of(given, Bootstrap(100)), scarcity(given)
    unit = "images" if copies == 1 else "groups of images"
    assert not {"auc", "sensitivity/melanoma", "balanced_accuracy", "average_precision", "mcc"} & set(found)
    assert {"accuracy", "specificity/melanoma", "log_loss"} <= set(found)
    assert reasons["auc"] == f"9 {unit} of melanoma, where 10 are needed"
    assert reasons["specificity_at_sensitivity_95"] == f"9 {unit} of melanoma, where 40 are needed"
    assert set(found).isdisjoint(reasons)
    assert {"auc", "partial_auc", "mcc"} <= set(intervals_of(few(10, 60, copies), Bootstrap(100)))


def test_fewer_than_ten_groups_have_no_interval_at_all():
    given = few(30, 30)
    assert intervals_of(replace(given, groups=np.arange(60) // 7), Bootstrap(100)) == {}
    assert intervals_of(replace(given, groups=np.arange(60) // 4), Bootstrap(100)) != {}


@pytest.mark.parametrize(("rare", "shown"), [(2, True), (3, False)])
def test_a_mean_over_classes_needs_ten_images_of_most_of_them(rare: int, shown: bool):
    sizes = [16] * (9 - rare) + [3] * rare
    targets = np.repeat(np.arange(9), sizes)
    _, probabilities = predictions(len(targets), 9, digits=8)
    found = intervals_of(Predictions(targets, probabilities, [f"class {c}" for c in range(9)]), Bootstrap(100))
    assert all((name in found) == shown for name in ("balanced_accuracy", "macro_f1", "auc", "mcc"))
    assert "average_precision" not in found
    assert "sensitivity/class 8" not in found


def test_scores_that_are_all_alike_have_an_interval_about_chance():
    targets = np.arange(100) % 2
    low, high = intervals_of(Predictions(targets, np.full((100, 2), 0.5), "ab"), Bootstrap(200))["partial_auc"]
    assert low < 0.02 < high < 0.1


def test_smoothing_does_not_bias_a_partial_area_of_many_images():
    targets = np.arange(3000) % 2
    scores = 2.3 * targets + np.random.default_rng(0).normal(size=3000)
    positive = 1 / (1 + np.exp(1.15 - scores))
    given = Predictions(targets, np.stack([1 - positive, positive], axis=1), "ab")
    low, high = intervals_of(given, Bootstrap(300))["partial_auc"]
    assert (low + high) / 2 == pytest.approx(measure(given)["partial_auc"], abs=0.15 * (high - low))


def test_groups_widen_the_interval_of_images_that_are_alike():
    targets, probabilities = predictions(60, 2)
    targets, probabilities, groups = (np.repeat(x, 8, axis=0) for x in (targets, probabilities, np.arange(60)))
    images = intervals_of(Predictions(targets, probabilities, "ab"), Bootstrap())["accuracy"]
    whole = intervals_of(Predictions(targets, probabilities, "ab", groups=groups), Bootstrap())["accuracy"]
    assert whole[1] - whole[0] > 2 * (images[1] - images[0])


def test_images_are_grouped_by_lesion_where_few_patients_are_known():
    patients = ["p", None, "p", None, None, None]
    rows = pd.DataFrame({"path": list("abcdef"), "lesion": list("xxyyzz"), "patient": patients})
    groups = groups_of(rows)
    assert groups is not None
    assert pd.factorize(groups)[0].tolist() == [0, 0, 0, 0, 1, 1]
    assert groups_of(rows.drop(columns=["lesion", "patient"])) is None
    assert list(groups_of(rows.assign(group=["g", None, "g", "h", "h", "i"]))) == ["g", "b", "g", "h", "h", "i"]


def test_predictions_name_the_group_of_each_image():
    rows = pd.DataFrame({"path": list("abcd"), "lesion": list("xxyy"), "label": list("mmnn"), "part": "test"})
    rows = rows.assign(target=[0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    given = predictions_of(rows, probabilities, ["m", "n"], {})
    table = predictions_table([evaluate("test", rows, given, NO_INTERVALS)])
    assert pd.factorize(table["group"])[0].tolist() == [0, 0, 1, 1]
