"""Finished runs as they are compared: their predictions, metrics and figures."""

import base64
import re
from dataclasses import dataclass
from io import StringIO
from typing import Any

import mlflow
import pandas as pd
import yaml
from mlflow.exceptions import MlflowException

from melanoma.data.dataset import Dataset
from melanoma.errors import ModelError
from melanoma.evaluation.evaluate import Evaluation, evaluate
from melanoma.tracking.run import evidence
from melanoma.tracking.store import downloaded

__all__ = ["ComparedRun", "config_of", "figure_of", "find_runs", "load_run", "stored_evaluation"]


@dataclass(frozen=True)
class ComparedRun:
    """One run.

    Attributes:
        id: of the run.
        name: of the run, made unique by the start of its id.
        metrics: by the names of the tracking store.
        tags: of the run.
        config: resolved, of the run.
        predictions: of one part: `path`, `label`, `sha256`, `group`, and a column `probability/<class>` each.
    """

    id: str
    name: str
    metrics: dict[str, float]
    tags: dict[str, str]
    config: dict[str, Any]
    predictions: pd.DataFrame

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the model's outputs."""
        return [c.removeprefix("probability/") for c in self.predictions if c.startswith("probability/")]

    @property
    def views(self) -> dict[str, list[str]]:
        """See `melanoma.evaluation.metrics.metrics_of`."""
        return (self.config.get("data") or {}).get("views") or {}


def find_runs(experiment: str, tag: str | None) -> list[str]:
    """Ids of the finished runs of an experiment that measured a test set, oldest first.

    Raises:
        ModelError: there is no such experiment, or the tag is not KEY=VALUE.
    """
    found = mlflow.get_experiment_by_name(experiment)
    if found is None:
        raise ModelError(f"There is no such experiment in the tracking store. Received: --experiment {experiment}")
    condition = "attributes.status = 'FINISHED'"
    if tag is not None:
        key, separator, value = tag.partition("=")
        if not separator or "'" in value or not re.fullmatch(r"[\w.\- /]+", key):
            raise ModelError(f"A tag is given as KEY=VALUE. Received: --tag {tag}")
        condition += f" and tags.`{key}` = '{value}'"
    runs: Any = mlflow.search_runs([found.experiment_id], condition, order_by=["start_time ASC"], output_format="list")
    return [run.info.run_id for run in runs if "test/accuracy" in run.data.metrics]


def load_run(run_id: str, part: str) -> ComparedRun:
    """A run with its predictions of `test` or `validation`.

    Raises:
        ModelError: there is no such run, or it has no such predictions, or they were changed since.
    """
    try:
        run = mlflow.get_run(run_id)
        text = evidence(run_id, "evaluation/predictions.csv")
        # A class may be called 0, NA or None.
        texts = dict.fromkeys(("path", "part", "label", "sha256", "group", "predicted"), str)
        table = pd.read_csv(StringIO(text), keep_default_na=False, dtype=texts)
        config = config_of(run_id)
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"There is no such run with predictions ({reason}). Received: {run_id}") from error
    predictions = table[table.part == part].reset_index(drop=True)
    if not len(predictions) or "sha256" not in predictions:
        raise ModelError(f"The run has no predictions of {part} images that can be matched. Received: {run_id}")
    name = f"{run.info.run_name} ({run_id[:6]})"
    return ComparedRun(run_id, name, dict(run.data.metrics), dict(run.data.tags), config, predictions)


def config_of(run_id: str) -> dict[str, Any]:
    """The resolved configuration of a run.

    Raises:
        MlflowException, OSError: it has none.
        ModelError: it was changed since.
    """
    return dict(yaml.safe_load(evidence(run_id, "config/resolved.yaml")))


def stored_evaluation(run_id: str, part: str, dataset: Dataset, views: dict[str, list[str]]) -> Evaluation:
    """What a run predicted for one part of a data set, measured again without intervals.

    Raises:
        ModelError: there are no such predictions, or they are of other images.
    """
    predictions = load_run(run_id, part).predictions
    known = dataset.table.set_index("path")
    if not predictions.path.isin(known.index).all():
        raise ModelError(f"The predictions are of other images than the data set's. Received: {run_id}")
    rows = known.loc[predictions.path].reset_index().assign(part=part)
    probabilities = predictions[[f"probability/{label}" for label in dataset.classes]].to_numpy()
    return evaluate(part, rows, probabilities, dataset.classes, views=views, resamples=0, confidence=0.95, seed=0)


def figure_of(run_id: str, name: str) -> str:
    """A run's figure as a data address; empty where it has none."""
    try:
        path = downloaded(f"runs:/{run_id}/figures/{name}.png")
    except (MlflowException, OSError):
        return ""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
