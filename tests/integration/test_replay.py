"""A run is made again from its record, and all numbers are compared."""

import mlflow
import pytest

from melanoma.tracking.names import Tag
from melanoma.tracking.records import RunRecord
from melanoma.workflows.replay import IDENTICAL, replay
from tests.integration.conftest import SMALL, all_runs, client, trained_here


@pytest.fixture
def uri(store: str) -> str:
    mlflow.set_tracking_uri(store)
    return store


def replays(uri: str) -> list[mlflow.entities.Run]:
    return [run for run in all_runs(uri) if Tag.REPLAY_OF in run.data.tags]


def test_a_run_is_repeated_to_the_digit(uri, tmp_path, run_here):
    words = (*SMALL, "training.find_learning_rate=true", "training.max_minutes=1", "augmentation=dermoscopy")
    run_id = trained_here([*words, f"tracking.uri={uri}"], tmp_path)
    done = run_here("replay", run_id[:8], "--tracking-uri", uri)
    assert done.returncode == 0, done.stderr
    [again] = replays(uri)
    record = RunRecord(again)
    assert (again.data.tags[Tag.REPLAY_OF], again.data.tags[Tag.REPLAY]) == (run_id, IDENTICAL)
    report = record.json("replay.json")
    assert report["verdict"] == IDENTICAL
    assert report["numbers"] > 100
    assert report["differing"] == []
    assert f"{report['numbers']} of {report['numbers']} numbers are the same to the digit." in done.stdout
    assert "chosen by a range test" not in done.stderr
    assert again.data.tags["mlflow.note.content"].startswith("Replay of ")


@pytest.mark.slow
def test_what_changed_is_named_and_a_second_replay_tells_what_is_chance(uri, tmp_path, run_here):
    run_id = trained_here([*SMALL, f"tracking.uri={uri}"], tmp_path)
    packages = RunRecord.read(run_id).text("environment/requirements.txt")
    changed = "\n".join("numpy==1.0" if line.startswith("numpy==") else line for line in packages.splitlines())
    client(uri).log_text(run_id, changed, "environment/requirements.txt")
    client(uri).set_tag(run_id, "mlflow.source.git.commit", "0" * 40)
    client(uri).log_metric(run_id, "val/auc", 0.987, step=1)  # as another machine could have measured
    done = run_here("replay", f"model=runs:/{run_id}/model", "--tracking-uri", uri)
    assert done.returncode == 1, done.stderr
    assert "numbers differ; a second replay shows what this machine's nondeterminism is" in done.stderr
    first, second = sorted(replays(uri), key=lambda run: run.info.start_time)
    assert first.data.tags[Tag.REPLAY] == "different"
    assert Tag.REPLAY not in second.data.tags
    report = RunRecord(first).json("replay.json")
    assert {(one["metric"], one["epoch"], one["run"], one["tolerance"]) for one in report["differing"]} == {
        ("val/auc", 2, 0.987, 0.0)
    }
    assert any(change.startswith("numpy 1.0, now ") for change in report["changes"])
    assert any(change.startswith(f"commit: {'0' * 40}, now ") for change in report["changes"])
    assert "val/auc, epoch 2" in done.stdout


@pytest.mark.slow
def test_folds_and_one_of_them_are_repeated(uri, tmp_path):
    words = (*SMALL, "training.epochs=1", "split=kfold", "split.folds=2", f"tracking.uri={uri}")
    parent = trained_here(words, tmp_path)
    assert replay(parent, uri, tmp_path) == IDENTICAL
    [again] = replays(uri)
    numbers = RunRecord(again).json("replay.json")["numbers"]
    children = RunRecord.read(parent).children
    assert [child.tags[Tag.MEMBER] for child in children] == ["fold 1", "fold 2"]
    assert replay(children[1].id, uri, tmp_path) == IDENTICAL
    newest = max(replays(uri), key=lambda run: run.info.start_time)
    assert 20 < RunRecord(newest).json("replay.json")["numbers"] < numbers


def test_what_cannot_be_repeated_is_told(uri, tmp_path, run_here):
    experiment = mlflow.set_experiment("melanoma").experiment_id
    run = client(uri).create_run(experiment)
    done = run_here("replay", run.info.run_id, "--tracking-uri", uri)
    assert done.returncode == 2
    assert "Only a finished run can be replayed" in done.stderr
    client(uri).set_terminated(run.info.run_id, "FINISHED")
    assert (
        "ended before its configuration was recorded"
        in run_here("replay", run.info.run_id, "--tracking-uri", uri).stderr
    )
    config = "data: {}\nmodel: {}\nsplit: {}\ntraining: {epochs: 9, max_minutes: 1}\n"
    client(uri).log_text(run.info.run_id, config, "config/resolved.yaml")
    client(uri).log_metric(run.info.run_id, "fit/epochs", 5)
    done = run_here("replay", run.info.run_id, "--tracking-uri", uri)
    assert "The time limit ended the run after 5 of 9 planned epochs, which cannot be repeated" in done.stderr
    client(uri).set_tag(run.info.run_id, Tag.BEST_RUN, "abc")
    assert "melanoma replay abc" in run_here("replay", run.info.run_id, "--tracking-uri", uri).stderr
    assert "There is no such run" in run_here("replay", "0" * 32, "--tracking-uri", uri).stderr
