"""The runs of a sweep's trials, which are created before each trial starts and always ended."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import mlflow
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from melanoma.errors import ModelError
from melanoma.tracking.children import children_of
from melanoma.tracking.names import Artifact, Tag, stored_name
from melanoma.tracking.open_runs import DEAD, state_of
from melanoma.tracking.records import RunRecord

__all__ = [
    "TrialRun",
    "close_trial",
    "close_unfinished",
    "epochs_done",
    "latest_epoch",
    "make_trial",
    "read_trial",
    "tag_best",
    "take_over",
]

_NAME = 250
_WAIT = 60  # seconds for the process of an interrupted trial to end


@dataclass(frozen=True)
class TrialRun:
    """The state of a trial's run.

    Attributes:
        id: ID of the run.
        status: MLflow status: FINISHED, FAILED, KILLED or RUNNING.
        metrics: The last value of each metric.
        tags: Tags of the run.
    """

    id: str
    status: str
    metrics: dict[str, float]
    tags: dict[str, str]


def make_trial(parent: str, name: str, tags: Mapping[str, str]) -> str:
    """Create a child run of the sweep, and return its ID, which the trial's process receives as MLFLOW_RUN_ID."""
    client = mlflow.MlflowClient()
    experiment = client.get_run(parent).info.experiment_id
    shown = {Tag.PARENT: parent, Tag.SOURCE: "melanoma sweep"}
    run = client.create_run(experiment, tags={**shown, **tags}, run_name=name[:_NAME])
    return str(run.info.run_id)


def take_over(run_id: str, tags: Mapping[str, str]) -> bool:
    """Prepare the run of an interrupted trial for another process, which goes on with it; False if its process lives.

    A process that received SIGTERM is waited for, because it still writes its checkpoint.
    """
    client, deadline = mlflow.MlflowClient(), time.monotonic() + _WAIT
    while (run := client.get_run(run_id)).info.status == "RUNNING" and Tag.OWNER in run.data.tags:
        if state_of(run) == DEAD:
            break
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    return True


def read_trial(run_id: str, metrics: Sequence[str]) -> TrialRun:
    """Read the state of a trial's run.

    The file of all metrics is read only if MLflow does not show one of `metrics`, because the machine of a sweep may
    not reach the artifacts of its trials.

    Raises:
        MlflowException: If the store does not respond.
    """
    run = mlflow.get_run(run_id)
    found = dict(run.data.metrics)
    if any(stored_name(name) not in found for name in metrics):
        with suppress(ModelError):
            found = RunRecord(run).metrics
    return TrialRun(run_id, run.info.status, found, dict(run.data.tags))


def latest_epoch(run_id: str, metric: str) -> tuple[int, float]:
    """Return the number of the last epoch of a running trial, and a metric after it; epoch 0 before the first."""
    with suppress(MlflowException):  # an epoch that is not shown is no reason to end a sweep
        history = mlflow.MlflowClient().get_metric_history(run_id, stored_name(metric))
        if history:
            last = max(history, key=lambda one: one.step)
            return last.step + 1, last.value
    return 0, float("nan")


def epochs_done(run_id: str) -> int:
    """Return the number of epochs that a trial has trained, in all its parts."""
    client, done = mlflow.MlflowClient(), 0
    with suppress(MlflowException):
        done = len({one.step for one in client.get_metric_history(run_id, "train/loss")})
        done += sum(epochs_done(part.info.run_id) for part in children_of(run_id))
    return done


def close_trial(run_id: str, *, error: str, output: str = "") -> None:
    """End the run of a failed trial, and log the error.

    Args:
        run_id: ID of the trial's run.
        error: Error message; its last lines become the tag `melanoma.error`.
        output: End of the process's error output, logged with the error as `error.txt`.
    """
    client = mlflow.MlflowClient()
    client.log_text(run_id, "\n".join(filter(None, [output.strip(), error])), Artifact.ERROR)
    lines = [line for line in error.splitlines() if line.strip()]
    client.set_tag(run_id, Tag.ERROR, "\n".join(lines[-5:])[:5000] or "no message")
    client.set_terminated(run_id, "FAILED")


def close_unfinished(parent: str) -> None:
    """End the runs of trials whose processes ended before they opened their runs; they run again on resume."""
    client = mlflow.MlflowClient()
    # A store that does not respond has already ended the sweep with a message.
    with suppress(MlflowException):
        experiment = client.get_run(parent).info.experiment_id
        unfinished = f"tags.`{Tag.PARENT}` = '{parent}' and attributes.status = 'RUNNING'"
        for run in client.search_runs([experiment], unfinished):
            client.set_terminated(run.info.run_id, "KILLED")


def tag_best(run_id: str, others: Iterable[str]) -> None:
    """Tag the best trial, and remove the tag from the others."""
    client = mlflow.MlflowClient()
    for other in others:
        if other != run_id:
            try:
                client.delete_tag(other, Tag.BEST)
            except MlflowException:
                continue  # the run has no such tag
    client.set_tag(run_id, Tag.BEST, "true")
