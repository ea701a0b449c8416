"""The runs of a sweep's trials: made before each is started, and brought to an end whatever became of it."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import mlflow
from mlflow.exceptions import MlflowException

from melanoma.tracking.names import Artifact, Tag

__all__ = ["TrialRun", "close_trial", "close_unfinished", "make_trial", "read_trial", "tag_best"]

_NAME = 250


@dataclass(frozen=True)
class TrialRun:
    """What became of a trial.

    Attributes:
        id: of its run.
        status: as in MLflow: FINISHED, FAILED, KILLED, RUNNING.
        metrics: the last value of each.
        tags: of the run.
    """

    id: str
    status: str
    metrics: dict[str, float]
    tags: dict[str, str]


def make_trial(parent: str, name: str, tags: Mapping[str, str]) -> str:
    """A run below the sweep's; returns its id, which the trial's process is given as MLFLOW_RUN_ID."""
    client = mlflow.MlflowClient()
    experiment = client.get_run(parent).info.experiment_id
    shown = {Tag.PARENT: parent, Tag.SOURCE: "melanoma sweep"}
    run = client.create_run(experiment, tags={**shown, **tags}, run_name=name[:_NAME])
    return str(run.info.run_id)


def read_trial(run_id: str) -> TrialRun:
    """The state of a trial's run."""
    run = mlflow.get_run(run_id)
    return TrialRun(run_id, run.info.status, dict(run.data.metrics), dict(run.data.tags))


def close_trial(run_id: str, *, error: str, output: str = "") -> None:
    """End the run of a trial that failed, and write on it why.

    Args:
        run_id: of the trial.
        error: why it failed; its last lines become the tag `melanoma.error`.
        output: the end of the process's error output, kept with the error as `error.txt`.
    """
    client = mlflow.MlflowClient()
    client.log_text(run_id, "\n".join(filter(None, [output.strip(), error])), Artifact.ERROR)
    lines = [line for line in error.splitlines() if line.strip()]
    client.set_tag(run_id, Tag.ERROR, "\n".join(lines[-5:])[:5000] or "no message")
    client.set_terminated(run_id, "FAILED")


def close_unfinished(parent: str) -> None:
    """End the runs of trials whose processes did not live to open them; a resumed sweep begins those again."""
    client = mlflow.MlflowClient()
    # A store that does not answer has ended the sweep with a message of its own.
    with suppress(MlflowException):
        experiment = client.get_run(parent).info.experiment_id
        unfinished = f"tags.`{Tag.PARENT}` = '{parent}' and attributes.status = 'RUNNING'"
        for run in client.search_runs([experiment], unfinished):
            client.set_terminated(run.info.run_id, "KILLED")


def tag_best(run_id: str, others: Iterable[str]) -> None:
    """Mark the best trial, and no other."""
    client = mlflow.MlflowClient()
    for other in others:
        if other != run_id:
            try:
                client.delete_tag(other, Tag.BEST)
            except MlflowException:
                continue  # it has none
    client.set_tag(run_id, Tag.BEST, "true")
