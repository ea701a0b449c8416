"""What is left out for a data set's faults."""

import pandas as pd
import pytest

from melanoma.auditing.policy import apply_policy, contradicting
from melanoma.config.schema import AuditConfig

DUPLICATE, CONFLICT = "duplicate", "label conflict"


def table(*rows: tuple) -> pd.DataFrame:
    """Rows of path, label, part, pixels and cluster; in these small clusters each contradicts all others."""
    found = pd.DataFrame(list(rows), columns=["path", "label", "part", "pixels", "cluster"])
    return found.assign(contradicts=found.groupby("cluster").label.transform("nunique") > 1)


def chain(length: int) -> pd.DataFrame:
    """Images of which each is like the next; the last, of another label, contradicts the one before it."""
    rows = [(f"a/{i:02}", "a", "", f"p{i}", 0) for i in range(length - 1)] + [("b/99", "b", "", "q", 0)]
    images = table(*rows)
    return images.assign(contradicts=images.index >= length - 2)


def left_out(
    images: pd.DataFrame, *, duplicates: str = "first", conflicts: str = "drop", keep_test: bool = True
) -> dict[str, str]:
    reasons = apply_policy(images, AuditConfig(duplicates=duplicates, conflicts=conflicts), keep_test=keep_test)
    assert reasons.index.equals(images.index)
    return {path: reason for path, reason in zip(images.path, reasons, strict=True) if reason}


SOUND = table(("a/1", "a", "", "p1", 0), ("a/2", "a", "", "p2", 1), ("b/3", "b", "", "p3", 2))
COPIES = table(
    ("a/1", "a", "", "p1", 0), ("a/2", "a", "", "p1", 0), ("a/3", "a", "", "p3", 0), ("b/4", "b", "", "p4", 1)
)  # fmt: skip
CONFLICTS = table(
    ("a/2", "a", "", "p1", 0), ("b/1", "b", "", "p1", 0), ("a/3", "a", "", "p3", 0), ("b/4", "b", "", "p4", 1)
)  # fmt: skip
LEAKS = table(
    ("test/a/1", "a", "test", "p1", 0), ("train/a/2", "a", "train", "p1", 0),
    ("test/a/3", "a", "test", "p3", 1), ("train/b/4", "b", "train", "p3", 1),
    ("test/a/5", "a", "test", "p5", 2), ("test/b/6", "b", "test", "p5", 2), ("train/a/7", "a", "train", "p5", 2),
    ("test/a/8", "a", "test", "p8", 3), ("test/a/9", "a", "test", "p8", 3),
)  # fmt: skip


@pytest.mark.parametrize("duplicates", ["first", "keep"])
@pytest.mark.parametrize("conflicts", ["drop", "first", "keep"])
@pytest.mark.parametrize("keep_test", [False, True])
def test_nothing_is_left_out_of_a_sound_set(duplicates, conflicts, keep_test):
    assert left_out(SOUND, duplicates=duplicates, conflicts=conflicts, keep_test=keep_test) == {}


def test_of_equal_pictures_the_first_stays_and_near_ones_do():
    assert left_out(COPIES) == {"a/2": DUPLICATE}
    assert left_out(COPIES, duplicates="keep") == {}


@pytest.mark.parametrize(
    ("conflicts", "expected"),
    [("drop", {"a/2": CONFLICT, "b/1": CONFLICT, "a/3": CONFLICT}), ("first", {"b/1": CONFLICT}), ("keep", {})],
)
def test_contradicting_labels(conflicts, expected):
    assert left_out(CONFLICTS, conflicts=conflicts) == expected


def test_equal_pictures_that_contradict_each_other_are_no_duplicates():
    assert left_out(CONFLICTS, conflicts="keep", duplicates="first") == {}


@pytest.mark.parametrize(
    ("conflicts", "expected"),
    [
        ("drop", {"train/b/4": CONFLICT, "test/a/5": CONFLICT, "test/b/6": CONFLICT, "train/a/7": CONFLICT}),
        ("first", {"train/b/4": CONFLICT, "test/b/6": CONFLICT}),
        ("keep", {}),
    ],
)
def test_delivered_test_images_stay_but_for_those_that_contradict_each_other(conflicts, expected):
    assert left_out(LEAKS, conflicts=conflicts) == expected


def test_without_a_delivered_test_set_test_images_are_as_all_others():
    expected = dict.fromkeys(("test/a/3", "train/b/4", "test/a/5", "test/b/6", "train/a/7"), CONFLICT)
    assert left_out(LEAKS, keep_test=False) == {**expected, "train/a/2": DUPLICATE, "test/a/9": DUPLICATE}


def test_equal_pictures_in_two_delivered_parts_are_left_to_the_division():
    images = table(
        ("test/a/1", "a", "test", "p1", 0), ("train/a/2", "a", "train", "p1", 0), ("train/a/3", "a", "train", "p1", 0),
        ("val/a/4", "a", "validation", "p1", 0), ("val/a/5", "a", "validation", "p1", 0),
    )  # fmt: skip
    assert left_out(images) == {"train/a/3": DUPLICATE, "val/a/5": DUPLICATE}


@pytest.mark.parametrize("images", [COPIES, CONFLICTS, LEAKS], ids=["copies", "conflicts", "leaks"])
@pytest.mark.parametrize("conflicts", ["drop", "first", "keep"])
@pytest.mark.parametrize("keep_test", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_does_not_matter(images, conflicts, keep_test, seed):
    shuffled = images.sample(frac=1, random_state=seed)
    expected = left_out(images, conflicts=conflicts, keep_test=keep_test)
    assert left_out(shuffled, conflicts=conflicts, keep_test=keep_test) == expected
    assert left_out(shuffled.reset_index(drop=True), conflicts=conflicts, keep_test=keep_test) == expected


def test_a_table_without_rows():
    assert left_out(table()) == {}


def test_images_that_were_not_looked_at_are_no_copies_of_each_other():
    assert left_out(table(("a/1", "a", "", None, 0), ("a/2", "a", "", None, 1), ("b/3", "b", "", "p3", 2))) == {}


@pytest.mark.parametrize(("conflicts", "expected"), [("drop", {"a/10", "b/99"}), ("first", {"b/99"}), ("keep", set())])
def test_a_contradiction_in_a_long_chain_removes_those_that_contradict_each_other(conflicts, expected):
    assert left_out(chain(12), conflicts=conflicts) == dict.fromkeys(expected, CONFLICT)


def test_a_contradiction_in_ten_images_removes_all():
    assert len(left_out(chain(10))) == 10


def test_what_is_kept_of_a_chain_is_no_contradiction():
    images = chain(12)
    for conflicts in ("drop", "first"):
        kept = images[~images.path.isin(left_out(images, conflicts=conflicts))]
        assert not contradicting(kept).any()
