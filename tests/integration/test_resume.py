"""Trainings that are killed at any moment go on in their own run, to the result of one that was not killed."""

import re
import shutil
import signal
from pathlib import Path

import mlflow
import pytest
from filelock import FileLock

from melanoma.errors import DataError, ModelError
from melanoma.tracking.logged_models import models_of
from melanoma.tracking.names import Tag
from tests.commands import Started, run_melanoma
from tests.integration.conftest import SMALL, all_runs, client, measured, only_run, trained_here

WORDS = (
    *SMALL,
    "training.epochs=4",
    "augmentation=dermoscopy",
    "training.ema=0.9",
    "training.early_stopping.patience=2",
)
TIMED = ("seconds", "latency", "images_per_second", "system/")


@pytest.fixture
def uri(store: str) -> str:
    mlflow.set_tracking_uri(store)
    return store


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch) -> Path:
    """The folder of checkpoints, in a cache of this test."""
    monkeypatch.setenv("MELANOMA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache/checkpoints"


def results(run: mlflow.entities.Run) -> dict[str, float]:
    return {name: value for name, value in measured(run).items() if not any(word in name for word in TIMED)}


def curves(uri: str, run_id: str) -> dict[str, list[tuple[int, float]]]:
    names = [name for name in client(uri).get_run(run_id).data.metrics if name.startswith(("train/", "val/"))]
    assert "val/auc" in names
    return {name: [(one.step, one.value) for one in client(uri).get_metric_history(run_id, name)] for name in names}


def killed(number: int, moment: str, *words: str, seconds: float = 120) -> tuple[int, str]:
    """Start a command, send it a signal once it has printed something, and return its exit code and all it printed."""
    started = Started("train", *words)
    started.until(lambda: moment in started.err, seconds)
    started.send(number)
    return started.wait(), started.err


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, float]:
    """The result of a training that was not killed."""
    folder = tmp_path_factory.mktemp("whole")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    trained_here([*WORDS, f"tracking.uri={uri}"], folder)
    return results(only_run(uri))


@pytest.mark.parametrize("moment", ["epoch 2/", "Kept epoch", pytest.param("Operating point", marks=pytest.mark.slow)])
def test_kill_9_loses_nothing(uri, checkpoints, whole, tmp_path, moment):
    code, text = killed(signal.SIGKILL, moment, *WORDS, f"tracking.uri={uri}")
    assert code == -signal.SIGKILL, text
    run = only_run(uri)
    assert run.info.status == "RUNNING"
    trained_here([f"resume={run.info.run_id}", f"tracking.uri={uri}"], tmp_path)
    again = only_run(uri)
    assert (again.info.status, again.info.run_id) == ("FINISHED", run.info.run_id)
    assert results(again) == whole
    for points in curves(uri, run.info.run_id).values():
        assert [step for step, _ in points] == list(range(len(points)))
    assert len(models_of(run.info.run_id)) == 1
    assert [path for path in checkpoints.rglob("*") if path.is_file()] == []
    assert again.data.tags[Tag.RESUMED].count("T") == 1
    assert len({one.path for one in client(uri).list_artifacts(run.info.run_id, "logs")}) >= 1


def test_sigterm_is_obeyed_with_a_checkpoint(uri, checkpoints, whole, tmp_path):
    words = (*WORDS, "training.epochs=4", f"tracking.uri={uri}")
    code, text = killed(signal.SIGTERM, "epoch 1/", *words)
    assert code == 143, text
    assert "SIGTERM: the training ends after this batch, with a checkpoint" in text
    run = only_run(uri)
    assert (run.info.status, run.data.tags[Tag.INTERRUPTED]) == ("KILLED", "SIGTERM")
    assert f"melanoma train resume={run.info.run_id}" in text
    assert len(list(checkpoints.glob("*/*"))) >= 1
    trained_here([*words, "resume=auto"], tmp_path)
    again = only_run(uri)
    assert results(again) == whole
    assert Tag.INTERRUPTED not in again.data.tags


FOLDS = (*SMALL, "training.epochs=3", "split=kfold", "split.folds=2")


