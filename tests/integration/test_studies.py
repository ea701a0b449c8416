"""Runs below a parent run: folds, values left out, and both protocols; and what a clean run leaves out."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from melanoma.errors import DataError
from melanoma.registry.candidates import candidate_of
from melanoma.tracking.records import NotRecorded, RunRecord, without_children
from melanoma.workflows.compare import compare_records
from tests.commands import run_melanoma
from tests.integration.conftest import SMALL, all_runs, client, copied_store, measured, only_run, trained_here

PLANTED = (
    *SMALL, "training.epochs=1", "data.source.test_share=0.25", "data.source.duplicates=4", "data.source.conflicts=3",
    "data.source.leaks=3", "data.source.near_duplicates=3",
)  # fmt: skip


def train(store: str, *arguments: str) -> None:
    file = Path(store.removeprefix("sqlite:///"))
    trained_here([*PLANTED, *arguments, f"tracking.uri={store}"], file.parent)


def csv(store: str, run_id: str, path: str) -> pd.DataFrame:
    return pd.read_csv(client(store).download_artifacts(run_id, path), keep_default_na=False)


def parent_and_children(store: str) -> tuple:
    runs = all_runs(store)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    return parent, sorted(children, key=lambda run: run.info.run_name)


@pytest.fixture(scope="module")
def clean(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, mlflow.entities.Run]:
    """A store and its only run."""
    store = copied_store(empty_store, tmp_path_factory.mktemp("studies"))
    train(store, "tracking.figures=true")
    return store, only_run(store)


def test_a_clean_run_leaves_out_copies_and_contradictions_and_says_so(clean):
    store, run = clean
    metrics = measured(run)
    assert metrics["audit/label_conflicts"] == 3
    assert metrics["audit/split_leaks"] == 3
    assert metrics["data/removed/label conflict"] == 6
    assert metrics["data/removed/related to a held-out image"] >= 3
    removed = csv(store, run.info.run_id, "data/removed.csv")
    assert len(removed) == metrics["data/removed"]
    split = csv(store, run.info.run_id, "data/split.csv")
    assert set(split.path[split.part == "removed"]) == set(removed.path)
    used = split[split.part.isin(["train", "validation", "test"])]
    for column in ("cluster", "lesion", "patient", "group"):
        assert used.groupby(column).part.nunique().max() == 1
    assert used.groupby("cluster").label.nunique().max() == 1
    report = json.loads(Path(client(store).download_artifacts(run.info.run_id, "data/audit.json")).read_text())
    assert len(report["split_leaks"]) == 3
    figures = {item.path for item in client(store).list_artifacts(run.info.run_id, "figures")}
    assert "figures/duplicate_clusters.png" in figures
    assert "melanoma.known_leaks" not in run.data.tags


def test_a_split_is_used_again_and_one_with_an_overlap_is_refused(clean, tmp_path):
    store, run = clean
    split = csv(store, run.info.run_id, "data/split.csv")
    split.to_csv(tmp_path / "same.csv", index=False)
    train(store, "seed=8", f"split.file={tmp_path / 'same.csv'}", "tracking.experiment=again")
    again = only_run(store, "again")
    assert again.data.tags["melanoma.split.hash"] == run.data.tags["melanoma.split.hash"]
    groups = split[split.part == "train"].groupby("group").path.count()
    twice = split.index[(split.group == groups.index[groups > 1][0]) & (split.part == "train")]
    split.loc[twice[0], "part"] = "validation"
    split.to_csv(tmp_path / "overlap.csv", index=False)
    done = run_melanoma("train", *PLANTED, f"split.file={tmp_path / 'overlap.csv'}", f"tracking.uri={store}")
    assert done.returncode == 2
    assert "must keep images of one lesion, patient or cluster" in done.stderr


def test_folds_test_every_image_once_are_pooled_and_assess_the_labels(store: str, tmp_path: Path):
    train(store, "split=kfold", "split.folds=2")
    parent, children = parent_and_children(store)
    assert [run.info.run_name for run in children] == [f"{parent.info.run_name} fold {i}" for i in (1, 2)]
    predictions = csv(store, parent.info.run_id, "evaluation/predictions.csv")
    folds = csv(store, parent.info.run_id, "data/folds.csv")
    assert parent.data.tags["melanoma.split.hash"] not in {one.data.tags["melanoma.split.hash"] for one in children}
    assert predictions.path.is_unique
    assert set(predictions.path) == set(folds.path)
    assert folds.groupby("group").fold.nunique().max() == 1
    accuracy = (predictions.label == predictions.predicted).mean()
    assert measured(parent)["test/accuracy"] == pytest.approx(accuracy)
    single = [measured(run)["test/accuracy"] for run in children]
    assert measured(parent)["test/accuracy_mean"] == pytest.approx(np.mean(single))
    assert measured(parent)["test/accuracy_std"] == pytest.approx(np.std(single, ddof=1))
    assert "test/accuracy_ci_low" in measured(parent)
    done = run_melanoma(
        "audit", *(word for word in PLANTED if word.startswith("data.")), f"labels={parent.info.run_id}",
        f"tracking.uri={store}", f"audit.output={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    labels = pd.read_csv(tmp_path / "labels.csv")
    assert f"{labels.likely_error.sum()} of {len(labels)} labels are likely errors" in done.stdout
    assert set(predictions.sha256) <= set(labels.sha256)
    assert (tmp_path / "labels.html").is_file()


@pytest.mark.slow
def test_one_value_of_a_column_is_left_out_in_each_run(store: str):
    train(store, "split=leave_one_out_by", "split.column=sex")
    parent, children = parent_and_children(store)
    assert [run.info.run_name for run in children] == [
        f"{parent.info.run_name} sex={value}" for value in ("female", "male")
    ]
    tested = [csv(store, run.info.run_id, "evaluation/predictions.csv").query("part == 'test'") for run in children]
    assert not set(tested[0].path) & set(tested[1].path)
    assert measured(parent)["folds"] == 2


def test_both_protocols_side_by_side(store: str):
    done = run_melanoma(
        "train", *PLANTED, "protocol=both", "balance=augmentor", "balance.images_per_class=10", f"tracking.uri={store}"
    )
    assert done.returncode == 0, done.stderr
    assert "inflation" in done.stdout
    parent, (clean, published) = parent_and_children(store)
    assert parent.data.tags["melanoma.protocol"] == published.data.tags["melanoma.protocol"]
    assert clean.data.tags["melanoma.protocol"] == "clean"
    shortcuts = published.data.tags["melanoma.protocol"].split(",")
    assert shortcuts == ["published", "augmented_before_split", "duplicates_ignored", "groups_ignored"]
    assert "Not a clean result" in published.data.tags["mlflow.note.content"]
    assert "Not a clean result" not in clean.data.tags["mlflow.note.content"]
    for name in ("test/accuracy", "validation/accuracy", "validation/auc"):
        difference = measured(published)[name] - measured(clean)[name]
        assert measured(parent)[f"inflation/{name}"] == pytest.approx(difference)
    split = csv(store, published.info.run_id, "data/split.csv")
    assert ((split.part == "validation") & (split.parent != "")).any()
    assert published.data.tags["melanoma.known_leaks"]
    split = csv(store, clean.info.run_id, "data/split.csv")
    assert not ((split.part != "train") & (split.parent != "")).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["split=leave_one_out_by", "split.column=hospital"], "must be lesion, patient, age, sex, site or skin_tone"),
        (["split=kfold", "split.folds=60"], "at least split.folds=60"),
    ],
)
def test_studies_that_cannot_be_are_refused(store: str, arguments: list[str], message: str):
    done = run_melanoma("train", *PLANTED, *arguments, f"tracking.uri={store}")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_seeds_on_one_split(empty_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """The parent has mean and spread, the children repeat a seed alone, and the best seed can be promoted."""
    store = copied_store(empty_store, tmp_path)
    words = [*SMALL, "training.epochs=1", "data.source.images=160", "split.test=0.3"]
    trained_here([*words, "seeds=2", "seed=3", f"tracking.uri={store}"], tmp_path)
    assert "2 seeds on the same 48 test images" in capsys.readouterr().out
    parent, children = parent_and_children(store)
    metrics, values = measured(parent), [measured(child)["test/auc"] for child in children]
    assert [child.data.params["seed"] for child in children] == ["3", "4"]
    assert metrics["test/auc"] == pytest.approx(np.mean(values))
    assert metrics["test/auc_std"] == pytest.approx(np.std(values, ddof=1))
    assert metrics["test/auc_ci_low"] <= metrics["same_seeds/test/auc_ci_low"] < metrics["test/auc"]
    assert "test/auc" in parent.data.metrics  # on MLflow's page
    tested = [csv(store, child.info.run_id, "data/split.csv") for child in children]
    assert tested[0][["path", "part"]].equals(tested[1][["path", "part"]])
    assert list(csv(store, parent.info.run_id, "evaluation/seeds.csv").seed) == [3, 4]
    assert "2 seeds on the same 48 test images" in parent.data.tags["mlflow.note.content"]
    mlflow.set_tracking_uri(store)
    best = max(children, key=lambda child: measured(child)["validation/auc"])
    assert candidate_of(parent.info.run_id, "validation/auc").run_id == best.info.run_id
    second = client(store).download_artifacts(children[1].info.run_id, "config/overrides.yaml")
    again = [word for word in yaml.safe_load(Path(second).read_text()) if "tracking." not in word]
    assert {"seed=4", "split.seed=3"} <= set(again)
    assert not [word for word in again if word.startswith("seeds=")]
    record = RunRecord.read(parent.info.run_id)
    trained_here([*words, "seed=9", "split.seed=3", f"tracking.uri={store}"], tmp_path)
    (single,) = [run for run in all_runs(store) if run.data.params["seed"] == "9"]
    compared = compare_records([record, RunRecord.read(single.info.run_id)], "test", common=False)
    assert compared.rows[0][1][0].startswith(f"{metrics['test/accuracy']:.3f} [")
    assert any("one seed, so that it is not known" in line for line in compared.warnings)
    everything = [RunRecord.read(run.info.run_id) for run in all_runs(store)]
    assert {one.id for one in without_children(everything)} == {record.id, single.info.run_id}
    with pytest.raises(DataError, match="one of"):
        compare_records([record, RunRecord.read(children[0].info.run_id)], "test", common=False)
    with pytest.raises(NotRecorded, match="several seeds"):
        record.predictions()
    assert {one.test for one in compared.tests[single.info.run_id]} == {"t over seeds"}
