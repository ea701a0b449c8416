"""Runs with the status RUNNING: whether their process lives, and the end of those whose process died."""

from dataclasses import dataclass
from datetime import datetime

import mlflow
from mlflow.entities import LoggedModelStatus, Run

from melanoma.tracking.heartbeat import INTERVAL, process_alive
from melanoma.tracking.model_store import end_pending, models_of
from melanoma.tracking.names import Tag

__all__ = ["DEAD", "RUNNING", "UNKNOWN", "OpenRun", "end_run", "kept_of", "open_runs", "state_of"]

RUNNING, DEAD, UNKNOWN = "running", "dead", "not known"
_PATIENCE = 10 * INTERVAL  # without a heartbeat, for a process on another machine


@dataclass(frozen=True)
class OpenRun:
    """A run with the status RUNNING.

    Attributes:
        run: The run.
        state: `running`, `dead`, or `not known` for a run of an older version.
        last_sign: Time of its last sign of life, in seconds since 1970.
    """

    run: Run
    state: str
    last_sign: float

    @property
    def label(self) -> str:
        """Name and ID."""
        return f"{self.run.info.run_name} ({self.run.info.run_id})"


def open_runs() -> list[OpenRun]:
    """Return the runs with the status RUNNING in the open store, oldest first."""
    found = mlflow.search_runs(
        search_all_experiments=True,
        filter_string="attributes.status = 'RUNNING'",
        order_by=["attributes.start_time ASC"],
        output_format="list",
    )
    return [_with_state(run) for run in found]


def state_of(run: Run) -> str:
    """Return whether the process of a run with the status RUNNING lives: `running`, `dead` or `not known`."""
    return _with_state(run).state


def _with_state(run: Run) -> OpenRun:
    tags, last_sign = run.data.tags, run.info.start_time / 1000
    if Tag.OWNER not in tags:
        return OpenRun(run, UNKNOWN, last_sign)
    if Tag.HEARTBEAT in tags:
        last_sign = datetime.fromisoformat(tags[Tag.HEARTBEAT]).timestamp()
    alive = process_alive(tags[Tag.OWNER], last_sign, _PATIENCE)
    return OpenRun(run, RUNNING if alive else DEAD, last_sign)


def kept_of(run: Run) -> str:
    """Describe what a run has logged."""
    epochs = len(mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss"))
    saved = any(one.status == LoggedModelStatus.READY for one in models_of(run.info.run_id))
    return f"{epochs} {'epoch' if epochs == 1 else 'epochs'}, {'the model' if saved else 'no model'}"


def end_run(run: Run) -> None:
    """End a run as KILLED, with its unfinished models as failed."""
    client = mlflow.MlflowClient()
    end_pending(models_of(run.info.run_id))
    client.set_tag(run.info.run_id, Tag.ERROR, "The process died without ending its run, as by kill -9 or a power cut")
    client.set_terminated(run.info.run_id, "KILLED")
