"""Runs that are not over: whether their process lives, where they go on, and the end of those whose process died."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import mlflow
from mlflow.entities import LoggedModelStatus, Run
from mlflow.exceptions import MlflowException

from melanoma.tracking.children import parts_of
from melanoma.tracking.heartbeat import INTERVAL, process_alive
from melanoma.tracking.logged_models import end_pending, models_of
from melanoma.tracking.names import Tag
from melanoma.training.checkpoint import Checkpoints, checkpoints_of, home_of

__all__ = [
    "DEAD",
    "INTERRUPTED",
    "RUNNING",
    "UNKNOWN",
    "OpenRun",
    "checkpoints_in",
    "end_run",
    "give_up",
    "interrupted_runs",
    "kept_of",
    "open_runs",
    "remove_forgotten_checkpoints",
    "state_of",
]

RUNNING, DEAD, UNKNOWN, INTERRUPTED = "running", "dead", "not known", "interrupted"
_PATIENCE = 10 * INTERVAL  # without a heartbeat, for a process on another machine


@dataclass(frozen=True)
class OpenRun:
    """A run that is not over.

    Attributes:
        run: The run.
        state: Of a run with the status RUNNING, `running`, `dead`, or `not known` if an older version started it; of
            another with a checkpoint, `interrupted`.
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


def interrupted_runs() -> list[OpenRun]:
    """Return the runs and sweeps of the open store that ended early and can be resumed, oldest first, without parts."""
    found = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"tags.`{Tag.INTERRUPTED}` != '' and attributes.status != 'RUNNING'",
        order_by=["attributes.start_time ASC"],
        output_format="list",
    )
    return [
        OpenRun(run, INTERRUPTED, (run.info.end_time or run.info.start_time) / 1000) for run in found if _is_whole(run)
    ]


def _is_whole(run: Run) -> bool:
    """Return whether a run is one of `melanoma train`, or a sweep, and not a part of another or a trial."""
    tags = run.data.tags
    return Tag.TRIAL not in tags if Tag.SWEEP in tags else Tag.CONFIG in tags and Tag.MEMBER not in tags


def give_up(run: Run) -> None:
    """Remove the checkpoints of a run and of its parts, so that it is not resumed."""
    checkpoints_in(run).remove()
    if Tag.INTERRUPTED in run.data.tags:
        mlflow.MlflowClient().delete_tag(run.info.run_id, Tag.INTERRUPTED)
    for part in parts_of(run.info.run_id):
        give_up(part)


def checkpoints_in(run: Run) -> Checkpoints:
    """Return the checkpoints of a run, in the folder that it was configured to use."""
    folder = run.data.params.get("training.checkpoint.folder")
    return checkpoints_of(None if folder in (None, "None") else folder, run.info.run_id)


def remove_forgotten_checkpoints() -> int:
    """Remove the checkpoints in the cache of runs that are finished or deleted, and return their number."""
    removed = 0
    for folder in home_of(None).glob("[0-9a-f]*"):
        with suppress(MlflowException):  # a run of another store
            info = mlflow.get_run(folder.name).info
            if info.status == "FINISHED" or info.lifecycle_stage == "deleted":
                Checkpoints(folder).remove()
                removed += 1
    return removed


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
