"""The description and the saved view of MLflow's page of an experiment."""

import base64
import json
import zlib

import pytest

from melanoma.tracking.page import ranking_view


def state_of(primary: str) -> dict:
    packed = json.loads(ranking_view(primary))["state"]
    return json.loads(zlib.decompress(base64.b64decode(packed.removeprefix("deflate;"))))


@pytest.mark.parametrize(("primary", "ascending"), [("auc", False), ("log_loss", True), ("melanoma/auc", False)])
def test_runs_are_ranked_by_the_primary_metric_which_is_the_first_column(primary: str, ascending: bool):
    state = state_of(primary)
    assert (state["orderByKey"], state["orderByAsc"]) == (f"metrics.`validation/{primary}`", ascending)
    assert state["columnOrder"][:2] == [f"metrics.`validation/{primary}`", f"metrics.`test/{primary}`"]
    assert len(set(state["columnOrder"])) == len(state["columnOrder"])
    assert set(state["columnOrder"]) == set(state["selectedColumns"]) == set(state["columnWidths"])


def test_learning_curves_come_before_the_results():
    state = state_of("balanced_accuracy")
    assert [section["name"] for section in state["compareRunSections"]] == ["Learning curves", "Results"]
    assert state["compareRunCharts"][0]["metricKey"] == "val/balanced_accuracy"
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == {
        section["uuid"] for section in state["compareRunSections"]
    }
    assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == len(state["compareRunCharts"])


def test_the_view_fits_into_a_tag():
    assert len(ranking_view("a_long_name_of_a_binary_task/specificity_at_sensitivity_95")) < 5000
