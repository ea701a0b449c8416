"""Each gate, with numbers on both sides of it."""

import pandas as pd
import pytest

from melanoma.config.command_schema import ChampionGateConfig, SubgroupGateConfig
from melanoma.evaluation.paired import Comparison
from melanoma.registry.gates import (
    binary_task_gate,
    champion_gate,
    interval_gate,
    limit_gates,
    protocol_gate,
    subgroup_gate,
)
from melanoma.tracking.names import Tag
from tests.unit.registry.conftest import recorded

LOOKED_AT = ["sex", "age"]
METRICS = {
    "test/auc": 0.85, "test/auc_ci_low": 0.80, "test/auc_ci_high": 0.90,
    "test/ece": 0.10, "test/ece_ci_low": 0.05, "test/ece_ci_high": 0.15,
    "test/accuracy": 0.9, "model/latency_ms": 12.0,
}  # fmt: skip


@pytest.mark.parametrize(("bound", "passed"), [(0.80, True), (0.8001, False), (0.85, False), (0, True)])
def test_a_floor_is_held_by_the_lower_end(bound: float, passed: bool):
    [gate] = limit_gates(METRICS, {"test/auc": bound}, {}, {})
    assert (gate.name, gate.passed) == ("test/auc", passed)
    assert gate.text == f"0.850 [0.800, 0.900]; wanted: lower end of its interval >= {bound:g}"


def test_a_gate_says_how_many_images_would_do():
    """The width decreases with the square root of the number: a third of the width needs nine times as many."""
    metrics = {**METRICS, "data/images/test": 118.0}
    [gate] = limit_gates(metrics, {"test/auc": 0.85 - 0.05 / 3}, {}, {})
    assert gate.text.endswith("; 118 test images give -0.050, about 1,062 would do if the value stays")
    for floors, ceilings in (({"test/auc": 0.8}, {}), ({"test/auc": 0.9}, {}), ({}, {"test/ece": 0.09})):
        assert "would do" not in limit_gates(metrics, floors, ceilings, {})[0].text  # passed, or the value is worse
    [gate] = limit_gates(metrics, {}, {"test/ece": 0.125}, {})
    assert gate.text.endswith("; 118 test images give +0.050, about 472 would do if the value stays")


@pytest.mark.parametrize(("bound", "passed"), [(0.15, True), (0.1499, False), (0.10, False)])
def test_a_ceiling_is_held_by_the_upper_end(bound: float, passed: bool):
    assert limit_gates(METRICS, {}, {"test/ece": bound}, {})[0].passed is passed


def test_what_was_not_measured_well_enough_does_not_pass():
    unmeasured, without = limit_gates(METRICS, {"test/mcc": -1, "test/accuracy": 0.1}, {}, {})
    assert not unmeasured.passed
    assert unmeasured.text.startswith("not measured")
    assert not without.passed
    assert "without an interval" in without.text


def test_an_interval_of_too_few_images_does_not_pass():
    [gate] = limit_gates(METRICS, {"test/auc": 0.7}, {}, {"test/auc": "4 images of melanoma, where 10 are needed"})
    assert not gate.passed
    assert gate.text.startswith("0.850 of 4 images of melanoma, where 10 are needed; wanted: ")


@pytest.mark.parametrize("bounds", [({"test/auc": 0.7}, {}), ({}, {"test/auc": 0.95})])
def test_what_is_no_number_passes_nothing(bounds: tuple):
    [gate] = limit_gates({**METRICS, "test/auc": float("nan")}, *bounds, {})
    assert not gate.passed


def test_cost_has_no_interval_and_null_asks_nothing():
    [gate] = limit_gates(METRICS, {"test/auc": None}, {"model/latency_ms": 12, "test/ece": None}, {})
    assert gate.passed
    assert gate.text == "12.000; wanted: <= 12"
    assert not limit_gates(METRICS, {}, {"model/latency_ms": 11.9}, {})[0].passed


def test_an_interval_that_does_not_hold_its_value_passes_nothing():
    odd = {"test/auc": 0.679, "test/auc_ci_low": 0.906, "test/auc_ci_high": 0.906}
    assert not limit_gates(odd, {"test/auc": 0.7}, {}, {})[0].passed
    odd = {"test/ece": 0.5, "test/ece_ci_low": 0.1, "test/ece_ci_high": 0.1}
    assert not limit_gates(odd, {}, {"test/ece": 0.3}, {})[0].passed


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, True),
        ({"evaluation.bootstrap": "200"}, True),
        ({"evaluation.bootstrap": "199"}, False),
        ({"evaluation.confidence": "0.9"}, False),
        ({"evaluation.confidence": "0.99"}, True),
        ({"evaluation.subgroup_minimum": "31"}, False),
    ],
)
def test_a_run_cannot_choose_how_narrow_its_intervals_are(changes: dict, passed: bool):
    params = {"evaluation.bootstrap": "1000", "evaluation.confidence": "0.95", "evaluation.subgroup_minimum": "30"}
    assert interval_gate({**params, **changes}).passed is passed
    assert not interval_gate({}).passed


@pytest.mark.parametrize(
    ("tags", "passed"),
    [
        ({"melanoma.protocol": "clean"}, True),
        ({"melanoma.protocol": "published,duplicates_ignored"}, False),
        ({"melanoma.protocol": "clean", "melanoma.known_leaks": "18 content"}, False),
        ({}, False),
    ],
)
def test_only_a_clean_protocol_passes(tags: dict, passed: bool):
    record = recorded(tags=tags)
    assert protocol_gate(record.protocol, record.tags.get(Tag.KNOWN_LEAKS)).passed is passed


