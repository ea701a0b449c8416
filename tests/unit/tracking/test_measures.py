"""Which metrics MLflow shows, and the file of all metrics."""

import csv
import io
import json

import pytest

from melanoma.tracking.measures import is_shown, measures_csv, measures_json, read_measures
from melanoma.tracking.names import stored_name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("test/auc", True),
        ("validation/brier", True),
        ("test/auc_ci_low", True),
        ("test/accuracy_ci_high", True),
        ("validation/auc_ci_low", False),
        ("test/brier_ci_low", False),
        ("test/macro_f1", True),
        ("test/macro_f1_ci_low", True),  # the primary metric
        ("test/mcc", False),
        ("test/malignant/auc", True),
        ("test/malignant/average_precision", False),
        ("validation/malignant/auc", False),
        ("test/auc/nevus", False),  # a class
        ("test/sensitivity/nevus", False),
        ("test/operating_point/malignant/sensitivity", True),
        ("test/operating_point/malignant/specificity", True),
        ("test/operating_point/malignant/referrals_per_found", False),
        ("test/operating_point/malignant/sensitivity_ci_low", False),
        ("test/subgroup/sex/male/auc", False),
        ("operating_point/malignant/threshold", False),
        ("audit/images", False),
        ("data/images/test", False),
        ("test/auc_mean", True),
        ("test/mcc_std", False),
        ("validation/macro_f1_mean", True),
        ("validation/auc_mean", False),
        ("inflation/test/accuracy", True),
        ("inflation/test/precision/nevus", False),
        ("published/test/accuracy", False),
        ("internal/auc", True),
    ],
)
def test_mlflow_shows_few_metrics(name: str, shown: bool):
    assert is_shown(name, "macro_f1") is shown


def test_a_primary_metric_of_a_task_is_shown_with_its_interval():
    names = ["validation/melanoma/partial_auc", "test/melanoma/partial_auc", "test/melanoma/partial_auc_ci_low"]
    assert [is_shown(name, "melanoma/partial_auc") for name in names] == [True] * 3
    assert [is_shown(name, "auc") for name in names] == [False] * 3


MEASURED = {
    "test/auc": 0.1 + 0.2,
    "test/auc_ci_low": 1e-17,
    "test/auc_ci_high": 0.9,
    "test/sensitivity/basal, \"cell\"": 0.5,
    "test/sensitivity/naïve (1)": 0.25,
    "audit/images": 3,
}  # fmt: skip


def test_the_file_of_all_metrics_loses_nothing():
    assert read_measures(measures_json(MEASURED)) == {stored_name(name): value for name, value in MEASURED.items()}
    assert json.loads(measures_json(MEASURED))["test/auc"] == {
        "value": 0.1 + 0.2, "ci_low": 1e-17, "ci_high": 0.9
    }  # fmt: skip


def test_the_table_of_all_metrics_has_a_row_for_each():
    rows = list(csv.DictReader(io.StringIO(measures_csv(MEASURED))))
    assert [row["metric"] for row in rows] == [name for name in MEASURED if "_ci_" not in name]
    assert rows[0] == {"metric": "test/auc", "value": repr(0.1 + 0.2), "ci_low": "1e-17", "ci_high": "0.9"}
    assert rows[1]["ci_low"] == ""
