"""Selection of the MLflow store, and setup of a SQLite store for concurrent writers."""

import logging
import os
import re
import shlex
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from melanoma.errors import ConfigError, ModelError
from melanoma.paths import project_root
from melanoma.terminal import stage

# Disables MLflow's progress bars, which it draws for each file.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

_CONNECT_TIMEOUT = 10  # seconds
# By default a request is repeated for minutes, and each request of the clean-up anew.
_HURRIED = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}

__all__ = [
    "command_on_store",
    "downloaded",
    "figures_folder",
    "hurry",
    "open_store",
    "patience_kept",
    "predict_command",
    "prepare_experiment",
    "report_command",
    "resume_command",
    "sqlite_path",
    "store_errors",
    "tracking_uri",
    "ui_command",
    "without_password",
]

log = logging.getLogger("melanoma")


def tracking_uri(configured: str | None) -> str:
    """Return the store's URI: `tracking.uri`, or else MLFLOW_TRACKING_URI, or else `mlflow.db` in the project root.

    Raises:
        ConfigError: If the server cannot be reached.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_root() / 'mlflow.db'}"
    _refuse_unreachable(uri)
    return uri


@stage("Opening the tracking store")
def open_store(configured: str | None) -> str:
    """Make the store of `tracking_uri` the current store of MLflow, and return its URI.

    Raises:
        ConfigError: If the store does not exist or cannot be used.
    """
    uri = tracking_uri(configured)
    path = sqlite_path(uri)
    if path is not None and not path.is_file():
        raise ConfigError(
            [
                "There is no tracking store yet; train first, or name another (tracking.uri, MLFLOW_TRACKING_URI). "
                f"Received: {uri}"
            ]
        )
    if path is not None and path.stat().st_size == 0:
        raise ConfigError(
            [f"The tracking store is an empty file, as after a full disk; restore it from a copy. Received: {uri}"]
        )
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    with _opening(uri):
        mlflow.set_tracking_uri(uri)
        mlflow.MlflowClient().search_experiments(max_results=1)
    return uri


def downloaded(address: str) -> Path:
    """Download an artifact or a model's files to a folder that is deleted when this process ends.

    Raises:
        MlflowException, OSError: If the artifact does not exist.
    """
    import mlflow

    target = Path(tempfile.mkdtemp(dir=_scratch().name))
    return Path(mlflow.artifacts.download_artifacts(address, dst_path=str(target)))


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="melanoma-")


@contextmanager
def store_errors() -> Iterator[None]:
    """Convert exceptions of MLflow to `ModelError`, with one message."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise ModelError(f"The tracking store reported an error: {str(error).splitlines()[0]}") from error


def hurry() -> None:
    """Let requests to a tracking server fail soon: the run ends early, and the server may be the reason."""
    os.environ.update(_HURRIED)


@contextmanager
def patience_kept() -> Iterator[None]:
    """Undo `hurry` at the end of the context."""
    before = {name: os.environ.get(name) for name in _HURRIED}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _refuse_unreachable(uri: str) -> None:
    """Refuse a server that cannot be reached; MLflow itself would retry silently for minutes."""
    address = urlsplit(uri)
    if address.scheme not in ("http", "https") or os.environ.get("HTTPS_PROXY") or os.environ.get("HTTP_PROXY"):
        return
    try:
        port = address.port or {"http": 80, "https": 443}[address.scheme]
        socket.create_connection((address.hostname or "", port), timeout=_CONNECT_TIMEOUT).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            [
                "The MLflow server cannot be reached; start it, or give another tracking.uri or MLFLOW_TRACKING_URI "
                f"({error}). Received: {without_password(uri)}"
            ]
        ) from error


@stage("Opening the tracking store")
def prepare_experiment(uri: str, experiment: str | None) -> str | None:
    """Set the store, create the experiment if needed, and return its ID; with None, only set the store.

    Raises:
        ConfigError: If the store cannot be opened, or if the experiment was deleted.
    """
    import mlflow

    path = sqlite_path(uri)
    with _opening(uri), _setup_lock(path):
        mlflow.set_tracking_uri(uri)
        return None if experiment is None else _experiment_id(experiment, path)


