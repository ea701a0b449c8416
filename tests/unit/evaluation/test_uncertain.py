"""Prediction sets keep their promise on new images, and abstention leaves out the least sure."""

import numpy as np
import pytest

from melanoma.evaluation.uncertain import (
    Abstention,
    PredictionSets,
    abstention_curve,
    fit_abstention,
    fit_prediction_sets,
)

NAMES = ["nevus", "melanoma", "keratosis", "other"]


def drawn(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets, and probabilities of a model that is too sure of itself."""
    rng = np.random.default_rng(seed)
    honest = rng.dirichlet(np.ones(classes) / 2, n)
    targets = (honest.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=classes - 1)
    sure = honest**2 + 1e-9
    return targets, sure / sure.sum(axis=1, keepdims=True)


def in_set_by_hand(probabilities: list[float], threshold: float) -> set[int]:
    """A class is in when those of higher probability sum to at most the threshold."""
    return {
        c
        for c, p in enumerate(probabilities)
        if sum(q for i, q in enumerate(probabilities) if q > p or (q == p and i < c)) <= threshold
    }


@pytest.mark.parametrize("threshold", [0.0, 0.45, 0.6, 0.85, 1.0])
@pytest.mark.parametrize("row", [[0.5, 0.3, 0.15, 0.05], [0.1, 0.7, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]])
def test_sets_are_those_of_the_definition(row, threshold):
    members = PredictionSets(0.9, threshold).members(np.array([row]))
    assert set(np.flatnonzero(members[0])) == in_set_by_hand(row, threshold)
    assert members[0, int(np.argmax(row))]


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("coverage", [0.85, 0.95])
def test_coverage_on_new_images_is_what_was_asked_for(classes, coverage):
    found = []
    for seed in range(40):
        seen, fresh = drawn(200, classes, seed), drawn(1000, classes, 1000 + seed)
        measured = fit_prediction_sets(*seen, coverage).measured(*fresh, NAMES[:classes])
        found.append(measured["coverage"])
    # The promise is a lower bound of the mean; an upper one is 1 / 201 above it, but for ties at the most probable.
    assert np.mean(found) > coverage - 0.006
    if classes == 4:
        assert np.mean(found) < coverage + 0.02


def test_the_threshold_is_the_rank_of_split_conformal_prediction():
    targets, probabilities = drawn(19, 4, 0)
    needed = []
    for target, row in zip(targets, probabilities, strict=True):
        needed.append(sum(q for q in row if q > row[target]))
    assert fit_prediction_sets(targets, probabilities, 0.9).threshold == pytest.approx(sorted(needed)[17])  # 18th of 20


def test_with_too_few_images_every_set_holds_all_classes():
    targets, probabilities = drawn(8, 4, 0)
    sets = fit_prediction_sets(targets, probabilities, 0.9)
    assert sets.threshold == 1
    assert sets.members(drawn(50, 4, 1)[1]).all()


def test_each_class_has_the_coverage_where_that_is_asked_for():
    """With one threshold, the rare class is left out of its sets more often than is promised."""
    rng, worst = np.random.default_rng(0), {False: [], True: []}
    shares = np.array([0.7, 0.25, 0.05])
    for _ in range(60):
        targets = rng.choice(3, size=2600, p=shares)
        scores = np.exp(1.5 * np.eye(3)[targets] + rng.normal(size=(2600, 3))) * shares
        probabilities = scores / scores.sum(axis=1, keepdims=True)
        seen, fresh = slice(0, 600), slice(600, None)
        for per_class, found in worst.items():
            sets = fit_prediction_sets(targets[seen], probabilities[seen], 0.9, per_class=per_class)
            found.append(sets.measured(targets[fresh], probabilities[fresh], NAMES[:3])["coverage/keratosis"])
    assert np.mean(worst[False]) < 0.8
    assert 0.89 < np.mean(worst[True]) < 0.95


def test_a_class_with_too_few_images_is_in_every_set():
    targets, probabilities = drawn(60, 4, 0)
    kept = np.flatnonzero(targets != 2)
    sets = fit_prediction_sets(targets[kept], probabilities[kept], 0.9, per_class=True)
    assert sets.threshold[2] == 1
    assert max(sets.threshold[:2]) < 1
    assert sets.members(drawn(50, 4, 1)[1])[:, 2].all()


def test_measures_by_hand():
    targets = np.array([0, 0, 1, 2])
    probabilities = np.array([[0.9, 0.1, 0], [0.4, 0.5, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    measured = PredictionSets(0.9, 0.5).measured(targets, probabilities, NAMES[:3])
    assert measured == pytest.approx(
        {
            "coverage": 0.75, "size": 1.25, "single": 0.75, "coverage/nevus": 1, "size/nevus": 1.5,
            "coverage/melanoma": 1, "size/melanoma": 1, "coverage/keratosis": 0, "size/keratosis": 1,
        }
    )  # fmt: skip
    abstention = Abstention(0.25, 0.6)
    np.testing.assert_array_equal(abstention.abstained(probabilities), [False, True, False, False])
    assert abstention.measured(targets, probabilities) == pytest.approx({"share": 0.25, "accuracy": 2 / 3})
    assert Abstention(0.5, 2).measured(targets, probabilities) == {"share": 1.0}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_the_least_sure_share_falls_below_the_threshold(share):
    _, probabilities = drawn(1000, 4, 0)
    assert fit_abstention(probabilities, share).abstained(probabilities).mean() == pytest.approx(share, abs=2e-3)


def test_the_curve_begins_with_all_images_and_is_the_accuracy_of_those_kept():
    targets, probabilities = drawn(300, 4, 0)
    share, accuracy = abstention_curve(targets, probabilities)
    hit = probabilities.argmax(axis=1) == targets
    assert (share[0], accuracy[0]) == (0, pytest.approx(hit.mean()))
    assert (np.diff(share) > 0).all()
    surest = np.argsort(-probabilities.max(axis=1))
    for position in (50, 200):
        kept = round((1 - share[position]) * 300)
        assert accuracy[position] == pytest.approx(hit[surest[:kept]].mean())


def test_images_of_the_same_certainty_go_together():
    share, accuracy = abstention_curve(np.array([0, 1, 0]), np.full((3, 2), 0.5))
    assert (share.tolist(), accuracy.tolist()) == ([0], [pytest.approx(2 / 3)])
