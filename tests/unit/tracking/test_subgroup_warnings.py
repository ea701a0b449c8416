"""What is told of subgroups: columns that made none, and values that differ from the other images."""

from melanoma.evaluation.subgroups import Subgroup
from melanoma.tracking.log_subgroups import _warnings


def test_a_skipped_column_is_told_with_what_to_do():
    [text] = _warnings([Subgroup("hospital", "", 200, "40 values, where at most 12 make subgroups")], "auc")
    assert text == (
        "No subgroups by hospital: it has 40 values, where at most 12 make subgroups. Group its values, or leave it "
        "out of evaluation.subgroups."
    )


def test_a_subgroup_differs_if_its_interval_says_so():
    def one(value: str, low: float, high: float, p_value: float) -> Subgroup:
        return Subgroup("sex", value, 50, differences={"auc": ((low + high) / 2, low, high)}, p_value=p_value)

    found = [one("a", -0.3, -0.1, 0.001), one("b", -0.1, 0.2, 0.01), Subgroup("sex", "c", 3, "too few images")]
    assert _warnings(found, "auc") == [
        "sex a differs from the other images: auc by -0.200 [-0.300, -0.100], an interval for all subgroups by sex "
        "together."
    ]
