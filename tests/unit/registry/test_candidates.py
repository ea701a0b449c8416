"""Which of an experiment's runs can be ranked with each other, and in which order."""

import pytest

from melanoma.config.command_schema import RegistryConfig
from melanoma.errors import ModelError
from melanoma.registry.candidates import OTHER_IMAGES, Candidate, ranked


def candidate(name: str, value: float = 0.5, test: str = "t", validation: str = "v", **changes) -> Candidate:
    known = {
        "run_id": f"id of {name}", "name": name, "task": "isic9", "test_set": test, "validation_set": validation,
        "value": value, "text": str(value), "excluded": None, "tags": {}, "metrics": {}, "params": {},
    }  # fmt: skip
    return Candidate(**{**known, **changes})


def order(*candidates: Candidate, test_set: str | None = None, **settings) -> list[tuple[str, str | None]]:
    found = ranked(list(candidates), RegistryConfig(**settings), "isic9", test_set)
    return [(one.name, one.excluded) for one in found]


@pytest.mark.parametrize(("direction", "expected"), [("maximize", "cab"), ("minimize", "bac")])
def test_the_best_comes_first_and_those_that_are_none_last(direction: str, expected: str):
    found = order(
        candidate("no model", 0.99, excluded="no model"), candidate("another task", 0.98, task="other"),
        candidate("a", 0.7), candidate("b", 0.6), candidate("c", 0.8),
        direction=direction,
    )  # fmt: skip
    assert found == [*((name, None) for name in expected), ("no model", "no model")]


def test_without_a_champion_most_decide_which_images_count():
    found = order(candidate("a", 0.9, test="other"), candidate("b", 0.7), candidate("c", 0.8))
    assert found == [("c", None), ("b", None), ("a", OTHER_IMAGES)]


@pytest.mark.parametrize("test_set", [None, "t", "of none"])
def test_as_many_on_one_set_as_on_another_is_not_decided(test_set: str | None):
    one, other = candidate("a"), candidate("b", validation="w")
    with pytest.raises(ModelError, match=r"name one with run=RUN_ID\. Received: id of a, id of b"):
        order(one, other, test_set=test_set)


def test_runs_that_are_none_have_no_vote():
    found = order(candidate("a"), candidate("b", test="other", excluded="ended FAILED"))
    assert found == [("a", None), ("b", "ended FAILED")]


def test_the_images_of_the_champion_win_over_those_of_most():
    runs = [candidate("a", 0.9, test="of most"), candidate("b", 0.8, test="of most"), candidate("c", 0.6)]
    assert order(*runs, test_set="t") == [("c", None), ("a", OTHER_IMAGES), ("b", OTHER_IMAGES)]
    assert order(*runs, test_set="of none") == [("a", None), ("b", None), ("c", OTHER_IMAGES)]


def test_a_metric_of_other_validation_images_ranks_nothing():
    runs = [candidate("a", 0.9, validation="w"), candidate("b", 0.7), candidate("c", 0.8)]
    assert order(*runs, test_set="t") == [("c", None), ("b", None), ("a", OTHER_IMAGES)]
