"""A small training run that several tests look at."""

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

import mlflow
import pytest
from filelock import FileLock

from melanoma.cli import main
from melanoma.config.diagnose import diagnose
from melanoma.config.launch import register_resolvers
from melanoma.config.schema import TrainConfig
from melanoma.tracking.measures import read_measures
from melanoma.tracking.names import Artifact
from melanoma.tracking.store import prepare_experiment
from melanoma.workflows.train import train
from tests.commands import COMMAND, run_melanoma

SMALL = (
    "data.source.images=80", "data.source.size=48", "data.image_size=48", "model=m1", "training.epochs=2",
    "training.batch_size=16", "evaluation.bootstrap=50", "tracking.system_metrics=false", "tracking.figures=false",
)  # fmt: skip


def trained_here(words: Sequence[str], folder: Path) -> str:
    """The id of a run that `melanoma train` would make of these overrides, without a process of its own."""
    register_resolvers()
    config, faults = diagnose("train", TrainConfig, list(words))
    assert faults == []
    return train(config, list(words), folder).run_id


@dataclass(frozen=True)
class Trained:
    uri: str
    run: mlflow.entities.Run
    output: str
    folder: Path

    def artifacts(self, path: str = "") -> set[str]:
        return {item.path for item in client(self.uri).list_artifacts(self.run.info.run_id, path)}

    def download(self, path: str) -> Path:
        mlflow.set_tracking_uri(self.uri)
        return Path(mlflow.artifacts.download_artifacts(f"runs:/{self.run.info.run_id}/{path}"))


def measured(run: mlflow.entities.Run) -> dict[str, float]:
    """All metrics of a run in a local store: those that MLflow shows, and those of its file."""
    file = Path(unquote(urlsplit(run.info.artifact_uri).path)) / Artifact.METRICS
    return {**run.data.metrics, **(read_measures(file.read_text()) if file.is_file() else {})}


def client(uri: str) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri=uri)


def only_run(uri: str, experiment: str = "melanoma") -> mlflow.entities.Run:
    (run,) = all_runs(uri, experiment)
    return run


def all_runs(uri: str, experiment: str = "melanoma") -> list[mlflow.entities.Run]:
    store = client(uri)
    return store.search_runs([store.get_experiment_by_name(experiment).experiment_id])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def mlflow_server(store: str, log: Path, *options: str) -> Iterator[str]:
    """The address of MLflow's server with a store behind it, on loopback."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [str(COMMAND.parent / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port)]
    # Without the eight processes that run MLflow's own jobs, each of which imports all of it.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("w") as sink:
        process = subprocess.Popen(
            [*command, "--backend-store-uri", store, *options], env=environment, stdout=sink, stderr=sink,
            start_new_session=True,
        )  # fmt: skip
    try:
        for _ in range(120):
            try:
                if urlopen(f"{address}/health", timeout=2).status == 200:
                    break
            except OSError:
                time.sleep(1)
        else:
            pytest.fail(log.read_text()[-3000:])
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # asked to end, it may take longer than half a minute where others wait
        process.wait()


@pytest.fixture
def run_here(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Run a command as `run_melanoma` does, without a process of its own, which would take ten seconds to begin."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["melanoma"])
        capsys.readouterr()
        code: Any = 0
        try:
            main(list(words))
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, said.out, said.err)

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def new_store(tmp_path: Path) -> str:
    """The address of a store that is not there yet."""
    return f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}"


@pytest.fixture
def store(new_store: str, empty_store: Path) -> str:
    """The address of a store in which MLflow has made its tables, and nothing is logged."""
    return copied_store(empty_store, Path(new_store.removeprefix("sqlite:///")).parent)


def copied_store(file: Path, folder: Path) -> str:
    """The address of a copy of a SQLite store, complete while others write into the first."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "mlflow.db"
    with closing(sqlite3.connect(file)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)
    return f"sqlite:///{target}"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Made once for all processes of the tests: MLflow's migrations take seconds."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "empty-store"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            prepare_experiment(f"sqlite:///{folder / 'mlflow.db'}", None)
            client(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Trained:
    """A run with unreadable files, Augmentor, augmentation, calibration and mirrored views, in a folder of its own.

    Made once for all processes of the tests; each has a copy of the store, and the artifacts of the first.
    """
    own = tmp_path_factory.mktemp("trained")
    if worker_id == "master":
        return _trained(own)
    shared = tmp_path_factory.getbasetemp().parent / "trained"
    with FileLock(f"{shared}.lock"):
        if not shared.is_dir():
            made = _trained(own)
            (own / "output").write_text(made.output, encoding="utf-8")
            shutil.copytree(os.environ["MELANOMA_CACHE_DIR"], own / "cache")  # what its audit has found
            shared.symlink_to(own)
            return made
    shutil.copytree(shared / "cache", os.environ["MELANOMA_CACHE_DIR"], dirs_exist_ok=True)
    uri = copied_store(shared / "mlflow.db", own)
    mlflow.set_tracking_uri(uri)
    first = min(all_runs(uri), key=lambda run: run.info.start_time)
    return Trained(uri, first, (shared / "output").read_text(encoding="utf-8"), shared.resolve())


def _trained(folder: Path) -> Trained:
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    done = run_melanoma(
        "train", *SMALL, "data.source.images=160", "split.test=0.3", "tracking.figures=true",
        "data.source.unreadable=2", "balance=augmentor",
        "balance.images_per_class=6",
        "augmentation=flip_rotate", "evaluation.calibration=temperature", "evaluation.test_time_augmentation=flips",
        "tracking.run_name=small", f"tracking.uri={uri}", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = only_run(uri)
    assert re.search(run.info.run_id, done.stdout)
    return Trained(uri, run, done.stdout, folder)
