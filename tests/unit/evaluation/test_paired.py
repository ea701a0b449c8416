"""Paired tests of two models on the same images."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student

from melanoma.evaluation.delong import auc_influence
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.paired import Comparison, compare_predictions, compare_tables, corrected
from melanoma.evaluation.predict import probabilities_from_logits
from melanoma.evaluation.predictions import Bootstrap, Predictions


def predictions(n: int, classes: int, skill: float, seed: int, targets: np.ndarray | None = None) -> tuple:
    rng = np.random.default_rng(seed)
    if targets is None:
        targets = np.r_[np.arange(classes), rng.integers(0, classes, n - classes)]
    return targets, probabilities_from_logits(rng.normal(size=(n, classes)) + skill * np.eye(classes)[targets])


def compared(
    targets: np.ndarray, one: np.ndarray, other: np.ndarray, *, resamples: int = 200, seed: int = 0, **named
) -> dict:
    names = [str(c) for c in range(one.shape[1])]
    model, reference = (Predictions(targets, probabilities, names, **named) for probabilities in (one, other))
    found = compare_predictions(model, reference, Bootstrap(resamples, seed=seed))
    return {comparison.metric: comparison for comparison in found}


@pytest.mark.parametrize("classes", [2, 4])
def test_a_model_does_not_differ_from_itself(classes):
    targets, one = predictions(100, classes, 1.0, 0)
    for comparison in compared(targets, one, one).values():
        assert comparison.difference == 0
        assert comparison.low <= 0 <= comparison.high
        assert comparison.p_value > 0.5
        assert "No difference" in comparison.sentence("a", "b")


@pytest.mark.parametrize("classes", [2, 4])
def test_differences_are_those_of_the_metrics(classes):
    targets, one = predictions(150, classes, 1.5, 0)
    _, other = predictions(150, classes, 0.3, 1, targets)
    tasks = {"first": ["0"]} if classes > 2 else {}
    names = [str(c) for c in range(classes)]
    first, second = (measure(Predictions(targets, p, names, tasks)) for p in (one, other))
    found = compared(targets, one, other, binary_tasks=tasks)
    assert set(found) >= {"accuracy", "balanced_accuracy", "macro_f1", "auc", "log_loss", *(f"{v}/auc" for v in tasks)}
    for name, comparison in found.items():
        assert comparison.difference == pytest.approx(first[name] - second[name])
        assert comparison.low < comparison.difference < comparison.high
        assert comparison.p_value < 0.05
    assert "a has a higher accuracy than b" in found["accuracy"].sentence("a", "b")
    assert "a has a lower log_loss than b" in found["log_loss"].sentence("a", "b")


def test_accuracy_is_tested_on_the_images_that_one_model_alone_gets_right():
    targets = np.zeros(40, int)
    targets[20:] = 1
    right = np.eye(2)[targets] * 0.6 + 0.2
    wrong = right[:, ::-1]
    one, other = right.copy(), right.copy()
    one[:2], other[2:12], one[30:33], other[30:33] = wrong[:2], wrong[2:12], wrong[30:33], wrong[30:33]
    found = compared(targets, one, other)["accuracy"]
    assert found.test == "McNemar"
    assert found.p_value == pytest.approx(binomtest(10, 12).pvalue)
    assert found.difference == pytest.approx(8 / 40)


def test_auc_of_two_classes_is_tested_as_delong_did():
    targets, one = predictions(80, 2, 1.0, 0)
    _, other = predictions(80, 2, 0.5, 1, targets)
    found = compared(targets, one, other)["auc"]
    (first, by_one), (second, by_other) = (
        auc_influence(targets == 1, scores[:, 1], np.arange(80)) for scores in (one, other)
    )
    error = np.sqrt(((by_one - by_other) ** 2).sum())
    rarer = min((targets == 1).sum(), (targets == 0).sum())
    p_value = 2 * student.sf(abs(first - second) / error, rarer)
    assert (found.test, found.p_value) == ("DeLong", pytest.approx(p_value))
    # For AUCs near the middle, the skewed interval is about the normal one.
    assert (found.low, found.high) == pytest.approx(
        (first - second - 1.96 * error, first - second + 1.96 * error), abs=0.02
    )


def test_images_of_one_lesion_are_not_taken_for_independent():
    targets, one = predictions(40, 2, 1.0, 0)
    _, other = predictions(40, 2, 0.6, 1, targets)
    targets, one, other, groups = (np.repeat(x, 6, axis=0) for x in (targets, one, other, np.arange(40)))
    apart, together = compared(targets, one, other), compared(targets, one, other, groups=groups)
    for name, test in (("accuracy", "bootstrap"), ("auc", "Obuchowski")):
        assert together[name].test == test
        assert together[name].high - together[name].low > 1.5 * (apart[name].high - apart[name].low)
        assert together[name].p_value >= apart[name].p_value


def test_the_seed_decides():
    targets, one = predictions(60, 3, 1.0, 0)
    _, other = predictions(60, 3, 0.8, 1, targets)
    assert compared(targets, one, other, seed=3) == compared(targets, one, other, seed=3)
    assert compared(targets, one, other, seed=3) != compared(targets, one, other, seed=4)


def test_few_false_alarms_between_models_of_equal_skill():
    p_values = []
    for seed in range(40):
        targets, one = predictions(80, 2, 0.8, seed)
        _, other = predictions(80, 2, 0.8, 1000 + seed, targets)
        p_values.append(compared(targets, one, other, resamples=100)["balanced_accuracy"].p_value)
    assert np.mean(np.array(p_values) < 0.05) < 0.2


@pytest.mark.parametrize("which", ["model", "reference", "neither"])
def test_images_that_one_of_the_two_groups_are_not_independent(which: str):
    targets, one = predictions(120, 2, 1.5, 0)
    _, other = predictions(120, 2, 1.0, 1, targets)
    alone = [f"image {i}" for i in range(120)]
    lesions = [f"{label} {i // 4}" for i, label in enumerate(targets)]

    def table(name: str, probabilities: np.ndarray) -> pd.DataFrame:
        known = {"label": [str(t) for t in targets], "group": lesions if which == name else alone}
        return pd.DataFrame({**known, **{f"probability/{c}": probabilities[:, c] for c in range(2)}})

    found = compare_tables(table("model", one), table("reference", other), ["0", "1"], {})
    tests = {comparison.metric: comparison.test for comparison in found}
    assert tests["auc"] == ("DeLong" if which == "neither" else "Obuchowski")
    assert tests["accuracy"] == ("McNemar" if which == "neither" else "bootstrap")


def comparisons(**p_values: float) -> list[Comparison]:
    return [Comparison(name, 0.1, 0.0, 0.2, p_value, "DeLong") for name, p_value in p_values.items()]


def test_p_values_are_corrected_by_holm_in_two_families():
    found = corrected({"a": comparisons(accuracy=0.01, auc=0.02), "b": comparisons(accuracy=0.04, auc=0.03)}, "auc")
    assert [one.metric for one in found["a"]] == ["auc", "accuracy"]  # the primary metric first
    assert {run: [one.adjusted_p for one in tests] for run, tests in found.items()} == {
        "a": pytest.approx([0.04, 0.02]),
        "b": pytest.approx([0.04, 0.04]),
    }
    assert all(one.is_shown for tests in found.values() for one in tests)


def test_holm_is_that_of_his_example():
    # Step-down: 4 * 0.005, 3 * 0.011, 2 * 0.02, 1 * 0.04, none below the one before.
    [found] = corrected({"a": comparisons(a=0.011, b=0.02, c=0.005, d=0.04)}, "auc").values()
    assert {one.metric: one.adjusted_p for one in found} == pytest.approx({"c": 0.02, "a": 0.033, "b": 0.04, "d": 0.04})


def test_a_difference_that_does_not_hold_for_all_tests_is_not_called_one():
    [one, *_] = corrected({str(run): comparisons(auc=0.03) for run in range(5)}, "auc")["0"]
    assert not one.is_shown
    sentence = one.sentence("model", "reference")
    assert sentence.startswith("No difference in auc between model and reference was shown")
    assert "p = 0.03, corrected 0.15 (DeLong)" in sentence


def test_two_models_with_no_image_that_tells_them_apart_have_a_width():
    targets = np.repeat([0, 1], [90, 10])
    _, one = predictions(100, 2, 2.0, 0, targets)
    found = compared(targets, one, np.clip(one + 1e-4 * np.array([1, -1]), 1e-6, 1))
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert found[name].low < -0.005 < 0.005 < found[name].high


def test_below_ten_positives_only_metrics_of_all_images_are_compared():
    targets = np.repeat([0, 1], [91, 9])
    _, one = predictions(100, 2, 1.0, 0, targets)
    _, other = predictions(100, 2, 0.5, 1, targets)
    assert set(compared(targets, one, other)) == {"accuracy", "log_loss"}
