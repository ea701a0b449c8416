"""Which of an experiment's runs can be ranked with each other, and in which order."""

from pathlib import Path

import mlflow
import numpy as np
import pytest

from melanoma.errors import ModelError
from melanoma.registry.candidates import Candidate, Exclusion, find_candidates, ranked
from tests.unit.registry.conftest import recorded


def candidate(
    name: str,
    value: float = 0.5,
    test: str = "t",
    validation: str = "v",
    task: str = "isic9",
    excluded: Exclusion | None = None,
    metric: str = "validation/auc",
) -> Candidate:
    inputs = {"test": test, "validation": validation}
    record = recorded(name, {metric: value}, {"melanoma.task": task}, inputs)
    return Candidate(record, metric, excluded)


def order(*candidates: Candidate, test_set: str | None = None) -> list[tuple[str, Exclusion | None]]:
    found = ranked(list(candidates), "isic9", test_set)
    return [(one.name, one.excluded) for one in found]


@pytest.mark.parametrize(("metric", "expected"), [("validation/auc", "cab"), ("validation/log_loss", "bac")])
def test_the_best_comes_first_and_those_that_are_none_last(metric: str, expected: str):
    found = order(
        candidate("no model", 0.99, excluded=Exclusion.NO_MODEL), candidate("another task", 0.98, task="other"),
        *(candidate(name, value, metric=metric) for name, value in (("a", 0.7), ("b", 0.6), ("c", 0.8))),
    )  # fmt: skip
    assert found == [*((name, None) for name in expected), ("no model", Exclusion.NO_MODEL)]


def test_without_a_champion_most_decide_which_images_count():
    found = order(candidate("a", 0.9, test="other"), candidate("b", 0.7), candidate("c", 0.8))
    assert found == [("c", None), ("b", None), ("a", Exclusion.OTHER_IMAGES)]


@pytest.mark.parametrize("test_set", [None, "t", "of none"])
def test_as_many_on_one_set_as_on_another_is_not_decided(test_set: str | None):
    one, other = candidate("a"), candidate("b", validation="w")
    with pytest.raises(ModelError, match=r"name one with run=RUN_ID\. Received: id of a, id of b"):
        order(one, other, test_set=test_set)


def test_runs_that_are_none_have_no_vote():
    found = order(candidate("a"), candidate("b", test="other", excluded=Exclusion.NOT_FINISHED))
    assert found == [("a", None), ("b", Exclusion.NOT_FINISHED)]


def test_the_images_of_the_champion_win_over_those_of_most():
    runs = [candidate("a", 0.9, test="of most"), candidate("b", 0.8, test="of most"), candidate("c", 0.6)]
    assert order(*runs, test_set="t") == [("c", None), ("a", Exclusion.OTHER_IMAGES), ("b", Exclusion.OTHER_IMAGES)]
    assert order(*runs, test_set="of none") == [("a", None), ("b", None), ("c", Exclusion.OTHER_IMAGES)]


def test_a_metric_of_other_validation_images_ranks_nothing():
    runs = [candidate("a", 0.9, validation="w"), candidate("b", 0.7), candidate("c", 0.8)]
    assert order(*runs, test_set="t") == [("c", None), ("b", None), ("a", Exclusion.OTHER_IMAGES)]


METRICS = {"test/accuracy": 0.9, "validation/auc": 0.8}
CLEAN = {"melanoma.protocol": "clean", "melanoma.task": "t"}


def logged(name: str, *, metrics=METRICS, tags=CLEAN, status="FINISHED", model=True, tested=True) -> None:
    """A run as training leaves it, but for what is given."""
    with mlflow.start_run(run_name=name) as run:
        mlflow.log_metrics(metrics)
        mlflow.set_tags(tags)
        for part in ("test", "validation") if tested else ("validation",):
            mlflow.log_input(mlflow.data.from_numpy(np.zeros(1), name=part), context=part)
        if model:
            mlflow.MlflowClient().create_logged_model(run.info.experiment_id, "model", run.info.run_id)
    mlflow.MlflowClient().set_terminated(run.info.run_id, status)


def test_why_a_run_is_no_candidate(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for the files that MLflow may write
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.set_experiment("some")
    logged("good")
    logged("failed", status="FAILED")
    logged("of another run", tags={**CLEAN, "melanoma.evaluated_model": "m"}, model=False)
    logged("recalibrated", tags={**CLEAN, "melanoma.evaluated_model": "m"})
    logged("parent", model=False)
    logged("shortcut", tags={**CLEAN, "melanoma.protocol": "published"})
    logged("leaky", tags={**CLEAN, "melanoma.known_leaks": "18 content"})
    logged("untold", tested=False)
    logged("unmeasured", metrics={"test/accuracy": 0.9})
    logged("no test", metrics={"validation/auc": 0.9})
    found = {one.name: (one.excluded, one.reason) for one in find_candidates("some", "validation/auc")}
    assert found == {
        "good": (None, ""),
        "failed": (Exclusion.NOT_FINISHED, "it ended as FAILED"),
        "of another run": (Exclusion.EVALUATION_ONLY, "evaluates the model of another run"),
        "recalibrated": (None, ""),
        "parent": (Exclusion.NO_MODEL, "is a parent run without a model of its own"),
        "shortcut": (Exclusion.NOT_CLEAN, "protocol published"),
        "leaky": (Exclusion.KNOWN_LEAKS, "known leaks: 18 content"),
        "untold": (Exclusion.NO_TEST_SET, "its test images are not known"),
        "unmeasured": (Exclusion.NOT_MEASURED, "validation/auc was not measured"),
    }
    with pytest.raises(ModelError, match=r"known: validation/auc\. Received: registry\.metric=validation/auv"):
        find_candidates("some", "validation/auv")
