"""The reference studies' table, from runs in a real store."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from melanoma.errors import DataError
from melanoma.report.studies import read_studies, write_report

MARKS = """# Studies
<!-- written by `melanoma report experiments` -->
old
<!-- end -->
# Ours
<!-- ours, written by `melanoma report experiments` -->
older
<!-- end -->
after
"""


@pytest.fixture
def uri(tmp_path: Path) -> str:
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(address)
    return address


def logged(
    study: str,
    protocol: str,
    seed: int,
    validation: float,
    right: int,
    images: int = 40,
    parent: str | None = None,
    **metrics: float,
) -> str:
    """A run as `melanoma train` leaves it, as far as the report reads it; its id."""
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(study)
    experiment = found.experiment_id if found else client.create_experiment(study)
    tags = {"melanoma.protocol": protocol} | ({"mlflow.parentRunId": parent} if parent else {})
    run = client.create_run(experiment, tags=tags).info.run_id
    for name, value in {
        "test/accuracy": right / images,
        "validation/accuracy": validation,
        "train/accuracy": 0.99,
        "val/accuracy": validation + 0.02,
        "fit/seconds": 90.0,
        **{f"test/{metric}": value for metric, value in metrics.items()},
    }.items():
        client.log_metric(run, name, value)
    client.log_param(run, "seed", seed)
    labels = np.array(["a", "b"])[np.arange(images) % 2]
    predicted = np.where(np.arange(images) < right, labels, "c")
    table = pd.DataFrame({"path": [f"{i}.jpg" for i in range(images)], "part": "test", "label": labels})
    table = table.assign(sha256=[f"{i:064d}" for i in range(images)], predicted=predicted)
    client.log_text(run, table.to_csv(index=False), "evaluation/predictions.csv")
    client.log_text(run, "data: {views: {}}\n", "config/resolved.yaml")
    client.set_terminated(run)
    return run


def test_the_table_holds_what_the_store_does(uri: str, tmp_path: Path):
    for seed, validation, right in ((0, 0.5, 12), (1, 0.6, 16)):
        logged("isic9_m2", "published,duplicates_ignored", seed, 0.7, 30)
        logged("isic9_m2", "clean", seed, validation, right)
    logged("isic9_m3", "clean", 0, 0.65, 20)
    logged("isic9_m3", "clean", 0, 0.66, 22)  # the latest of a seed counts
    (tmp_path / "README.md").write_text(MARKS)
    write_report(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("# Studies\n<!-- written by")
    assert text.endswith("<!-- end -->\nafter\n")
    [row] = [line for line in text.splitlines() if line.startswith("| [`isic9_m2`]")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:5] == ["54.0%", "70.0%", "99.0%, 72.0%", "55.0%"]
    assert cells[5].startswith("35.0% [")
    assert cells[6:] == ["+35.0 points", "0, 1 / 0, 1", "1.5 min"]
    assert "validation 55.0% to 66.0%, test 35.0% to 55.0%, which is +20.0 points [" in text
    assert (tmp_path / "results.png").stat().st_size > 5_000
    write_report(tmp_path)
    assert (tmp_path / "README.md").read_text() == text


def test_the_interval_is_of_the_mean_over_test_images(uri: str):
    logged("isic9_m1", "clean", 0, 0.5, 20)
    [study] = [one for one in read_studies() if one.name == "isic9_m1"]
    assert study.reproduced is None
    assert study.honest is not None
    # 20 of 40: about 1.96 * sqrt(0.25 / 40) to each side.
    assert (study.honest.low, study.honest.high) == pytest.approx((0.345, 0.655), abs=0.03)


def test_our_studies_have_a_table_of_their_own(uri: str, tmp_path: Path):
    logged("binary150", "clean", 0, 0.5, 20)
    logged("isic9_best", "published,augmented_before_split", 0, 0.9, 39)
    parent = logged("isic9_best", "clean", 0, 0.5, 30, auc=0.92, auc_ci_low=0.9, auc_ci_high=0.9405)
    for _ in range(2):
        logged("isic9_best", "clean", 0, 0.5, 10, images=20, parent=parent)
    (tmp_path / "README.md").write_text(MARKS)
    write_report(tmp_path)
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert "| [`melanoma10k_best`](melanoma10k_best.yaml) | not run | | | | |" in lines
    assert (
        "| [`isic9_best`](isic9_best.yaml) | 40, in 2 folds | 0.750 |  | 0.920 [0.900, 0.941] | 1.5 min each |" in lines
    )


def test_what_is_missing_is_said(uri: str, tmp_path: Path):
    mlflow.search_experiments()
    with pytest.raises(DataError, match="no run of a reference study"):
        write_report(tmp_path)
    logged("binary150", "clean", 0, 0.5, 20)
    with pytest.raises(DataError, match="no place for the table"):
        write_report(tmp_path)
