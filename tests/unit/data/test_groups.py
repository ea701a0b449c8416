"""What belongs together: by shared values, also by way of others, and never by values that are missing."""

import numpy as np
import pandas as pd
import pytest

from melanoma.data.groups import connected, connected_groups, group_columns


def parts_of(numbers: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(numbers == number).tolist()) for number in set(numbers.tolist())}


@pytest.mark.parametrize(
    ("count", "pairs", "expected"),
    [
        (0, [], set()),
        (1, [], {frozenset([0])}),
        (3, [], {frozenset([0]), frozenset([1]), frozenset([2])}),
        (4, [(0, 1), (1, 3)], {frozenset([0, 1, 3]), frozenset([2])}),
        (4, [(3, 0), (0, 3), (2, 2)], {frozenset([0, 3]), frozenset([1]), frozenset([2])}),
        (5, [(0, 1), (2, 3), (1, 2)], {frozenset([0, 1, 2, 3]), frozenset([4])}),
    ],
)
def test_pairs_connect_also_by_way_of_others(count, pairs, expected):
    assert parts_of(connected(count, np.array(pairs, np.int64).reshape(-1, 2))) == expected


def test_rows_are_connected_by_any_column_also_by_way_of_others():
    table = pd.DataFrame(
        {
            "cluster": [0, 0, 1, 2, 3, 4],
            "lesion": ["x", "y", "y", "z", "z", "w"],
            "patient": ["p1", "p2", "p3", "p4", "p5", "p3"],
        }
    )
    assert parts_of(connected_groups(table, ["cluster"])) == {frozenset(g) for g in ([0, 1], [2], [3], [4], [5])}
    assert parts_of(connected_groups(table, ["cluster", "lesion"])) == {frozenset(g) for g in ([0, 1, 2], [3, 4], [5])}
    assert parts_of(connected_groups(table, ["cluster", "lesion", "patient"])) == {
        frozenset([0, 1, 2, 5]),
        frozenset([3, 4]),
    }


def test_equal_values_of_two_columns_connect_nothing():
    table = pd.DataFrame({"lesion": ["1", "2"], "patient": ["2", "3"]})
    assert len(set(connected_groups(table, ["lesion", "patient"]))) == 2


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_missing_values_connect_nothing(missing):
    table = pd.DataFrame({"lesion": pd.Series(["a", missing, missing, "a", missing], dtype=object)})
    assert parts_of(connected_groups(table, ["lesion"])) == {frozenset(g) for g in ([0, 3], [1], [2], [4])}


def test_missing_numbers_and_columns_without_a_value_connect_nothing():
    table = pd.DataFrame({"lesion": [1.0, np.nan, 1.0, np.nan], "patient": [np.nan] * 4, "none": [None] * 4})
    assert parts_of(connected_groups(table, list(table))) == {frozenset([0, 2]), frozenset([1]), frozenset([3])}


@pytest.mark.parametrize("columns", [[], ["lesion"]])
def test_a_table_without_rows_has_no_groups(columns):
    assert connected_groups(pd.DataFrame({"lesion": []}), columns).tolist() == []


def test_without_columns_each_row_is_its_own():
    assert sorted(connected_groups(pd.DataFrame({"lesion": ["a"] * 3}), [])) == [0, 1, 2]


def test_the_index_of_the_table_does_not_matter():
    table = pd.DataFrame({"lesion": ["a", "b", "a"]}, index=[7, 7, 3])
    assert parts_of(connected_groups(table, ["lesion"])) == {frozenset([0, 2]), frozenset([1])}


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("auto", ["cluster", "lesion", "patient"]),
        ("lesion", ["cluster", "lesion"]),
        ("patient", ["cluster", "patient"]),
        ("none", ["cluster"]),
    ],
)
def test_columns_of_groups(by, expected):
    table = pd.DataFrame(columns=["path", "patient", "lesion", "cluster", "age"])
    assert group_columns(table, by) == expected
    for absent in ("lesion", "patient"):
        assert group_columns(table.drop(columns=absent), by) == [name for name in expected if name != absent]
