"""Which MLflow store is used, and making a SQLite one ready for several writers."""

import os
import sqlite3
from pathlib import Path

from melanoma.errors import ConfigError
from melanoma.paths import project_root

# A bar for each small file that MLflow copies says nothing to a user.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

__all__ = ["prepare_experiment", "tracking_uri", "ui_command"]


def tracking_uri(configured: str | None) -> str:
    """`tracking.uri`, else MLFLOW_TRACKING_URI, else `mlflow.db` in the project's root.

    Under `mlflow run` the store is that of the run which MLflow made, whatever is configured.
    """
    environment = os.environ.get("MLFLOW_TRACKING_URI")
    if os.environ.get("MLFLOW_RUN_ID") and environment:
        return environment
    return configured or environment or f"sqlite:///{project_root() / 'mlflow.db'}"


def prepare_experiment(uri: str, experiment: str) -> str:
    """Set the store, make the experiment if it is not there, and return its id.

    Raises:
        ConfigError: the store cannot be opened, or the experiment was deleted.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    path = _sqlite_path(uri)
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _use_write_ahead_log(path)
        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient()
        found = client.get_experiment_by_name(experiment)
        if found is None:
            # Absolute, so that artifacts do not depend on the folder a command is started in.
            location = None if path is None else (path.parent / "mlartifacts").as_uri()
            try:
                return str(client.create_experiment(experiment, artifact_location=location))
            except MlflowException:
                found = client.get_experiment_by_name(experiment)  # another process was faster
                if found is None:
                    raise
    except (MlflowException, OSError, sqlite3.Error) as error:
        raise ConfigError([f"The MLflow store cannot be used ({error}). Received: {uri}"]) from error
    if found.lifecycle_stage != "active":
        raise ConfigError(
            [
                f"The experiment was deleted; restore it with `mlflow experiments restore -x {found.experiment_id}`, "
                f"or give another name. Received: tracking.experiment={experiment}"
            ]
        )
    return str(found.experiment_id)


def ui_command(uri: str) -> str:
    """What to type to see the store in a browser."""
    return f"mlflow ui --backend-store-uri {uri}" if not uri.startswith("http") else f"open {uri}"


def _sqlite_path(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def _use_write_ahead_log(path: Path) -> None:
    """Let readers and a writer work at once; the setting stays in the file."""
    connection = sqlite3.connect(path, timeout=30)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()
