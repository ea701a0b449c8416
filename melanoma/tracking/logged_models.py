"""The logged models of a run as entries of the store; their files are the matter of `model_store`."""

from collections.abc import Sequence

import mlflow
from mlflow.entities import LoggedModel, LoggedModelStatus

__all__ = ["end_pending", "models_of", "remove_other_models"]


def models_of(run_id: str, name: str | None = None) -> list[LoggedModel]:
    """Return the logged models of a run, or those of one name."""
    client = mlflow.MlflowClient()
    named = "" if name is None else f" AND name = '{name}'"
    experiment = client.get_run(run_id).info.experiment_id
    return list(client.search_logged_models([experiment], f"source_run_id = '{run_id}'{named}"))


def end_pending(models: Sequence[LoggedModel]) -> None:
    """Mark those of the models as failed that were not logged to the end."""
    for one in models:
        if one.status == LoggedModelStatus.PENDING:
            mlflow.MlflowClient().finalize_logged_model(one.model_id, LoggedModelStatus.FAILED)


def remove_other_models(run_id: str, address: str) -> None:
    """Remove the models of a run that was interrupted after or while they were saved, but for the one at an address."""
    for one in models_of(run_id):
        if one.model_id != address.removeprefix("models:/"):
            mlflow.MlflowClient().delete_logged_model(one.model_id)
