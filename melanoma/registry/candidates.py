"""Which runs of an experiment could be promoted, and which of them is the best by validation."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import mlflow
import numpy as np

from melanoma.config.command_schema import RegistryConfig
from melanoma.errors import ModelError
from melanoma.evaluation.evaluate import stored_text
from melanoma.tracking.names import Tag
from melanoma.tracking.records import RunRecord

__all__ = ["Candidate", "Exclusion", "candidate_of", "find_candidates", "ranked", "task_of"]


class Exclusion(Enum):
    """Why a run is no candidate."""

    NOT_FINISHED = "it ended as {status}"
    EVALUATION_ONLY = "evaluates the model of another run"
    NO_MODEL = "gathers other runs and has no model"
    NOT_CLEAN = "protocol {protocol}"
    KNOWN_LEAKS = "known leaks: {leaks}"
    NO_TEST_SET = "its test images are not known"
    NOT_MEASURED = "{metric} was not measured"
    OTHER_IMAGES = "validated or tested on other images"
    ROLLED_BACK = "it was rolled back; run=RUN_ID promotes it all the same"


@dataclass(frozen=True)
class Candidate:
    """A run that was looked at.

    Attributes:
        record: of the run.
        metric: that ranks, as in `registry.metric`.
        excluded: why it is no candidate; None for a candidate.
    """

    record: RunRecord
    metric: str
    excluded: Exclusion | None = None

    @property
    def run_id(self) -> str:
        """Of the run."""
        return self.record.id

    @property
    def name(self) -> str:
        """Of the run."""
        return self.record.name

    @property
    def task(self) -> str:
        """As in `melanoma.task`."""
        return self.record.task

    @property
    def test_set(self) -> str | None:
        """Digest of its test images."""
        return self.record.digest("test")

    @property
    def validation_set(self) -> str | None:
        """Digest of its validation images."""
        return self.record.digest("validation")

    @property
    def value(self) -> float:
        """Of the metric; NaN without."""
        return self.record.metrics_named(self.metric).get(self.metric, np.nan)

    @property
    def text(self) -> str:
        """The metric with its interval."""
        return stored_text(self.record.metrics_named(self.metric), self.metric)

    @property
    def reason(self) -> str:
        """Why it is no candidate, in words; empty for a candidate."""
        if self.excluded is None:
            return ""
        return self.excluded.value.format(
            status=self.record.run.info.status,
            protocol=self.record.protocol,
            leaks=self.record.tags.get(Tag.KNOWN_LEAKS),
            metric=self.metric,
        )


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
    listed = [_candidate(RunRecord(run), metric, run.info.run_id in with_model) for run in runs]
    listed = [one for one in listed if "test/accuracy" in one.record.metrics]
    if listed and not any(np.isfinite(one.value) for one in listed):
        names = {name for one in listed for name in one.record.metrics}
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
    """One run.

    Raises:
        ModelError: there is no such run, or it was deleted.
    """
    record = RunRecord.read(run_id)
    if record.run.info.lifecycle_stage != "active":
        raise ModelError(f"The run was deleted; restore it first (mlflow runs restore). Received: run={run_id}")
    named = f"source_run_id = '{run_id}' AND name = 'model'"
    models = mlflow.search_logged_models([record.run.info.experiment_id], named, output_format="list")
    return _candidate(record, metric, bool(models))


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
    excluded = [replace(one, excluded=Exclusion.OTHER_IMAGES) for one in other]
    return best + excluded + [one for one in own if one.excluded is not None]


def _candidate(record: RunRecord, metric: str, has_model: bool) -> Candidate:
    found = Candidate(record, metric)
    reasons = {
        Exclusion.NOT_FINISHED: record.run.info.status != "FINISHED",
        Exclusion.EVALUATION_ONLY: Tag.EVALUATED_MODEL in record.tags,
        Exclusion.NO_MODEL: not has_model,
        Exclusion.NOT_CLEAN: not record.protocol.is_clean,
        Exclusion.KNOWN_LEAKS: Tag.KNOWN_LEAKS in record.tags,
        Exclusion.NO_TEST_SET: found.test_set is None,
        Exclusion.NOT_MEASURED: not np.isfinite(found.value),
    }
    return replace(found, excluded=next((reason for reason, applies in reasons.items() if applies), None))
