"""The registered models of this project and their names."""

import re

import mlflow

from melanoma.data.cache import content_key
from melanoma.errors import ModelError

__all__ = ["model_name", "only_model", "registered_models"]


def model_name(task: str) -> str:
    """Return the name of a task's registered model."""
    plain = re.sub(r"[^\w.-]", "_", task, flags=re.ASCII)
    return f"melanoma-{plain}" if plain == task else f"melanoma-{plain}-{content_key(task)[:6]}"


def registered_models() -> list[str]:
    """Return the names of the registered models of this project."""
    found = mlflow.MlflowClient().search_registered_models("name LIKE 'melanoma-%'")
    return sorted(model.name for model in found)


def only_model(task: str | None) -> str:
    """Return the name of the registered model of a task; with None, the only registered model.

    Raises:
        ModelError: If the task has no registered model; with None, if there is not exactly one registered model.
    """
    known = registered_models()
    if task is not None:
        if model_name(task) not in known:
            raise ModelError(
                f"No model of this task is registered; known: {', '.join(known) or 'none'}. Received: task={task}"
            )
        return model_name(task)
    if len(known) != 1:
        several = "Several models are registered; name one (task=TASK, or model=models:/NAME@champion)"
        what = several if known else "No model is registered; promote one"
        raise ModelError(f"{what}. Received: {', '.join(known) or 'an empty registry'}")
    return known[0]