@contextmanager
def _opening(uri: str) -> Iterator[None]:
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, CommandError, OSError, sqlite3.Error) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError([f"The MLflow store cannot be used ({reason}). Received: {without_password(uri)}"]) from error


@contextmanager
def _setup_lock(path: Path | None) -> Iterator[None]:
    """Lock the setup of a SQLite store, because MLflow's migrations fail if two processes run them."""
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.is_file() and path.stat().st_size == 0:
            log.warning(
                "The tracking store was an empty file and is made anew; if it held runs, restore a copy: %s", path
            )
        if not path.is_file() or path.stat().st_size == 0:
            _create_store(path)
        _use_write_ahead_log(path)
        yield


def _create_store(path: Path) -> None:
    """Create a SQLite store, which appears whole or not at all: MLflow cannot open one with a part of its tables."""
    import mlflow

    new = path.with_name(f".{path.name}.new")
    for left in path.parent.glob(f"{new.name}*"):
        left.unlink()
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{new}").search_experiments(max_results=1)
    new.replace(path)


def _experiment_id(experiment: str, path: Path | None) -> str:
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(experiment)
    if found is None:
        # An absolute location does not depend on the current folder.
        location = None if path is None else (path.parent / "mlartifacts").as_uri()
        # Without this tag, MLflow's UI guesses the kind, and may show the experiment as one for language models.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        try:
            return str(client.create_experiment(experiment, artifact_location=location, tags=tags))
        except MlflowException:
            found = client.get_experiment_by_name(experiment)  # another process created it first
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise ConfigError(
            [
                f"The experiment was deleted; restore it with `mlflow experiments restore -x {found.experiment_id}`, "
                f"or give another name. Received: tracking.experiment={experiment}"
            ]
        )
    return str(found.experiment_id)


def figures_folder(run_id: str) -> str | None:
    """Return the location of a run's figures: a folder, or the address of a remote store; None if there are none."""
    import mlflow

    client = mlflow.MlflowClient()
    if not client.list_artifacts(run_id, "figures"):
        return None
    address = str(client.get_run(run_id).info.artifact_uri)
    parsed = urlsplit(address)
    return f"{unquote(parsed.path) if parsed.scheme == 'file' else without_password(address)}/figures"


def ui_command(uri: str) -> str:
    """Return the command or the URL to view the store in a browser."""
    if uri.startswith("http"):
        return without_password(uri)
    return f"mlflow ui --backend-store-uri {shlex.quote(without_password(uri))}"


def command_on_store(configured: str | None, *words: str) -> str:
    """Return a command of melanoma as text, with the store if it is configured, as in `tracking_uri`."""
    where = [] if configured is None else [f"tracking.uri={without_password(configured)}"]
    return shlex.join(["melanoma", *words, *where])


def predict_command(model: str, configured: str | None) -> str:
    """Return the command that predicts with a model; `configured` is as in `tracking_uri`."""
    return command_on_store(configured, "predict", f"model={model}", "input=IMAGE")


def resume_command(run_id: str, configured: str | None) -> str:
    """Return the command that goes on with an interrupted run; `configured` is as in `tracking_uri`."""
    return command_on_store(configured, "train", f"resume={run_id}")


def report_command(run_id: str, configured: str | None) -> str:
    """Return the command that writes a page about the experiment of a run; `configured` is as in `tracking_uri`."""
    import mlflow

    # `mlflow run` may have chosen another experiment than the configuration.
    experiment = mlflow.get_experiment(mlflow.get_run(run_id).info.experiment_id).name
    where = [] if configured is None else ["--tracking-uri", without_password(configured)]
    return shlex.join(["melanoma", "report", experiment, "--html", "report.html", *where])


def without_password(text: str) -> str:
    """Replace the passwords of URLs in a text (`scheme://user:password@host`) by ***."""
    return re.sub(r"(://[^/@:\s]*):[^@/\s]+@", r"\1:***@", text)


def sqlite_path(uri: str) -> Path | None:
    """Return the file of a SQLite store; None for other stores."""
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def _use_write_ahead_log(path: Path) -> None:
    """Allow readers concurrent with a writer; the setting is persistent."""
    connection = sqlite3.connect(path, timeout=30)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()
