"""The child runs of a run."""

import mlflow
from mlflow.entities import Run

from melanoma.tracking.names import Tag

__all__ = ["children_of", "parts_of"]


def children_of(run_id: str) -> list[Run]:
    """Return the child runs of a run, oldest first."""
    client = mlflow.MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_runs([experiment], f"tags.`{Tag.PARENT}` = '{run_id}'", order_by=["start_time ASC"])
    return list(found)


def parts_of(run_id: str) -> list[Run]:
    """Return the child runs that are parts of a run, such as its folds, oldest first."""
    return [run for run in children_of(run_id) if Tag.MEMBER in run.data.tags]
