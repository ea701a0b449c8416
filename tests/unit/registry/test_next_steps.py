"""What a refused promotion tells to run next."""

import pytest
from mlflow.entities.model_registry import ModelVersion

from melanoma.registry.gates import Gate
from melanoma.registry.promote import _next_steps
from tests.unit.registry.test_candidates import candidate

CHAMPION = ModelVersion("melanoma-x", "1", 0, run_id="old")


@pytest.mark.parametrize(
    ("gate", "champion", "step"),
    [
        ("protocol", None, "protocol=clean"),
        ("evidence", None, "train again"),
        ("intervals", None, "evaluation.bootstrap=1000"),
        ("against champion 1, auc", CHAMPION, "melanoma compare old id of new --html compare.html"),
        ("test/auc", None, "more test images"),
    ],
)
def test_each_gate_has_a_next_step(gate: str, champion: ModelVersion | None, step: str):
    [found] = _next_steps(candidate("new"), champion, [Gate(gate, False, "")])
    assert step in found


def test_the_findings_of_the_run_are_repeated():
    one = candidate("new")
    one.record.run.data.tags["melanoma.findings"] = "Overfitting: auc 1. Try x=1.\nSlight overfitting."
    found = _next_steps(one, None, [Gate("test/auc", False, "")])
    assert found[0] == "a finding of the run: Overfitting: auc 1. Try x=1."
    assert len(found) == 2