def compared(low: float) -> list[Comparison]:
    return [Comparison("auc", low + 0.03, low, low + 0.06, 0.04, "DeLong")]


@pytest.mark.parametrize(
    ("rule", "low", "passed"),
    [
        ("non_inferiority", -0.02, True), ("non_inferiority", -0.0201, False), ("non_inferiority", 0.1, True),
        ("superiority", 0.0001, True), ("superiority", 0.0, False), ("superiority", -0.01, False),
    ],
)  # fmt: skip
def test_the_interval_of_the_difference_decides(rule, low: float, passed: bool):
    gate = champion_gate(compared(low), "champion 3", ChampionGateConfig(rule, "auc", 0.02))
    assert gate is not None
    assert gate.passed is passed
    assert f"[{low:+.3f}, " in gate.text


def test_a_comparison_that_is_not_there_does_not_pass():
    gate = champion_gate(compared(0.1), "champion 3", ChampionGateConfig(metric="melanoma/auc"))
    assert gate is not None
    assert not gate.passed
    assert champion_gate(compared(-1), "champion 3", ChampionGateConfig("none")) is None


def subgroups(*rows: tuple) -> pd.DataFrame:
    columns = ["column", "value", "images", "assessed", "auc", "auc_ci_low", "auc_ci_high"]
    return pd.DataFrame(rows, columns=columns, dtype=str)


def test_the_worst_assessed_subgroup_decides():
    table = subgroups(
        ("sex", "female", "60", "yes", "0.9", "0.82", "0.95"),
        ("sex", "male", "50", "yes", "0.7", "0.55", "0.85"),
        ("age", "80", "3", "no: too few images", "", "", ""),
    )
    for floor, passed in ((0.55, True), (0.56, False)):
        gate = subgroup_gate(table, LOOKED_AT, SubgroupGateConfig("auc", floor))
        assert gate is not None
        assert gate.passed is passed
        assert gate.text.startswith("0.700 [0.550, 0.850] (lowest of 2: sex male, 50 images)")


def test_a_column_that_made_no_subgroups_fails():
    table = subgroups(
        ("sex", "female", "60", "yes", "0.9", "0.82", "0.95"),
        ("hospital", "", "200", "no: 40 values, where at most 12 make subgroups", "", "", ""),
    )
    gate = subgroup_gate(table, LOOKED_AT, SubgroupGateConfig("auc", 0.5))
    assert not gate.passed
    assert gate.text == "subgroups were not assessed by hospital: 40 values, where at most 12 make subgroups"


def test_the_metric_that_compared_the_subgroups_decides():
    table = subgroups(("sex", "male", "50", "yes", "0.9", "0.85", "0.95")).assign(
        metric="malignant/auc",
        **{"malignant/auc": "0.6", "malignant/auc_ci_low": "0.4", "malignant/auc_ci_high": "0.8"},
    )
    assert subgroup_gate(table, LOOKED_AT, SubgroupGateConfig("auc", 0.5)).text.startswith("0.600 [0.400, 0.800]")


@pytest.mark.parametrize("table", [pd.DataFrame(), subgroups(("sex", "male", "3", "no: too few images", "", "", ""))])
def test_without_subgroups_it_is_said_that_none_was_assessed(table: pd.DataFrame):
    gate = subgroup_gate(table, LOOKED_AT, SubgroupGateConfig("auc", 0.5))
    assert gate is not None
    assert gate.passed
    assert gate.text.startswith("no subgroup was assessed")
    assert subgroup_gate(table, LOOKED_AT, SubgroupGateConfig("auc", None)) is None


@pytest.mark.parametrize(
    ("metric", "passed"), [("auv", False), ("aucs", False), ("malignant/auc", True), ("auc/nevus", True)]
)
def test_a_metric_that_no_subgroup_has_passes_only_where_it_may_be_undefined(metric: str, passed: bool):
    table = subgroups(("sex", "male", "300", "yes", "0.9", "0.8", "0.95")).rename(
        columns=lambda c: c.replace("auc", "f1")
    )
    gate = subgroup_gate(table, LOOKED_AT, SubgroupGateConfig(metric, 0.5))
    assert gate is not None
    assert gate.passed is passed


def test_a_run_cannot_choose_where_nobody_looks():
    settings = SubgroupGateConfig("auc", 0.5, ["sex", "skin_tone"])
    gate = subgroup_gate(pd.DataFrame(), ["age", "sex"], settings)
    assert gate is not None
    assert not gate.passed
    assert "did not assess skin_tone" in gate.text
    gate = subgroup_gate(pd.DataFrame(), ["skin_tone", "age", "sex"], settings)
    assert gate is not None
    assert gate.passed


@pytest.mark.parametrize(
    ("defined", "passed"),
    [
        ({"malignant": ["bcc", "melanoma"], "other": ["nevus"]}, True),
        ({"malignant": ["melanoma"]}, False),
        ({"malignant": ["nevus", "melanoma", "bcc"]}, False),
        ({}, False),
    ],
)
def test_a_run_cannot_choose_what_its_binary_tasks_mean(defined: dict, passed: bool):
    gate = binary_task_gate(defined, {"malignant": ["melanoma", "bcc"]})
    assert gate is not None
    assert gate.passed is passed
    assert binary_task_gate(defined, None) is None
    assert ("wanted malignant: melanoma, bcc" in gate.text) is not passed
