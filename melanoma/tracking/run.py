"""The life of one MLflow run: it ends FINISHED, FAILED or KILLED, whatever happens."""

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import mlflow
from matplotlib.figure import Figure
from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.time import get_current_time_millis

from melanoma.errors import RunKilled
from melanoma.tracking.source import git_commit
from melanoma.tracking.store import prepare_experiment

__all__ = ["Run", "flattened", "tracked_run"]

_MAX_PARAM = 6000
_MAX_TAG = 5000
_BATCH = 100


class Run:
    """A run that is under way, by its id."""

    def __init__(self, run_id: str):
        self.id = run_id
        self._client = mlflow.MlflowClient()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters, cut to MLflow's limit, but for those that `mlflow run` has logged as they were given."""
        known = self._client.get_run(self.id).data.params
        new = [Param(key, str(value)[:_MAX_PARAM]) for key, value in params.items() if key not in known]
        for start in range(0, len(new), _BATCH):
            self._client.log_batch(self.id, params=new[start : start + _BATCH])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics; characters that MLflow does not take in a name become underscores."""
        now = get_current_time_millis()
        items = [Metric(_name(key), float(value), now, step) for key, value in metrics.items()]
        for start in range(0, len(items), _BATCH):
            self._client.log_batch(self.id, metrics=items[start : start + _BATCH])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, cut to MLflow's limit."""
        self._client.log_batch(self.id, tags=[RunTag(key, str(value)[:_MAX_TAG]) for key, value in tags.items()])

    def log_text(self, text: str, path: str) -> None:
        """Log a text as the artifact `path`."""
        self._client.log_text(self.id, text, path)

    def log_json(self, content: Any, path: str) -> None:
        """Log a dictionary as the artifact `path`, which ends in .json."""
        self._client.log_dict(self.id, content, path)

    def log_figure(self, figure: Figure, name: str) -> None:
        """Log a figure as `figures/<name>.png`."""
        self._client.log_figure(self.id, figure, f"figures/{name}.png", save_kwargs={"dpi": 120})

    def log_file(self, path: str, folder: str) -> None:
        """Log a file, or a folder, below the artifact folder `folder`."""
        if os.path.isdir(path):  # noqa: PTH112
            self._client.log_artifacts(self.id, path, folder)
        else:
            self._client.log_artifact(self.id, path, folder)


@contextmanager
def tracked_run(
    *, uri: str, experiment: str, name: str | None, system_metrics: bool, tags: Mapping[str, str]
) -> Iterator[Run]:
    """Open a run, or the one that `mlflow run` made, and close it with the status it deserves.

    An exception ends it FAILED, Ctrl-C and SIGTERM end it KILLED; what was logged is kept.
    """
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    if os.environ.get("MLFLOW_RUN_ID"):
        # `mlflow run` has chosen store and experiment; setting another conflicts with its run.
        mlflow.set_tracking_uri(uri)
        experiment_id = None
    else:
        experiment_id = prepare_experiment(uri, experiment)
    started = mlflow.start_run(experiment_id=experiment_id, run_name=name, log_system_metrics=system_metrics)
    # mlflow.start_run has taken MLFLOW_RUN_ID; a child process must not write into the same run.
    os.environ.pop("MLFLOW_RUN_ID", None)
    run = Run(started.info.run_id)
    # Else MLflow's page guesses what the experiment is, and may show it as one of language models.
    mlflow.MlflowClient().set_experiment_tag(
        started.info.experiment_id, "mlflow.experimentKind", "custom_model_development"
    )
    status = "FAILED"
    try:
        with _sigterm_raises():
            run.set_tags({"melanoma.host": socket.gethostname(), **git_commit(), **tags})
            yield run
        status = "FINISHED"
    except (KeyboardInterrupt, RunKilled):
        status = "KILLED"
        raise
    except BaseException as error:
        run.set_tags({"melanoma.error": f"{type(error).__name__}: {error}"})
        raise
    finally:
        mlflow.end_run(status)


def flattened(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every leaf of nested dictionaries, and of lists of them, by its dotted key."""
    if isinstance(config, dict) and config:
        items: Any = config.items()
    elif isinstance(config, list) and any(isinstance(item, dict) for item in config):
        items = enumerate(config)
    else:
        return {prefix: config}
    leaves: dict[str, Any] = {}
    for key, value in items:
        leaves.update(flattened(value, f"{prefix}.{key}" if prefix else str(key)))
    return leaves


def _name(key: str) -> str:
    return re.sub(r"[^/\w.\- :]", "_", key)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into an exception while a run is open; only the main thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_killed(_signal: int, _frame: FrameType | None) -> None:
        raise RunKilled

    before = signal.signal(signal.SIGTERM, raise_killed)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
