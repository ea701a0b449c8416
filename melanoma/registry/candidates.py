"""Candidates for promotion: the runs of an experiment, ranked by a validation metric."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import mlflow
import numpy as np

from melanoma.config.command_schema import PromoteConfig
from melanoma.errors import ModelError
from melanoma.evaluation.metrics import is_error
from melanoma.evaluation.texts import stored_text
from melanoma.tracking.names import Tag, stored_name
from melanoma.tracking.records import RunRecord

__all__ = ["Candidate", "Exclusion", "candidate_of", "find_candidates", "primary_metric", "ranked", "task_of"]


class Exclusion(Enum):
    """The reason why a run is not a candidate."""

    NOT_FINISHED = "it ended as {status}"
    EVALUATION_ONLY = "evaluates the model of another run"
    NO_MODEL = "is a parent run without a model of its own"
    NOT_CLEAN = "protocol {protocol}"
    KNOWN_LEAKS = "known leaks: {leaks}"
    NO_TEST_SET = "its test images are not known"
    NOT_MEASURED = "{metric} was not measured"
    OTHER_IMAGES = "validated or tested on other images"
    ROLLED_BACK = "it was rolled back; run=RUN_ID promotes it again"


@dataclass(frozen=True)
class Candidate:
    """A run that was considered for promotion.

    Attributes:
        record: Record of the run.
        metric: Metric for the ranking, as in `registry.metric`.
        excluded: Why the run is not a candidate; None for a candidate.
    """

    record: RunRecord
    metric: str
    excluded: Exclusion | None = None

    @property
    def run_id(self) -> str:
        """ID of the run."""
        return self.record.id

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.record.name

    @property
    def task(self) -> str:
        """Task of the run, as in the tag `melanoma.task`."""
        return self.record.task

    @property
    def test_set(self) -> str | None:
        """Digest of the run's test images."""
        return self.record.digest("test")

    @property
    def validation_set(self) -> str | None:
        """Digest of the run's validation images."""
        return self.record.digest("validation")

    @property
    def value(self) -> float:
        """Value of the metric; NaN if the run does not have it."""
        name = stored_name(self.metric)
        shown = self.record.shown_metrics
        try:
            # The file of all metrics is read only if needed, because an experiment may have many runs.
            return shown[name] if name in shown else self.record.metrics.get(name, np.nan)
        except ModelError:
            return np.nan

    @property
    def text(self) -> str:
        """The metric with its interval, as text."""
        try:
            return stored_text(self.record.metrics_named(self.metric), self.metric)
        except ModelError:
            return f"{self.value:.3f}"

    @property
    def reason(self) -> str:
        """Why the run is not a candidate, as text; empty for a candidate."""
        if self.excluded is None:
            return ""
        return self.excluded.value.format(
            status=self.record.run.info.status,
            protocol=self.record.protocol,
            leaks=self.record.tags.get(Tag.KNOWN_LEAKS),
            metric=self.metric,
        )


def primary_metric(settings: PromoteConfig) -> str:
    """Return the primary metric of the run to promote, or else of the newest candidate of the experiment and task.

    Runs of older versions have none; they were ranked by the AUC.

    Raises:
        ModelError: If the run or the experiment does not exist.
    """
    if settings.run is not None:
        return RunRecord.read(settings.run).tags.get(Tag.PRIMARY_METRIC, "auc")
    listed = find_candidates(settings.tracking.experiment, "validation/accuracy")  # which every run has
    own = [one for one in listed if settings.task in (None, one.task)]
    newest = next((one for one in own if one.excluded is None), None)
    return "auc" if newest is None else newest.record.tags.get(Tag.PRIMARY_METRIC, "auc")


def find_candidates(experiment: str, metric: str) -> list[Candidate]:
    """Return all runs of an experiment with test metrics, newest first.

    Raises:
        ModelError: If the experiment does not exist, or if no run has test metrics or `metric`.
    """
    found = mlflow.get_experiment_by_name(experiment)
    if found is None:
        raise ModelError(
            f"There is no such experiment in the tracking store. Received: tracking.experiment={experiment}"
        )
    runs: Any = mlflow.search_runs([found.experiment_id], order_by=["start_time DESC"], output_format="list")
    models = mlflow.search_logged_models([found.experiment_id], "name = 'model'", output_format="list")
    with_model = {model.source_run_id for model in models}
    listed = [_candidate(RunRecord(run), metric, run.info.run_id in with_model) for run in runs]
    listed = [one for one in listed if "test/accuracy" in one.record.shown_metrics]
    if listed and not any(np.isfinite(one.value) for one in listed):
        names = {name for one in listed for name in one.record.shown_metrics}
        known = sorted(name for name in names if re.fullmatch(r"validation/\w+", name) and "_ci_" not in name)
        raise ModelError(
            f"No run of the experiment has the metric that ranks them; known: {', '.join(known)}. "
            f"Received: registry.metric={metric}"
        )
    if not listed:
        raise ModelError(
            "No run of the experiment has measured a test set; train first, or name another experiment. "
            f"Received: tracking.experiment={experiment}"
        )
    return listed


