"""What MLflow's page of an experiment shows: its description, and a view of the runs as a ranking."""

import base64
import json
import shlex
import zlib
from contextlib import suppress
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from melanoma.evaluation.metrics import is_error
from melanoma.tracking.names import Tag

__all__ = ["VIEW", "describe_experiment", "ranking_view"]

VIEW = "melanoma"  # key of the saved view
_VIEW_TAG = "mlflow.sharedViewState."  # followed by the key of a view; the menu "Views" of the page lists them
_DESCRIPTION = """[Ranking of the runs by `{metric}`](#/experiments/{id}/runs?viewStateShareKey={view}) \
(also in the menu Views). Research software, not a medical device.

- `{metric}` selects the best run ({better} is better). `{test}` with its interval is the result to report.
- Open a run for its results. Its artifacts have the model card, the figures and all metrics
  (`evaluation/metrics.csv`).
- The tag `melanoma.protocol` is `clean`, or names the shortcuts that make a result optimistic.

`melanoma compare --experiment {name}` tests the runs against the first one.
`melanoma promote tracking.experiment={name}` makes the best one the champion, if it passes the gates.
"""


def describe_experiment(experiment_id: str, primary: str) -> None:
    """Set the description, the primary metric and the view of an experiment, unless they are set.

    Args:
        experiment_id: ID of the experiment.
        primary: Name of the primary metric, without a part.
    """
    client = mlflow.MlflowClient()
    experiment = client.get_experiment(experiment_id)
    metric, name = f"validation/{primary}", shlex.quote(experiment.name)
    better = "lower" if is_error(metric) else "higher"
    note = _DESCRIPTION.format(
        metric=metric, test=f"test/{primary}", better=better, name=name, id=experiment_id, view=VIEW
    )
    tags = {
        "mlflow.experiment.primaryMetric.name": metric,
        "mlflow.experiment.primaryMetric.greaterIsBetter": str(better == "higher"),
        Tag.NOTE: note,
        f"{_VIEW_TAG}{VIEW}": ranking_view(primary),
    }
    for key, value in tags.items():
        if key not in experiment.tags:
            # Another run may set it at the same time; a page is no reason to fail a training.
            with suppress(MlflowException):
                client.set_experiment_tag(experiment_id, key, value)


def ranking_view(primary: str) -> str:
    """Return a saved view of MLflow's page: runs by the primary metric, with their results, and learning curves first.

    The format is that of the page itself, which the MLflow versions of `pyproject.toml` share.
    """
    metric = f"validation/{primary}"
    shown = dict.fromkeys([metric, f"test/{primary}", f"test/{primary}_ci_low", f"test/{primary}_ci_high", "test/auc"])
    params = ("model.name", "data.name", "training.epochs")
    columns = [f"metrics.`{name}`" for name in shown] + [f"params.`{name}`" for name in params]
    columns += [f"tags.`{Tag.PROTOCOL}`"]
    widths = {column: max(120, 7 * len(column)) for column in columns}
    curves = dict.fromkeys([f"val/{primary}", "val/loss", "train/loss", "val/accuracy", "train/accuracy"])
    charts = [_chart("LINE", name, "curves") for name in curves]
    charts += [_chart("BAR", name, "results") for name in (metric, f"test/{primary}", "test/accuracy", "test/auc")]
    state = {
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": is_error(metric),
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": widths,
        "runsHiddenMode": "FIRST_10_RUNS",
        "compareRunCharts": charts,
        "compareRunSections": [_section("curves", "Learning curves"), _section("results", "Results")],
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return json.dumps({"name": f"Ranking by {metric}", "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"})


def _chart(kind: str, name: str, section: str) -> dict[str, Any]:
    return {
        "uuid": f"{section}-{name}",
        "type": kind,
        "runsCountToCompare": 10,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        "displayName": name,
        "metricKey": name,
        **({"lineSmoothness": 0, "xAxisKey": "step", "yAxisKey": "metric"} if kind == "LINE" else {}),
    }


def _section(key: str, name: str) -> dict[str, Any]:
    return {"uuid": key, "name": name, "display": True, "isReordered": True, "deleted": False, "isGenerated": False}
