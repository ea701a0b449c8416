"""Subgroups: which there are, which are assessed, which is the worst."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from melanoma.config.schema import EvaluationConfig
from melanoma.evaluation.evaluate import predictions_of
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.operating_point import OperatingPoint
from melanoma.evaluation.predictions import Bootstrap
from melanoma.evaluation.subgroups import UNKNOWN, as_columns, measure_subgroups, worst_subgroup

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


def measured(table: pd.DataFrame, probabilities: np.ndarray, columns: list[str], minimum: int = 20, points=()):
    settings = EvaluationConfig(subgroups=columns, subgroup_minimum=minimum)
    return measure_subgroups(table, predictions_of(table, probabilities, NAMES, {}), settings, Bootstrap(50), points)


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


def test_a_column_of_one_value_is_left_out_and_one_of_many_is_skipped_with_a_reason():
    table, probabilities = rows()
    [skipped] = measured(table.assign(site="back"), probabilities, ["site", "free text", "absent"])
    assert (skipped.column, skipped.value, skipped.images) == ("free text", "", 200)
    assert skipped.reason == "200 values, where at most 12 make subgroups"
    codes = table.assign(hospital=np.arange(200) % 40)
    assert measured(codes, probabilities, ["hospital"])[0].reason.startswith("40 values")


@pytest.mark.parametrize("column", ["skin_type", "site_code", "stage"])  # which has the letters of age
@pytest.mark.parametrize("kind", [int, float, str])
def test_numbers_with_few_values_are_categories(column: str, kind: type):
    table, probabilities = rows()
    values = pd.Series(np.arange(200) % 6 + 1).astype(kind)
    found = measured(table.assign(**{column: values}), probabilities, [column])
    assert [one.value for one in found] == list("123456")
    assert {one.images for one in found} == {33, 34}


def test_unknown_as_a_text_is_unknown():
    table, probabilities = rows()
    table.loc[20:29, "sex"] = "unknown"
    found = {one.value: one.images for one in measured(table, probabilities, ["sex"])}
    assert (set(found), found[UNKNOWN]) == ({"female", "male", UNKNOWN}, 20)


def test_codes_are_in_the_order_of_numbers_and_missing_ones_are_unknown():
    table, probabilities = rows()
    codes = pd.Series(np.arange(200) % 12 + 1.0).where(np.arange(200) > 3)
    found = measured(table.assign(site=codes), probabilities, ["site"])
    assert [one.value for one in found] == [*map(str, range(1, 13)), UNKNOWN]


@pytest.mark.parametrize("column", ["age", "age_approx", "Patient age", "years"])
def test_ages_are_banded_by_the_name_of_their_column(column: str):
    table, probabilities = rows()
    found = measured(table.rename(columns={"age": column}), probabilities, [column])
    assert [one.value for one in found][:2] == ["00 to 19", "20 to 39"]


def test_a_skin_type_that_the_model_fails_on_is_found_whether_it_is_a_number_or_a_numeral():
    table, _ = rows(600)
    rng, types = np.random.default_rng(3), np.arange(600) % 6
    targets = rng.integers(0, 2, 600)
    scores = 1 / (1 + np.exp(-(np.where(types == 5, 0.0, 3.0) * (targets - 0.5) + rng.normal(size=600))))
    probabilities = np.stack([1 - scores, scores], axis=1)
    for names in (range(1, 7), ["I", "II", "III", "IV", "V", "VI"]):
        given = table.assign(target=targets, skin_tone=[list(names)[t] for t in types])
        found = measured(given, probabilities, ["skin_tone"])
        worst = worst_subgroup(found, "auc")
        assert worst.value == str(list(names)[5])
        assert worst.intervals["auc"][0] < 0.5
        assert worst.p_value < 0.001
        assert worst.differences["auc"][2] < 0 < min(one.p_value for one in found if one is not worst)


def test_few_positives_are_not_assessed_and_the_reason_is_told():
    table, probabilities = rows()
    rare = table.assign(site=np.where((table.target == 0) | (np.arange(200) < 20), "back", "leg"))
    found = {one.value: one for one in measured(rare, probabilities, ["site"])}
    assert found["leg"].reason == "0 images of benign, where 10 are needed"
    assert not found["leg"].is_assessed
    assert found["leg"].metrics["accuracy"] >= 0
    assert found["back"].is_assessed == (min(np.bincount(rare.target[rare.site == "back"])) >= 10)


def test_combinations_of_two_columns():
    table, probabilities = rows(400)
    found = {one.value: one for one in measured(table, probabilities, ["sex*site"])}
    assert set(found) == {"female, back", "female, leg", "male, back", "male, leg", UNKNOWN}
    own = ((table.sex == "male") & (table.site == "leg")).to_numpy()
    assert found["male, leg"].images == own.sum()
    assert measured(table, probabilities, ["sex*absent"]) == []


def test_the_sensitivity_at_the_operating_point_is_compared_too():
    table, probabilities = rows(600)
    point = OperatingPoint("malignant", 0.5, "fixed")
    found = {one.value: one for one in measured(table, probabilities, ["sex"], points=[point])}
    name = "operating_point/malignant/sensitivity"
    own = (table.sex == "female").to_numpy() & (table.target == 1).to_numpy()
    rest = (table.sex == "male").to_numpy() & (table.target == 1).to_numpy()
    hits = probabilities[:, 1] >= 0.5
    value, low, high = found["female"].differences[name]
    assert value == pytest.approx(hits[own].mean() - hits[rest].mean())
    assert low < value < high
    assert found["male"].differences[name] == pytest.approx((-value, -high, -low))
    row = as_columns(found["female"], "auc")
    assert row[f"difference/{name}"] == value
    assert (row["assessed"], row["metric"]) == ("yes", "auc")
