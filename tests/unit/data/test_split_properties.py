"""Whatever the classes and groups: a sound split, or a message that says why there is none."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from melanoma.config.schema import SplitConfig
from melanoma.data.split import PARTS, REMOVED, fold_parts, left_out_parts, refuse_overlap, split_parts
from melanoma.errors import DataError

SHARES = st.sampled_from([0.01, 0.05, 0.1, 0.2, 0.25, 0.3, 0.45])
SEEDS = st.integers(0, 2**32 - 1)
METHODS = st.sampled_from(["auto", "holdout", "official"])
few = settings(
    phases=[Phase.explicit, Phase.generate],
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    database=None,
)


@st.composite
def tables(draw, parts: tuple[str, ...] = ("",)) -> pd.DataFrame:
    """Two to six classes, the smallest of one image, in groups of all sizes that may hold several classes."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=2, max_size=6))
    rng = np.random.default_rng(draw(SEEDS))
    count, labels = sum(sizes), np.repeat(list("abcdef")[: len(sizes)], sizes)
    kind = draw(st.sampled_from(["alone", "within classes", "across classes", "a class tied", "all tied"]))
    groups = np.arange(count)
    if kind == "within classes":
        groups = np.array([f"{label}{rng.integers(1 + count // 3)}" for label in labels])
    elif kind == "across classes":
        groups = rng.integers(draw(st.integers(1, count)), size=count)
    elif kind == "a class tied":
        groups[labels == rng.choice(np.unique(labels))] = count
    elif kind == "all tied":
        groups[:] = 0
    return pd.DataFrame(
        {
            "path": [f"{i}.jpg" for i in range(count)],
            "label": labels,
            "part": rng.choice(list(parts), count),
            "group": pd.factorize(groups)[0],
            "site": rng.choice(["arm", "leg", "neck", None], count),
        }
    ).sample(frac=1, random_state=1)


def check_sound(table: pd.DataFrame, parts: pd.Series, *, removes: bool, everywhere: tuple[str, ...]) -> None:
    assert parts.index.equals(table.index)
    assert set(parts) <= {*PARTS, *([REMOVED] if removes else [])}
    used = table.assign(part=parts)[parts != REMOVED]
    assert used.groupby("group").part.nunique().max() == 1
    refuse_overlap(used)
    for part in everywhere:
        assert set(used.label[used.part == part]) == set(table.label)


def split_or_none(call):
    """The result, or None for data that a DataError refuses; anything else is an error."""
    try:
        return call()
    except DataError as error:
        assert "Received: " in str(error)
        return None


@few
@given(tables(), METHODS.filter(lambda method: method != "official"), SHARES, SHARES, SEEDS)
def test_a_drawn_split_is_sound_or_refused(table, method, validation, test, seed):
    def drawn(seed: int):
        return split_parts(table, SplitConfig(method=method, validation=validation, test=test), seed)

    parts = split_or_none(lambda: drawn(seed))
    assume(parts is not None)
    check_sound(table, parts, removes=False, everywhere=PARTS)
    pd.testing.assert_series_equal(drawn(seed), parts)


@few
@given(tables(("train", "train", "test")), METHODS, SHARES, SHARES, SEEDS)
def test_a_split_with_a_delivered_test_set_is_sound_or_refused(table, method, validation, test, seed):
    parts = split_or_none(
        lambda: split_parts(table, SplitConfig(method=method, validation=validation, test=test), seed)
    )
    assume(parts is not None)
    kept = method != "holdout" and bool((table.part == "test").any())
    check_sound(table, parts, removes=kept, everywhere=PARTS[:2] if kept else PARTS)
    if kept:
        assert ((parts == "test") == (table.part == "test")).all()


@few
@given(tables(("train", "train", "validation", "test")), METHODS, SEEDS)
def test_a_split_with_delivered_validation_and_test_sets_is_sound_or_refused(table, method, seed):
    table.loc[table.index[0], "part"] = "test"
    parts = split_or_none(lambda: split_parts(table, SplitConfig(method=method, validation=0.2, test=0.2), seed))
    assume(parts is not None)
    kept = method != "holdout"
    check_sound(table, parts, removes=kept, everywhere=PARTS[:2] if kept else PARTS)


@few
@given(tables(), st.integers(2, 6), SHARES, SEEDS)
def test_folds_test_each_row_once_or_are_refused(table, folds, validation, seed):
    runs = split_or_none(lambda: fold_parts(table, SplitConfig(folds=folds, validation=validation), seed))
    assume(runs is not None)
    assert len(runs) == folds
    assert (sum((parts == "test").astype(int) for parts in runs) == 1).all()
    for parts in runs:
        check_sound(table, parts, removes=False, everywhere=PARTS[:2])
    again = fold_parts(table, SplitConfig(folds=folds, validation=validation), seed)
    assert all(first.equals(second) for first, second in zip(runs, again, strict=True))


@few
@given(tables(), SHARES, SEEDS)
def test_leaving_values_out_is_sound_or_refused(table, validation, seed):
    runs = split_or_none(lambda: left_out_parts(table, SplitConfig(column="site", validation=validation), seed))
    assume(runs is not None)
    assert list(runs) == sorted(table.site.dropna().unique())
    for value, parts in runs.items():
        assert ((parts == "test") == (table.site == value)).all()
        check_sound(table, parts, removes=True, everywhere=PARTS[:2])


@few
@given(tables(), st.integers(0, 2**16), st.sampled_from([1, 2]))
def test_a_row_moved_away_from_its_group_is_refused(table, chosen, shift):
    parts = split_or_none(lambda: split_parts(table, SplitConfig(method="auto", validation=0.2, test=0.2), seed=0))
    sizes = table.groupby("group").path.transform("size")
    assume(parts is not None and (sizes > 1).any())
    moved = table.index[sizes > 1][chosen % int((sizes > 1).sum())]
    parts[moved] = PARTS[PARTS.index(parts[moved]) - shift]
    with pytest.raises(DataError, match="keep images of one lesion, patient or cluster of copies in one part"):
        refuse_overlap(table.assign(part=parts))


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("method", ["auto", "holdout"])
def test_a_class_of_one_or_two_images_is_named(size, method):
    labels = ["a"] * 30 + ["rare"] * size
    table = pd.DataFrame(
        {"path": map(str, range(len(labels))), "label": labels, "part": "", "group": range(len(labels))}
    )
    with pytest.raises(DataError, match=f"Class 'rare' has too few images.*'rare': {size}"):
        split_parts(table, SplitConfig(method=method, validation=0.2, test=0.2), seed=0)