@pytest.mark.parametrize(
    ("words", "moment"),
    [
        (FOLDS, r"fold 2 \(.*epoch 1/"),
        pytest.param((*SMALL, "training.epochs=3", "protocol=both"), r"clean \(.*epoch 1/", marks=pytest.mark.slow),
        pytest.param((*SMALL, "training.epochs=3", "seeds=2"), r"Seed 1.*epoch 1/", marks=pytest.mark.slow),
    ],
    ids=["folds", "protocols", "seeds"],
)
def test_parts_of_a_run_go_on_where_they_were(uri, checkpoints, tmp_path, words, moment):
    started = Started("train", *words, f"tracking.uri={uri}")
    started.until(lambda: re.search(moment, started.err, re.DOTALL) is not None)
    started.send(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL, started.err
    before = {run.info.run_id: run.info.status for run in all_runs(uri)}
    assert sorted(before.values()) == ["FINISHED", "RUNNING", "RUNNING"]
    [parent] = [run for run in all_runs(uri) if Tag.PARENT not in run.data.tags]
    child = next(run for run in all_runs(uri) if run.info.status == "RUNNING" and run.info.run_id != parent.info.run_id)
    with pytest.raises(ModelError, match=f"part of another; resume that by resume={parent.info.run_id}"):
        trained_here([f"resume={child.info.run_id}", f"tracking.uri={uri}"], tmp_path)
    trained_here([f"resume={parent.info.run_id}", f"tracking.uri={uri}"], tmp_path)
    assert {run.info.run_id: run.info.status for run in all_runs(uri)} == dict.fromkeys(before, "FINISHED")
    other = f"sqlite:///{tmp_path / 'whole.db'}"
    [whole] = [client(other).get_run(trained_here([*words, f"tracking.uri={other}"], tmp_path))]
    assert results(client(uri).get_run(parent.info.run_id)) == results(whole)
    assert list(checkpoints.glob("*/*")) == []


def interrupted(uri: str, tmp_path: Path, *words: str) -> str:
    """The ID of a run that was interrupted after its first epoch."""
    code, text = killed(signal.SIGTERM, "epoch 1/", *SMALL, "training.epochs=60", f"tracking.uri={uri}", *words)
    assert code == 143, text
    return only_run(uri).info.run_id


def refused(*words: str) -> str:
    """The message with which a resume is refused, with exit code 2."""
    done = run_melanoma("train", *words)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_what_cannot_be_resumed_is_refused_in_one_message(uri, checkpoints, tmp_path):
    run_id = interrupted(uri, tmp_path)
    at = (f"tracking.uri={uri}", f"resume={run_id}")
    assert "The run has training.epochs=60; leave the key out, or train anew. Received: training.epochs=61" in refused(
        *at, "training.epochs=61"
    )
    assert "The run has model.name=m1" in refused(*at, "model=m2")
    assert "The run has schedule._target_=" in refused(*at, "schedule=plateau")
    assert "The run has tracking.experiment=melanoma" in refused(*at, "tracking.experiment=other")
    assert "as in sweep.resume=NAME. Received: resume=auto" in refused(at[0], "resume=auto", "-m", "seed=0,1")
    assert "There is no such run" in refused(at[0], "resume=0123456789abcdef0123456789abcdef")
    client(uri).set_terminated(run_id, "FINISHED")
    assert f"The run is finished. Received: resume={run_id}" in refused(*at)
    client(uri).set_terminated(run_id, "KILLED")
    client(uri).delete_run(run_id)
    assert "The run was deleted" in refused(*at)
    client(uri).restore_run(run_id)
    shutil.move(checkpoints / run_id, tmp_path / "elsewhere")
    client(uri).log_metric(run_id, "train/loss", 0.5, step=1)
    assert "There is no checkpoint of the run, which has" in refused(*at)
    shutil.move(tmp_path / "elsewhere", checkpoints / run_id)
    with FileLock(checkpoints / f".{run_id}.lock"):
        assert "Another process resumes this run at the moment" in refused(*at)
    assert "use `melanoma train`" in run_melanoma("train", *at, MLFLOW_RUN_ID="0" * 32).stderr
    other = client(uri).create_run(only_run(uri).info.experiment_id)
    client(uri).set_terminated(other.info.run_id, "KILLED")
    assert "ended before its configuration was recorded" in refused(at[0], f"resume={other.info.run_id}")


def test_a_run_whose_process_lives_and_changed_images_are_refused(uri, checkpoints, tmp_path):
    started = Started("train", *SMALL, "training.epochs=100000", f"tracking.uri={uri}")
    started.until(lambda: "epoch 1/" in started.err)
    run_id = only_run(uri).info.run_id
    at = [f"tracking.uri={uri}", f"resume={run_id}"]
    assert "The process of the run lives on" in refused(*at)
    started.send(signal.SIGTERM)
    assert started.wait() == 143
    client(uri).set_tag(run_id, Tag.FINGERPRINT, "of other images")
    with pytest.raises(DataError, match="The images changed since the run was interrupted"):
        trained_here(at, tmp_path)


@pytest.mark.slow
def test_values_that_were_found_are_not_searched_again(uri, checkpoints, tmp_path):
    words = (*SMALL, "training.epochs=60", "training.find_learning_rate=true", "training.max_minutes=0.05")
    code, text = killed(signal.SIGTERM, "epoch 2/", *words, f"tracking.uri={uri}")
    assert code == 143, text
    before = only_run(uri).data.params
    run_id = only_run(uri).info.run_id
    again = Started("train", f"tracking.uri={uri}", f"resume={run_id}", *words)  # the command as it was typed
    again.until(lambda: "Going on after" in again.err)
    again.send(signal.SIGKILL)
    again.wait()
    done = run_melanoma("train", f"tracking.uri={uri}", "resume=auto", *words)
    assert done.returncode == 0, done.stderr
    assert "chosen by a range test" not in done.stderr
    after = only_run(uri)
    assert after.info.status == "FINISHED"
    for key in ("optimizer.learning_rate", "training.epochs"):
        assert after.data.params[key] == before[key]
