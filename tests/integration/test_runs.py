"""Runs whose process died are told from those that live, and ended."""

import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import LoggedModelStatus

from melanoma.errors import ModelError
from melanoma.paths import cache_dir
from melanoma.tracking.heartbeat import owner
from melanoma.tracking.names import Tag
from melanoma.tracking.open_runs import RUNNING, open_runs
from melanoma.workflows.runs import clean_runs
from tests.commands import Started
from tests.integration.conftest import SMALL, client, only_run


@pytest.fixture
def uri(store: str) -> str:
    mlflow.set_tracking_uri(store)
    return store


def opened(tags: dict[str, str]) -> str:
    experiment = mlflow.set_experiment("by hand").experiment_id
    return mlflow.MlflowClient().create_run(experiment, tags=tags).info.run_id


def at(minutes: float) -> str:
    """A heartbeat of so many minutes ago."""
    return (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(timespec="seconds")


def here(number: int, started: str | None = None) -> str:
    host, _, own = owner().rpartition(":")[0].rpartition(":")
    return f"{host}:{number}:{started or owner().rpartition(':')[2]}" if own else ""


def test_a_killed_training_is_told_and_ended(uri: str, run_here):
    training = Started("train", *SMALL, "training.epochs=100000", f"tracking.uri={uri}")
    training.until(lambda: "epoch 2/" in training.err)
    run = only_run(uri)
    [one] = open_runs()
    assert (one.run.info.run_id, one.state) == (run.info.run_id, RUNNING)
    assert time.time() - one.last_sign < 120
    assert clean_runs(uri) == []
    with pytest.raises(ModelError, match="process of the run lives"):
        clean_runs(uri, [run.info.run_id])
    os.kill(training.pid, signal.SIGKILL)
    training.wait()
    done = run_here("runs", "--tracking-uri", uri)
    assert done.returncode == 0, done.stderr
    assert (
        "1 of 1 have no process any more; `melanoma runs clean` ends them and removes their checkpoints." in done.stdout
    )
    assert f"To go on: melanoma train resume={run.info.run_id} tracking.uri={uri}" in done.stdout
    done = run_here("runs", "clean", "--dry-run", "--tracking-uri", uri)
    assert f"Would end {run.info.run_name} ({run.info.run_id}); kept: " in done.stdout
    assert only_run(uri).info.status == "RUNNING"
    done = run_here("runs", "clean", "--tracking-uri", uri)
    assert done.returncode == 0, done.stderr
    epochs = len(client(uri).get_metric_history(run.info.run_id, "train/loss"))
    assert epochs >= 2
    assert f"kept: {epochs} epochs, no model; removed: the checkpoint after epoch" in done.stdout
    ended = only_run(uri)
    assert ended.info.status == "KILLED"
    assert "died without ending its run" in ended.data.tags["melanoma.error"]
    assert run_here("runs", "--tracking-uri", uri).stdout == "No run is running, dead or interrupted.\n"


@pytest.mark.parametrize(
    ("process", "minutes", "dead"),
    [
        (owner, 500, False),
        (lambda: here(os.getpid(), "123"), 0, True),  # the number was given again
        (lambda: here(2**22 + 1), 0, True),
        (lambda: "elsewhere:1:2", 9, False),
        (lambda: "elsewhere:1:2", 11, True),
        (None, 500, False),
    ],
    ids=["own", "another start", "gone", "elsewhere", "elsewhere, silent", "older version"],
)
def test_only_dead_runs_are_ended(uri: str, process: Callable[[], str] | None, minutes: float, dead: bool):
    run_id = opened({} if process is None else {Tag.OWNER: process(), Tag.HEARTBEAT: at(minutes)})
    assert clean_runs(uri) == ([run_id] if dead else [])
    assert client(uri).get_run(run_id).info.status == ("KILLED" if dead else "RUNNING")


def test_a_run_of_an_older_version_is_ended_if_it_is_named(uri: str, capsys):
    run_id = opened({})
    clean_runs(uri)
    assert f"melanoma runs clean {run_id}" in capsys.readouterr().out
    assert clean_runs(uri, [run_id]) == [run_id]
    with pytest.raises(ModelError, match="No such run is open or interrupted"):
        clean_runs(uri, [run_id])


def test_its_unfinished_model_is_ended_and_what_it_left_in_the_cache_removed(uri: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MELANOMA_CACHE_DIR", str(tmp_path / "cache"))
    leftover = tmp_path / "cache/decoded/.key.abc.tmp"
    leftover.mkdir(parents=True)
    run_id = opened({Tag.OWNER: here(2**22 + 1)})
    experiment = client(uri).get_run(run_id).info.experiment_id
    model = client(uri).create_logged_model(experiment, name="model", source_run_id=run_id)
    assert clean_runs(uri) == [run_id]
    assert client(uri).get_logged_model(model.model_id).status == LoggedModelStatus.FAILED
    assert not leftover.exists()


def test_the_heart_beats(uri: str, monkeypatch):
    from melanoma.config.schema import TrackingConfig
    from melanoma.tracking.run import tracked_run

    monkeypatch.setattr("melanoma.tracking.heartbeat.INTERVAL", 0.2)
    monkeypatch.setattr("melanoma.tracking.heartbeat._now", lambda: f"{time.time()}")
    with tracked_run(uri, TrackingConfig(system_metrics=False), tags={}, name="beating") as run:
        first = client(uri).get_run(run.id).data.tags[Tag.HEARTBEAT]
        deadline = time.time() + 30
        while client(uri).get_run(run.id).data.tags[Tag.HEARTBEAT] == first and time.time() < deadline:
            time.sleep(0.1)
        assert client(uri).get_run(run.id).data.tags[Tag.HEARTBEAT] != first
    last = client(uri).get_run(run.id).data.tags[Tag.HEARTBEAT]
    time.sleep(0.6)
    assert client(uri).get_run(run.id).data.tags[Tag.HEARTBEAT] == last


def test_an_interrupted_run_is_listed_with_the_command_that_resumes_it(uri: str, run_here):
    code_words = ("train", *SMALL, "training.epochs=100000", f"tracking.uri={uri}")
    training = Started(*code_words)
    training.until(lambda: "epoch 1/" in training.err)
    training.send(signal.SIGTERM)
    assert training.wait() == 143
    run_id = only_run(uri).info.run_id
    shown = run_here("runs", "--tracking-uri", uri).stdout
    assert "interrupted" in shown
    assert f"To go on: melanoma train resume={run_id} tracking.uri={uri}" in shown
    assert clean_runs(uri) == []
    assert "interrupted" in run_here("runs", "--tracking-uri", uri).stdout
    done = run_here("runs", "clean", run_id, "--tracking-uri", uri)
    assert "1 epoch, no model; removed: the checkpoint after epoch" in done.stdout.replace("2 epochs", "1 epoch")
    assert not list((cache_dir() / "checkpoints").glob(run_id))
    assert run_here("runs", "--tracking-uri", uri).stdout == "No run is running, dead or interrupted.\n"


@pytest.mark.parametrize("words", [("list", "abc"), ("--dry-run",), ("stop",)])
def test_wrong_words_are_told(run_here, words: tuple[str, ...]):
    done = run_here("runs", *words)
    assert done.returncode == 2
    assert "usage: melanoma runs" in done.stderr
