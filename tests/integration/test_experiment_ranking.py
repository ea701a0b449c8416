"""Which runs of an experiment are ranked on its page, and in which order."""

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from melanoma.report.experiment_page import _ranked, _summary
from melanoma.tracking.names import Tag
from melanoma.tracking.records import RunRecord
from tests.integration.conftest import copied_store

TWO, THREE = ["benign", "malignant"], ["bcc", "melanoma", "nevus"]


@pytest.fixture
def made(empty_store: Path, tmp_path: Path) -> Callable[..., RunRecord]:
    """`made(name, ...)` writes a run to a store and returns its record."""
    mlflow.set_tracking_uri(copied_store(empty_store, tmp_path))
    experiment = mlflow.create_experiment("ranked")
    client = mlflow.MlflowClient()

    def make(name: str, classes: list[str], protocol: str = "clean", positive: str = "malignant", **more) -> RunRecord:
        tags = {Tag.PROTOCOL: protocol, Tag.POSITIVE: positive, Tag.TASK: more.pop("task", "drawn")}
        if "parent" in more:
            tags[Tag.PARENT] = more.pop("parent").id
        run = client.create_run(experiment, run_name=name, tags=tags)
        for label in classes:
            client.log_metric(run.info.run_id, f"test/sensitivity/{label}", 0.5)
        for key, value in more.pop("metrics", {}).items():
            client.log_metric(run.info.run_id, key, value)
        for key, value in more.items():
            client.log_param(run.info.run_id, key.replace("__", "."), value)
        client.set_terminated(run.info.run_id)
        return RunRecord.read(run.info.run_id)

    return make


def names(records: list[RunRecord]) -> list[str]:
    return [record.name for record in records]


def test_runs_of_other_classes_tasks_or_positive_classes_are_not_ranked(made):
    records = [
        made("a", TWO, metrics={"validation/auc": 0.7}),
        made("b", TWO, metrics={"validation/auc": 0.8}),
        made("more classes", THREE, metrics={"validation/auc": 0.9}),
        made("other positive", TWO, positive="benign", metrics={"validation/auc": 0.95}),
        made("other images", TWO, task="isic", metrics={"validation/auc": 0.99}),
    ]
    ranked, others, limits = _ranked(records, "validation/auc")
    assert names(ranked) == ["b", "a"]
    assert names(others) == ["more classes", "other positive", "other images"]
    assert limits == ["Not ranked, because their task, classes or positive class differ: 3 runs."]


def test_lower_is_better_for_an_error_and_clean_results_come_first(made):
    records = [
        made("worse", TWO, metrics={"validation/log_loss": 0.7}),
        made("shortcut", TWO, protocol="conflicts_kept", metrics={"validation/log_loss": 0.1}),
        made("better", TWO, metrics={"validation/log_loss": 0.5}),
        made("no metric", TWO),
    ]
    ranked, others, limits = _ranked(records, "validation/log_loss")
    assert names(ranked) == ["better", "worse", "shortcut"]
    assert names(others) == ["no metric"]
    assert limits == ["Ranked last, because they are not clean results: 1 run."]


def test_folds_are_part_of_their_cross_validation(made):
    parent = made("parent", TWO, metrics={"validation/auc_mean": 0.75, "test/auc": 0.7})
    folds = [made(f"fold {i}", TWO, parent=parent, split__fold=i, metrics={"validation/auc": 0.8}) for i in range(2)]
    single = made("single", TWO, metrics={"validation/auc": 0.7})
    ranked, others, limits = _ranked([parent, *folds, single], "validation/auc")
    assert names(ranked) == ["parent", "single"]
    assert (others, limits) == ([], [])
    lines = _summary(parent.run.info.experiment_id, ranked, "auc")
    assert lines[0] == "4 runs: 4 finished."
    assert "with the highest validation/auc, 0.750 (mean over folds). On the test images its auc is 0.700." in lines[1]
