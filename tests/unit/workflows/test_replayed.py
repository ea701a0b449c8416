"""The verdict on a run and its replay."""

import math

import pytest

from melanoma.workflows.replay import DIFFERENT, IDENTICAL, WITHIN_TOLERANCE, compared

RUN = {("", "val/auc", 1): 0.8, ("", "val/auc", 2): 0.9, ("", "test/auc", 0): 0.85, ("fold 1", "test/auc", 0): math.nan}


def changed(**values: float) -> dict:
    """The numbers of the run with another one for epoch e1 or e2, or for the test images, e0."""
    keys = {"e1": ("", "val/auc", 1), "e2": ("", "val/auc", 2), "e0": ("", "test/auc", 0)}
    return RUN | {keys[name]: value for name, value in values.items()}


def test_equal_numbers_are_identical_also_where_there_is_none():
    assert compared(RUN, dict(RUN)) == compared(RUN, dict(RUN), changed(e1=0.1))
    assert (compared(RUN, dict(RUN)).verdict, compared(RUN, dict(RUN)).compared) == (IDENTICAL, 4)


@pytest.mark.parametrize(
    ("again", "second", "verdict"),
    [
        (changed(e2=0.91), None, DIFFERENT),
        (changed(e2=0.91), changed(e2=0.91), DIFFERENT),  # this machine is deterministic
        (changed(e2=0.91), changed(e2=0.904), WITHIN_TOLERANCE),
        (changed(e2=0.91), changed(e1=0.805, e2=0.91), WITHIN_TOLERANCE),  # the largest difference of the curve
        (changed(e2=0.91), changed(e2=0.906), DIFFERENT),
        (changed(e0=0.86), changed(e0=0.86, e1=0.5), DIFFERENT),  # another metric
        (changed(e0=math.nan), changed(e0=0.9), DIFFERENT),
    ],
)
def test_differences_are_compared_with_those_of_two_replays(again, second, verdict):
    assert compared(RUN, again, second).verdict == verdict


def test_a_number_that_is_missing_is_a_difference():
    again = {key: value for key, value in RUN.items() if key[2] != 2}
    found = compared(RUN, again, again)
    assert found.verdict == DIFFERENT
    [(key, (one, other, allowed))] = found.differing.items()
    assert (key, one, allowed) == (("", "val/auc", 2), 0.9, 0.0)
    assert math.isnan(other)
