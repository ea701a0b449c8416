"""Paired tests of two models on the same images."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student

from melanoma.evaluation.delong import auc_influence
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.paired import compare_predictions, compare_tables
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
