"""The reference experiments' table, from runs in a real store."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from melanoma.errors import DataError
from melanoma.report.references import Reference, _accuracies, _interval, _weights, read_references
from melanoma.report.tables import write_report

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
def uri(store: str) -> str:
    mlflow.set_tracking_uri(store)
    return store


def logged(
    experiment_name: str,
    protocol: str,
    seed: int,
    right: int,
    *,
    validation: tuple[int, int] = (10, 10),
    images: int = 40,
    first: int = 0,
    parent: str | None = None,
    settings: dict[str, Any] | None = None,
    **metrics: float,
) -> str:
    """A run as `melanoma train` leaves it, as far as the report reads it; its id.

    Args:
        right: how many test images, of two classes in turns, are answered right.
        validation: how many of 20 images of the one class and of 10 of the other.
        images: of the test set.
        first: number of the first of these.
        settings: of the configuration, beside its seed.
    """
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(experiment_name)
    experiment = found.experiment_id if found else client.create_experiment(experiment_name)
    tags = {"melanoma.protocol": protocol, "mlflow.source.git.commit": "0123456789"}
    run = client.create_run(experiment, tags=tags | ({"mlflow.parentRunId": parent} if parent else {})).info.run_id
    for name, value in {
        "test/accuracy": right / images,
        "validation/accuracy": sum(validation) / 30,
        "train/accuracy": 0.99,
        "val/accuracy": sum(validation) / 30 + 0.02,
        "fit/seconds": 90.0,
        **{f"test/{metric}": value for metric, value in {"auc": 0.9, **metrics}.items()},
    }.items():
        client.log_metric(run, name, value)
    client.log_param(run, "seed", seed)
    labels = [*np.array(["a", "b"])[np.arange(images) % 2], *["a"] * 20, *["b"] * 10]
    hits = [*(np.arange(images) < right), *(np.arange(20) < validation[0]), *(np.arange(10) < validation[1])]
    table = pd.DataFrame({"label": labels, "part": ["test"] * images + ["validation"] * 30})
    numbers = np.arange(first, first + len(table))
    table = table.assign(path=[f"{i}.jpg" for i in numbers], sha256=[f"{i:064d}" for i in numbers])
    table = table.assign(predicted=np.where(hits, labels, "c"))
    client.log_text(run, table.to_csv(index=False), "evaluation/predictions.csv")
    config = {"data": {"views": {}}, "seed": seed, "tracking": {"uri": "x"}, **(settings or {})}
    client.log_text(run, yaml.safe_dump(config), "config/resolved.yaml")
    client.set_terminated(run)
    return run


def reference(name: str) -> Reference:
    [found] = [one for one in read_references() if one.name == name]
    return found


def test_the_table_holds_what_the_store_does(uri: str, tmp_path: Path):
    for seed, right in ((0, 12), (1, 16)):
        logged("isic9_m2", "published,duplicates_ignored", seed, 30, validation=(11, 10))
        logged("isic9_m2", "clean", seed, right)
    logged("isic9_m3", "clean", 0, 20)
    logged("isic9_m3", "clean", 0, 22)  # the latest of a seed counts
    (tmp_path / "README.md").write_text(MARKS)
    write_report(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("# Studies\n<!-- written by")
    assert text.endswith("<!-- end -->\nafter\n")
    [row] = [line for line in text.splitlines() if line.startswith("| [`isic9_m2`]")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:5] == ["54.0%", "70.0%", "99.0%, 72.0%", "66.7%"]
    assert cells[5].startswith("35.0% [")
    # 11 of 20 of the one class and 10 of 10 of the other: 77.5% where these are as many, as in the test set.
    assert cells[6].startswith("+42.5 points [+")
    assert cells[7:] == ["0: 30.0%, 1: 40.0%", "1.5 min", "0123456"]
    # Of seed 0, which both have: 22 of 40 less 12 of 40.
    assert "+25.0 points [+" in text
    assert "test accuracy 35.0% to 55.0%" in text
    assert (tmp_path / "results.png").stat().st_size > 5_000
    write_report(tmp_path)
    assert (tmp_path / "README.md").read_text() == text


def test_the_interval_is_over_test_images(uri: str):
    logged("isic9_m1", "clean", 0, 20)
    found = reference("isic9_m1")
    assert found.reproduced is None
    assert found.honest is not None
    # 20 of 40: about 1.96 * sqrt(0.25 / 40) to each side.
    assert (found.honest.test.low, found.honest.test.high) == pytest.approx((0.345, 0.655), abs=0.03)


def test_images_that_two_seeds_have_in_common_are_drawn_together(uri: str):
    for name, first in (("isic9_m1", 0), ("isic9_m2", 1_000)):
        logged(name, "clean", 0, 20)
        logged(name, "clean", 1, 20, first=first)
    same, other = (reference(name).honest for name in ("isic9_m1", "isic9_m2"))
    assert same is not None and other is not None
    assert same.test.value == other.test.value == 0.5
    width = same.test.high - same.test.low
    assert other.test.high - other.test.low == pytest.approx(width / 2**0.5, rel=0.15)


def test_the_interval_is_also_for_other_seeds(uri: str):
    for name, right in (("isic9_m1", (20, 20, 20)), ("isic9_m2", (12, 20, 28))):
        for seed, count in enumerate(right):
            logged(name, "clean", seed, count)
    same, other = (reference(name).honest for name in ("isic9_m1", "isic9_m2"))
    assert same is not None and other is not None
    assert same.test.value == other.test.value == 0.5
    # Equal answers on 40 images: the error of one seed. Standard deviation of the seeds 0.2, of their mean 0.115.
    assert same.test.high - same.test.low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 40), rel=0.1)
    assert other.test.high - other.test.low > 2 * 1.96 * 0.2 / np.sqrt(3)


def test_a_class_that_a_run_or_a_draw_does_not_have_leaves_the_interval_finite():
    rng = np.random.default_rng(0)
    tables = []
    for run, rare in enumerate((3, 0, 2)):
        labels = ["a"] * 40 + ["b"] * rare
        tables.append(pd.DataFrame({"label": labels, "run": run, "hit": rng.random(len(labels)) < 0.7}))
    answers = pd.concat(tables, ignore_index=True).assign(group=lambda table: range(len(table)))
    shares = pd.Series({"a": 0.9, "b": 0.1})
    found = _interval(_accuracies(answers, _weights(answers, rng), shares))
    assert np.isfinite([found.value, found.low, found.high]).all()
    assert found.low < found.value < found.high


def test_a_run_with_other_settings_is_not_the_experiment(uri: str):
    logged("isic9_m1", "clean", 0, 20)
    logged("isic9_m1", "clean", 0, 39, settings={"training": {"epochs": 1}})
    logged("isic9_m1", "clean", 0, 38, settings={"model": {"weights": "w.h5"}})
    logged("isic9_m1", "clean", 0, 10, settings={"training": {"epochs": 20}, "optimizer": {"_target_": "keras.Adam"}})
    honest = reference("isic9_m1").honest
    assert honest is not None and honest.test.value == 0.25  # of the last, which only computes by other code


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"primary_metric": "balanced_accuracy"}, True),
        ({"primary_metric": "log_loss"}, False),
        ({"data": {"positive": "melanoma"}}, True),
    ],
)
def test_what_a_run_chooses_for_a_null_is_no_other_setting(uri: str, settings: dict[str, Any], found: bool):
    logged("isic9_m1", "clean", 0, 20, settings=settings)
    assert (reference("isic9_m1").honest is not None) == found


def test_without_images_of_a_class_there_is_no_inflation(uri: str):
    logged("isic9_m1", "published", 0, 20, validation=(10, 10))
    other = logged("isic9_m1", "clean", 0, 20)
    assert reference("isic9_m1").inflation is not None
    file = Path(mlflow.artifacts.download_artifacts(f"runs:/{other}/evaluation/predictions.csv"))
    mlflow.MlflowClient().log_text(other, file.read_text().replace("\nb,", "\nz,"), "evaluation/predictions.csv")
    assert reference("isic9_m1").inflation is None


def test_our_experiments_have_a_table_of_their_own(uri: str, tmp_path: Path):
    logged("binary150", "clean", 0, 20)
    logged("isic9_best", "published,augmented_before_split", 0, 39)
    weights = {"model": {"weights": "models:/melanoma-melanoma10k@champion"}}
    parent = logged("isic9_best", "clean", 0, 30, settings=weights, auc=0.92, auc_ci_low=0.9, auc_ci_high=0.9405)
    for _ in range(2):
        logged("isic9_best", "clean", 0, 10, images=20, parent=parent, settings=weights)
    (tmp_path / "README.md").write_text(MARKS)
    write_report(tmp_path)
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert "| [`melanoma10k_best`](melanoma10k_best.yaml) | not run | | | | | |" in lines
    ours = "| 40, in 2 folds | 0.750 |  | 0.920 [0.900, 0.941] | 1.5 min each | 0123456 |"
    assert f"| [`isic9_best`](isic9_best.yaml) {ours}" in lines


def test_what_is_missing_is_said(uri: str, tmp_path: Path):
    mlflow.search_experiments()
    with pytest.raises(DataError, match="no place for the table"):
        write_report(tmp_path)
    (tmp_path / "README.md").write_text(MARKS)
    with pytest.raises(DataError, match="no run of a reference experiment"):
        write_report(tmp_path)
    assert (tmp_path / "README.md").read_text() == MARKS