def candidate_of(run_id: str, metric: str) -> Candidate:
    """Return the candidate of one run. Of the parent run of several seeds, it is the best seed by the metric.

    Raises:
        ModelError: If the run does not exist or was deleted.
    """
    record = RunRecord.read(run_id)
    if Tag.SEED_RUNS in record.tags:
        seeds = [candidate_of(member.id, metric) for member in record.members]
        sign = 1 if is_error(metric) else -1
        return min(seeds, key=lambda one: (one.excluded is not None, np.nan_to_num(sign * one.value, nan=np.inf)))
    if record.run.info.lifecycle_stage != "active":
        raise ModelError(f"The run was deleted; restore it first (mlflow runs restore). Received: run={run_id}")
    named = f"source_run_id = '{run_id}' AND name = 'model'"
    models = mlflow.search_logged_models([record.run.info.experiment_id], named, output_format="list")
    return _candidate(record, metric, bool(models))


def task_of(candidates: list[Candidate]) -> str:
    """Return the task of the candidates; of all given runs if none is a candidate.

    Raises:
        ModelError: If there is not exactly one task.
    """
    fit = [one for one in candidates if one.excluded is None]
    tasks = sorted({one.task for one in fit or candidates if one.task})
    if len(tasks) != 1:
        raise ModelError(
            f"The experiment has runs of several tasks; name one, as in task={tasks[0] if tasks else 'NAME'}. "
            f"Received: {', '.join(tasks) or 'no task on any run'}"
        )
    return tasks[0]


def ranked(candidates: list[Candidate], task: str, test_set: str | None) -> list[Candidate]:
    """Rank the candidates of a task, best first, followed by the excluded runs with the reason of each.

    Args:
        candidates: Runs, newest first.
        task: Task, as in the tag `melanoma.task`.
        test_set: Digest of the champion's test images, on which all candidates must have been tested. If it is None, or
            if no candidate was tested on these images, the test set that most candidates share.

    Raises:
        ModelError: If two sets of images are shared by equally many candidates.
    """
    own = [one for one in candidates if one.task == task]
    fit = [one for one in own if one.excluded is None]
    # Metrics on different validation images cannot be ranked.
    sets = [(one.test_set, one.validation_set) for one in fit]
    of_champion = [both for both in sets if both[0] == test_set]
    shared = Counter(of_champion or sets).most_common(2)
    if len(shared) == 2 and shared[0][1] == shared[1][1]:
        raise ModelError(
            "The runs were validated or tested on different images, with equally many on two of the sets, so they "
            f"cannot be ranked; name one with run=RUN_ID. Received: {', '.join(one.run_id for one in fit[:5])}"
        )
    wanted = shared[0][0] if shared else None
    other = [one for one, both in zip(fit, sets, strict=True) if both != wanted]
    fit = [one for one, both in zip(fit, sets, strict=True) if both == wanted]
    best = sorted(fit, key=lambda one: one.value if is_error(one.metric) else -one.value)
    excluded = [replace(one, excluded=Exclusion.OTHER_IMAGES) for one in other]
    return best + excluded + [one for one in own if one.excluded is not None]


def _candidate(record: RunRecord, metric: str, has_model: bool) -> Candidate:
    found = Candidate(record, metric)
    reasons = {
        Exclusion.NOT_FINISHED: record.run.info.status != "FINISHED",
        # A recalibrated model is one of its own.
        Exclusion.EVALUATION_ONLY: Tag.EVALUATED_MODEL in record.tags and not has_model,
        Exclusion.NO_MODEL: not has_model,
        Exclusion.NOT_CLEAN: not record.protocol.is_clean,
        Exclusion.KNOWN_LEAKS: Tag.KNOWN_LEAKS in record.tags,
        Exclusion.NO_TEST_SET: found.test_set is None,
        Exclusion.NOT_MEASURED: not np.isfinite(found.value),
    }
    return replace(found, excluded=next((reason for reason, applies in reasons.items() if applies), None))
