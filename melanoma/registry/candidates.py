"""Which runs of an experiment could be promoted, and which of them is the best by validation."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import mlflow
import numpy as np

from melanoma.config.command_schema import RegistryConfig
from melanoma.errors import ModelError
from melanoma.evaluation.evaluate import stored_text
from melanoma.tracking.run import by_own_names

__all__ = ["OTHER_IMAGES", "Candidate", "candidate_of", "find_candidates", "ranked", "task_of"]

OTHER_IMAGES = "validated or tested on other images"


@dataclass(frozen=True)
class Candidate:
    """A run that was looked at.

    Attributes:
        run_id: of the run.
        name: of the run.
        task: as in `melanoma.task`.
        test_set: digest of its test images.
        validation_set: digest of its validation images.
        value: of the metric that ranks; NaN without.
        text: the same with its interval.
        excluded: why it is no candidate; None for a candidate.
        tags: of the run.
        metrics: of the run.
        params: of the run.
    """

    run_id: str
    name: str
    task: str
    test_set: str | None
    validation_set: str | None
    value: float
    text: str
    excluded: str | None
    tags: dict[str, str]
    metrics: dict[str, float]
    params: dict[str, str]


def find_candidates(experiment: str, metric: str) -> list[Candidate]:
    """All runs of an experiment that measured a test set, newest first.

    Raises:
        ModelError: there is no such experiment, or nothing in it.
    """
    found = mlflow.get_experiment_by_name(experiment)
    if found is None:
        raise ModelError(
            f"There is no such experiment in the tracking store. Received: tracking.experiment={experiment}"
        )
    runs: Any = mlflow.search_runs([found.experiment_id], order_by=["start_time DESC"], output_format="list")
    models = mlflow.search_logged_models([found.experiment_id], "name = 'model'", output_format="list")
    with_model = {model.source_run_id for model in models}
    listed = [_candidate(run, metric, run.info.run_id in with_model) for run in runs]
    listed = [one for one in listed if "test/accuracy" in one.metrics]
    if listed and not any(np.isfinite(one.value) for one in listed):
        names = {name for one in listed for name in one.metrics}
        known = sorted(name for name in names if re.fullmatch(r"validation/\w+", name))
        raise ModelError(
            f"No run of the experiment has measured what ranks them; known: "
            f"{', '.join(name for name in known if '_ci_' not in name)}. Received: registry.metric={metric}"
        )
    if not listed:
        raise ModelError(
            "No run of the experiment has measured a test set; train first, or name another experiment. "
            f"Received: tracking.experiment={experiment}"
        )
    return listed


def candidate_of(run_id: str, metric: str) -> Candidate:
    """One run.

    Raises:
        MlflowException: there is no such run.
        ModelError: it was deleted.
    """
    run = mlflow.get_run(run_id)
    if run.info.lifecycle_stage != "active":
        raise ModelError(f"The run was deleted; restore it first (mlflow runs restore). Received: run={run_id}")
    named = f"source_run_id = '{run_id}' AND name = 'model'"
    models = mlflow.search_logged_models([run.info.experiment_id], named, output_format="list")
    return _candidate(run, metric, bool(models))


def task_of(candidates: list[Candidate]) -> str:
    """The one task of those that could be promoted, or of all where none could.

    Raises:
        ModelError: there are several.
    """
    fit = [one for one in candidates if one.excluded is None]
    tasks = sorted({one.task for one in fit or candidates if one.task})
    if len(tasks) != 1:
        raise ModelError(
            f"The experiment has runs of several tasks; name one, as in task={tasks[0] if tasks else 'NAME'}. "
            f"Received: {', '.join(tasks) or 'no task on any run'}"
        )
    return tasks[0]


def ranked(candidates: list[Candidate], settings: RegistryConfig, task: str, test_set: str | None) -> list[Candidate]:
    """The candidates of a task, best first, then those that are none, each with the reason.

    Args:
        candidates: newest first.
        settings: the metric that ranks.
        task: as in `melanoma.task`.
        test_set: digest of the test images that all must have been tested on, those of the champion; without one, or
            where no candidate was tested on them, those that most candidates share.

    Raises:
        ModelError: as many candidates share one set of images as another.
    """
    own = [one for one in candidates if one.task == task]
    fit = [one for one in own if one.excluded is None]
    # A metric of other validation images ranks nothing.
    sets = [(one.test_set, one.validation_set) for one in fit]
    of_champion = [both for both in sets if both[0] == test_set]
    shared = Counter(of_champion or sets).most_common(2)
    if len(shared) == 2 and shared[0][1] == shared[1][1]:
        raise ModelError(
            "The runs were validated or tested on different images, and as many on one set as on another, so that they "
            f"cannot be ranked; name one with run=RUN_ID. Received: {', '.join(one.run_id for one in fit[:5])}"
        )
    wanted = shared[0][0] if shared else None
    other = [one for one, both in zip(fit, sets, strict=True) if both != wanted]
    fit = [one for one, both in zip(fit, sets, strict=True) if both == wanted]
    sign = -1 if settings.direction == "maximize" else 1
    best = sorted(fit, key=lambda one: sign * one.value)
    excluded = [replace(one, excluded=OTHER_IMAGES) for one in other]
    return best + excluded + [one for one in own if one.excluded is not None]


def _candidate(run: Any, metric: str, has_model: bool) -> Candidate:
    tags, metrics = dict(run.data.tags), dict(run.data.metrics)
    own = by_own_names(metrics, [metric])
    value = own.get(metric, np.nan)
    test_set, validation_set = _digest(run, "test"), _digest(run, "validation")
    reasons = {
        f"ended {run.info.status}": run.info.status != "FINISHED",
        "evaluates the model of another run": "melanoma.evaluated_model" in tags,
        "gathers other runs and has no model": not has_model,
        f"protocol {tags.get('melanoma.protocol', 'unknown')}": tags.get("melanoma.protocol") != "clean",
        f"known leaks: {tags.get('melanoma.known_leaks')}": "melanoma.known_leaks" in tags,
        "its test images are not known": test_set is None,
        f"{metric} was not measured": not np.isfinite(value),
    }
    return Candidate(
        run.info.run_id,
        run.info.run_name,
        tags.get("melanoma.task", ""),
        test_set,
        validation_set,
        float(value),
        stored_text(own, metric),
        next((reason for reason, applies in reasons.items() if applies), None),
        tags,
        metrics,
        dict(run.data.params),
    )


def _digest(run: Any, part: str) -> str | None:
    inputs = run.inputs.dataset_inputs if run.inputs else []
    found = [
        one.dataset.digest
        for one in inputs
        if any(tag.key == "mlflow.data.context" and tag.value == part for tag in one.tags)
    ]
    return str(found[0]) if len(found) == 1 else None
