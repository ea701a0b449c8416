"""Readers against a model: by hand, against formulas for fixed cases, and how often the intervals hold."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr
from scipy.stats import t

from melanoma.errors import DataError
from melanoma.evaluation.curve_plots import readers_figure
from melanoma.evaluation.predictions import BinaryTask
from melanoma.evaluation.readers import compare_with_readers, reader_calls

PATHS = [f"set/{c}/image_{i}.jpg" for i, c in enumerate(["mel"] * 20 + ["nv"] * 30)]
POSITIVE = np.arange(50) < 20


def task(seed: int = 0) -> BinaryTask:
    scores = 1.2 * POSITIVE + np.random.default_rng(seed).normal(size=50)
    return BinaryTask("malignant", "", POSITIVE, scores)


def table(**calls: list[float]) -> pd.DataFrame:
    rows = [
        (reader, path, str(rating)) for reader, own in calls.items() for path, rating in zip(PATHS, own, strict=False)
    ]
    return pd.DataFrame(rows, columns=["reader", "image", "rating"])


def test_points_of_readers():
    always, half = [1] * 50, [1] * 10 + [0] * 10 + [0] * 30
    readers = reader_calls(table(always=always, half=half), PATHS, task(), np.arange(50), None)
    assert [one.name for one in readers] == ["always", "half"]
    assert [one.sensitivity[0] for one in readers] == [1, 0.5]
    assert [one.specificity[0] for one in readers] == [0, 1]
    assert readers[1].sensitivity[1] < 0.5 < readers[1].sensitivity[2]
    assert readers_figure(task(), 0.5, readers).axes


@pytest.mark.parametrize("name", ["set/mel/image_3.jpg", "image_3.jpg", "image_3"])
def test_an_image_is_named_by_its_path_or_file_name(name: str):
    calls = table(one=[1] * 50)
    calls.loc[3, "image"] = name
    assert reader_calls(calls, PATHS, task(), np.arange(50), None)[0].images[3] == 3


def test_the_model_compared_with_itself_does_not_differ():
    model = task()
    calls = (model.scores >= 0.5).astype(int).tolist()
    readers = reader_calls(table(a=calls, b=calls), PATHS, model, np.arange(50), None)
    for one in compare_with_readers(readers, model, np.arange(50), 0.5):
        assert (one.difference, one.p_value) == (0, 1)
        assert -0.15 < one.low < 0 < one.high < 0.15  # that nobody differs on 20 images is no certainty


def test_equal_readers_leave_the_uncertainty_of_the_images():
    """Readers who all call the same have no variance of their own: the test is that of paired images."""
    model, rng = task(), np.random.default_rng(1)
    calls = (0.8 * POSITIVE + rng.normal(size=50) >= 0.4).astype(int)
    readers = reader_calls(table(a=calls.tolist(), b=calls.tolist()), PATHS, model, np.arange(50), None)
    sensitivity = compare_with_readers(readers, model, np.arange(50), 0.5)[0]
    difference = (model.scores[POSITIVE] >= 0.5).astype(float) - calls[POSITIVE]
    error = difference.std(ddof=1) / np.sqrt(20)
    assert sensitivity.difference == pytest.approx(difference.mean())
    assert sensitivity.high - sensitivity.low == pytest.approx(2 * t.ppf(0.975, 19) * error, rel=1e-3)


def test_ratings_on_several_levels_have_an_auc_and_need_a_threshold():
    model, rng = task(), np.random.default_rng(2)
    ratings = {name: np.clip(np.round(3 + POSITIVE + rng.normal(size=50)), 1, 5).tolist() for name in "abc"}
    with pytest.raises(DataError, match="--threshold 4"):
        reader_calls(table(**ratings), PATHS, model, np.arange(50), None)
    readers = reader_calls(table(**ratings), PATHS, model, np.arange(50), 4)
    found = {one.metric: one for one in compare_with_readers(readers, model, np.arange(50), 0.5)}
    assert set(found) == {"sensitivity", "specificity", "auc"}
    assert found["auc"].low < found["auc"].difference < found["auc"].high


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "image_99"}, "image_99"),
        ({"rating": "maybe"}, "Ratings are finite numbers. Received: maybe"),
        ({"rating": "inf"}, "Received: inf"),
        ({"reader": "  "}, "needs the name of a reader"),
        ({"image": PATHS[1]}, "rated an image twice"),
    ],
)
def test_tables_that_do_not_fit(change: dict[str, str], message: str):
    calls = table(one=[1] * 50)
    for column, value in change.items():
        calls.loc[0, column] = value
    with pytest.raises(DataError, match=message):
        reader_calls(calls, PATHS, task(), np.arange(50), None)


def test_a_name_with_spaces_around_it_is_the_same_reader():
    calls = table(one=[1] * 50)
    calls.loc[::2, "reader"] = " one "
    assert [reader.name for reader in reader_calls(calls, PATHS, task(), np.arange(50), None)] == ["one"]


def test_few_images_are_not_tested_and_bounds_stay_in_their_range():
    model = task()
    few = {name: [1] * 5 + [0] * 15 + [0] * 30 for name in "ab"}
    rows = table(**few)
    rows = rows[~rows.image.isin(PATHS[5:20])]  # five positives are left
    readers = reader_calls(rows, PATHS, model, np.arange(50), None)
    assert [one.metric for one in compare_with_readers(readers, model, np.arange(50), 0.5)] == ["specificity"]
    always = reader_calls(table(a=[1] * 50, b=[1] * 50), PATHS, model, np.arange(50), None)
    for one in compare_with_readers(always, model, np.arange(50), 99.0):
        assert -1 <= one.low <= one.high <= 1
    with pytest.raises(DataError, match="--threshold nan"):
        reader_calls(rows, PATHS, model, np.arange(50), float("nan"))


def test_a_reader_of_one_side_only_is_refused():
    with pytest.raises(DataError, match="20 of 20 positive"):
        reader_calls(table(one=[1] * 20), PATHS, task(), np.arange(50), None)


def test_the_intervals_hold_for_other_readers_and_images():
    rng, held = np.random.default_rng(0), {"sensitivity": [], "specificity": []}
    skill, criterion = 1.5 + 0.3 * rng.normal(size=100_000), 0.75 + 0.3 * rng.normal(size=100_000)
    truth = {
        "sensitivity": ndtr(0.75) - ndtr(skill - criterion).mean(),
        "specificity": ndtr(0.75) - ndtr(criterion).mean(),
    }
    for _ in range(150):
        positive = np.arange(150) < 50
        common = np.sqrt(0.5) * rng.normal(size=150)
        model = BinaryTask("m", "", positive, 1.5 * positive + common + np.sqrt(0.5) * rng.normal(size=150))
        rows = []
        for reader in range(5):
            own = (1.5 + 0.3 * rng.normal()) * positive + common + np.sqrt(0.5) * rng.normal(size=150)
            called = own >= 0.75 + 0.3 * rng.normal()
            rows += [(f"r{reader}", f"i{place}", int(call)) for place, call in enumerate(called)]
        calls = pd.DataFrame(rows, columns=["reader", "image", "rating"])
        readers = reader_calls(calls, [f"i{place}" for place in range(150)], model, np.arange(150), None)
        for one in compare_with_readers(readers, model, np.arange(150), 0.75):
            held[one.metric].append(one.low <= truth[one.metric] <= one.high)
    assert {name: np.mean(own) >= 0.9 for name, own in held.items()} == {"sensitivity": True, "specificity": True}
