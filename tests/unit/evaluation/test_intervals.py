"""Intervals: how often they contain the truth, how images are drawn, and that resamples are measured as they should."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from melanoma.evaluation.evaluate import NO_INTERVALS, evaluate, groups_of, predictions_of, predictions_table
from melanoma.evaluation.intervals import bootstrap_values, bootstrap_weights, intervals_of
from melanoma.evaluation.metrics import measure, resampled_metrics
from melanoma.evaluation.predict import probabilities_from_logits
from melanoma.evaluation.predictions import Bootstrap, Predictions


def predictions(n: int = 200, classes: int = 3, seed: int = 0, digits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Targets of unequal classes and rounded probabilities, so that there are ties."""
    rng = np.random.default_rng(seed)
    targets = np.r_[np.arange(classes), np.minimum(rng.integers(0, 2 * classes, n - classes), classes - 1)]
    return targets, probabilities_from_logits(rng.normal(size=(n, classes)) + np.eye(classes)[targets]).round(digits)


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_intervals_are_about_the_estimates(classes):
    targets, probabilities = predictions(400, classes)
    given = Predictions(targets, probabilities, [f"class {c}" for c in range(classes)])
    estimates = measure(given)
    found = intervals_of(given, Bootstrap(500))
    assert set(found) == {name for name in estimates if not name.startswith("support/")}
    for name, (low, high) in found.items():
        assert low <= high
        if name != "ece":  # which is biased upwards in resamples
            assert low <= estimates[name] <= high


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_a_resample_that_draws_each_image_once_gives_the_estimates(classes):
    targets, probabilities = predictions(300, classes)
    names = [f"class {c}" for c in range(classes)]
    given = Predictions(targets, probabilities, names, {"some": names[:2]} if classes > 2 else {})
    found = resampled_metrics(given, np.ones((1, 300), np.float32))
    estimates = measure(given)
    for name, value in estimates.items():
        if not name.startswith("support/"):
            assert found[name][0] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("classes", [2, 4])
def test_a_resample_is_measured_as_its_images_would_be(classes):
    targets, probabilities = predictions(120, classes)
    drawn = np.random.default_rng(3).integers(0, 4, 120)
    names, again = [str(c) for c in range(classes)], np.repeat(np.arange(120), drawn)
    found = resampled_metrics(Predictions(targets, probabilities, names), drawn[None].astype(np.float32))
    estimates = measure(Predictions(targets[again], probabilities[again], names))
    for name, value in estimates.items():
        if not name.startswith("support/"):
            assert found[name][0] == pytest.approx(value, rel=1e-5), name


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
    targets, probabilities = predictions(classes=4)
    kept = targets != 1
    found = intervals_of(Predictions(targets[kept], probabilities[kept], "abcd"), Bootstrap())
    assert {n for n in found if n.startswith(("sensitivity", "auc"))} == {
        "auc",
        *(f"{m}/{c}" for c in "acd" for m in ("auc", "sensitivity")),
    }
    alone = intervals_of(Predictions(targets, probabilities, "abcd").where(targets == 3), Bootstrap())
    assert {n for n in alone if n.startswith(("sensitivity", "auc", "mcc"))} == {"sensitivity/d"}


@pytest.mark.parametrize("grouped", [False, True])
def test_a_resample_draws_whole_groups_of_all_classes_together(grouped: bool):
    targets, probabilities = predictions(100, 4)
    groups = np.arange(100) // 3 if grouped else None
    given = Predictions(targets, probabilities, "abcd", groups=groups)
    found = bootstrap_values(given, Bootstrap(250), lambda weights: {"weights": weights})["weights"]
    assert found.shape == (250, 100)
    if grouped:
        assert all(len(np.unique(found[:, groups == g], axis=1).T) == 1 for g in range(34))
    else:
        assert (found.sum(axis=1) == 100).all()
    of_class = found[:, targets == 0].sum(axis=1)
    assert of_class.std() > 1  # another sample has another number of images of a class
    assert of_class.mean() == pytest.approx((targets == 0).sum(), rel=0.1)


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


def test_groups_widen_the_interval_of_images_that_are_alike():
    targets, probabilities = predictions(60, 2)
    targets, probabilities, groups = (np.repeat(x, 8, axis=0) for x in (targets, probabilities, np.arange(60)))
    images = intervals_of(Predictions(targets, probabilities, "ab"), Bootstrap())["accuracy"]
    whole = intervals_of(Predictions(targets, probabilities, "ab", groups=groups), Bootstrap())["accuracy"]
    assert whole[1] - whole[0] > 2 * (images[1] - images[0])


def of_a_resample(targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """The metrics by scikit-learn, with the draws as weights."""
    predicted, present = probabilities.argmax(axis=1), np.unique(targets)
    recalls = sk.recall_score(targets, predicted, labels=present, average=None, sample_weight=weights, zero_division=0)
    if probabilities.shape[1] == 2:
        auc = sk.roc_auc_score(targets, probabilities[:, 1], sample_weight=weights)
    else:
        auc = np.mean([sk.roc_auc_score(targets == c, probabilities[:, c], sample_weight=weights) for c in present])
    return {
        "accuracy": sk.accuracy_score(targets, predicted, sample_weight=weights),
        "balanced_accuracy": recalls.mean(),
        "macro_f1": sk.f1_score(
            targets, predicted, labels=present, average="macro", sample_weight=weights, zero_division=0
        ),
        "auc": auc,
        **{f"sensitivity/{c}": recall for c, recall in zip(present, recalls, strict=True)},
    }


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("classes", "absent"), [(2, None), (5, None), (5, 3)])
def test_every_metric_of_a_resample_equals_scikit_learns(classes, absent, grouped):
    targets, probabilities = predictions(150, classes)
    kept = targets != absent
    targets, probabilities = targets[kept], probabilities[kept]
    groups = np.arange(len(targets)) // 2 * 10 + targets if grouped else None
    given = Predictions(targets, probabilities, [str(c) for c in range(classes)], groups=groups)
    drawn = []

    def measured(weights: np.ndarray) -> dict[str, np.ndarray]:
        drawn.append(weights)
        return resampled_metrics(given, weights)

    found = bootstrap_values(given, Bootstrap(3, seed=7), measured)
    for number, weights in enumerate(drawn[0]):
        for name, value in of_a_resample(targets, probabilities, weights).items():
            assert found[name][number] == pytest.approx(value, rel=1e-5)


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
