"""Subgroups: which there are, which are assessed, which is the worst."""

from dataclasses import replace

import numpy as np
import pandas as pd

from melanoma.config.schema import EvaluationConfig
from melanoma.evaluation.evaluate import predictions_of
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.predictions import Bootstrap
from melanoma.evaluation.subgroups import UNKNOWN, measure_subgroups, worst_subgroup

NAMES = ["benign", "malignant"]


def rows(n: int = 200) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, n)
    sex = np.where(rng.random(n) < 0.4, "female", "male").astype(object)
    skill = np.where(sex == "female", 3.0, 0.3)
    scores = 1 / (1 + np.exp(-(skill * (targets - 0.5) + rng.normal(size=n))))
    table = pd.DataFrame({"path": [f"{i}.jpg" for i in range(n)], "target": targets, "sex": sex})
    table["age"] = rng.integers(5, 95, n).astype(float)
    table["site"] = rng.choice(["back", "leg"], n)
    table["free text"] = [f"note {i}" for i in range(n)]
    table.loc[:9, "sex"], table.loc[10:14, "age"] = None, np.nan
    return table, np.stack([1 - scores, scores], axis=1)


def measured(table: pd.DataFrame, probabilities: np.ndarray, columns: list[str], minimum: int = 20):
    settings = EvaluationConfig(subgroups=columns, subgroup_minimum=minimum)
    return measure_subgroups(table, predictions_of(table, probabilities, NAMES, {}), settings, Bootstrap(50, 0.9))


def test_each_value_is_measured_on_its_own_images():
    table, probabilities = rows()
    found = {one.value: one for one in measured(table, probabilities, ["sex"])}
    assert set(found) == {"female", "male", "unknown"}
    own = (table.sex == "male").to_numpy()
    assert found["male"].images == own.sum()
    assert found["male"].metrics == measure(predictions_of(table[own], probabilities[own], NAMES, {}))
    low, high = found["male"].intervals["auc"]
    assert low <= found["male"].metrics["auc"] <= high


def test_a_small_subgroup_is_listed_and_not_assessed():
    table, probabilities = rows()
    found = {one.value: one for one in measured(table, probabilities, ["sex"])}
    assert (found["unknown"].images, found["unknown"].metrics, found["unknown"].intervals) == (10, {}, {})


def test_the_worst_is_named_among_those_assessed():
    table, probabilities = rows()
    found = measured(table, probabilities, ["sex", "site"])
    worst = worst_subgroup(found, "auc")
    assert worst is not None
    assert (worst.column, worst.value) == ("sex", "male")
    assert worst_subgroup(found, "no such metric") is None
    renamed = [replace(one, value=UNKNOWN if one.value == "male" else one.value) for one in found]
    assert worst_subgroup(renamed, "auc").value != UNKNOWN


def test_numbers_are_banded_and_every_image_is_in_one_band():
    table, probabilities = rows()
    found = measured(table, probabilities, ["age"])
    assert [one.value for one in found] == ["00 to 19", "20 to 39", "40 to 59", "60 to 79", "80 to 99", "unknown"]
    assert sum(one.images for one in found) == len(table)


def test_columns_that_make_no_groups_are_passed_over():
    table, probabilities = rows()
    assert measured(table.assign(site="back"), probabilities, ["site", "free text", "absent"]) == []
