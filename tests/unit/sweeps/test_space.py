"""Search spaces: from YAML and the command line, to values."""

import re

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from melanoma.errors import ConfigError
from melanoma.sweeps.space import Dimension, combinations, dimension_of, read_space, suggested

CONDITIONAL = {
    "optimizer.weight_decay": {"low": 1e-5, "high": 0.1, "log": True, "when": {"optimizer": "adamw"}},
    "optimizer": ["adam", "adamw"],
    "training.batch_size": {"low": 16, "high": 64, "step": 16},
}


def typed_in(text: str) -> Dimension:
    return dimension_of(OverridesParser.create().parse_override(text))


def test_lists_ranges_and_conditions_are_read_and_put_in_order():
    space = {one.key: one for one in read_space(CONDITIONAL)}
    assert list(space) == ["optimizer", "training.batch_size", "optimizer.weight_decay"]
    assert space["optimizer"].choices == ("adam", "adamw")
    assert space["training.batch_size"].whole
    assert space["training.batch_size"].values() == ["16", "32", "48", "64"]
    assert (space["optimizer.weight_decay"].low, space["optimizer.weight_decay"].log) == (1e-5, True)
    assert space["optimizer.weight_decay"].when == {"optimizer": ("adamw",)}


def test_values_are_written_as_an_override_reads_them():
    (one,) = read_space({"model.weights": [None, True, 3, 0.5, "a b"]})
    assert one.choices == ("null", "true", "3", "0.5", "'a b'")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "has no values"),
        ({"low": 2, "high": 1}, "low that is below its high"),
        ({"low": 1, "high": 1}, "low that is below its high"),
        ({"low": 0, "high": 1, "log": True}, "start above 0"),
        ({"low": 0, "high": 1, "step": 2}, "fits into its range"),
        ({"low": 0, "high": 1, "setp": 2}, "not setp"),
        ({"low": "a", "high": 1}, "low that is below"),
        ({"low": 1, "high": 9, "step": 0.5, "int": True}, "whole ends and steps"),
        (3, "must be a list of values"),
        ({"choices": [1, 2], "when": {"model": "m1"}}, "another key of the space"),
    ],
)
def test_a_space_that_cannot_be_is_refused(given, said: str):
    with pytest.raises(ConfigError, match=said):
        read_space({"seed": given})


def test_conditions_that_name_each_other_are_refused():
    with pytest.raises(ConfigError, match="circular `when` conditions"):
        read_space({"a": {"choices": [1], "when": {"b": 1}}, "b": {"choices": [1], "when": {"a": 1}}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model=m1,m2", Dimension("model", choices=("m1", "m2"))),
        ("seed=range(0,3)", Dimension("seed", choices=("0", "1", "2"))),
        ("lr=choice(1e-3,1e-4)", Dimension("lr", choices=("0.001", "0.0001"))),
        ("lr=interval(1e-4,0.1)", Dimension("lr", low=1e-4, high=0.1)),
        ("lr=tag(log,interval(1e-4,0.1))", Dimension("lr", low=1e-4, high=0.1, log=True)),
        ("n=int(interval(2,9))", Dimension("n", low=2, high=9, whole=True)),
    ],
)
def test_the_command_line_is_read(text: str, expected: Dimension):
    assert typed_in(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed=range(3,3)", "The range has no values"),
        ("lr=interval(1,1)", "lr must have a low that is below its high"),
        ("lr=interval(2,1)", "lr must have a low that is below its high"),
        ("model=glob(*)", "A sweep takes a,b or choice"),
        ("lr=tag(log,interval(0,1))", "lr with log must start above 0"),
    ],
)
def test_what_cannot_be_varied_is_refused(text: str, said: str):
    with pytest.raises(ConfigError, match=f"{said}.*Received: {re.escape(text)}"):
        typed_in(text)


def test_a_grid_has_each_combination_once_and_leaves_out_what_does_not_apply():
    space = read_space({"a": [1, 2], "b": {"choices": ["x", "y"], "when": {"a": 2}}, "c": [0]})
    assert combinations(space) == [
        {"a": "1", "c": "0"},
        {"a": "2", "c": "0", "b": "x"},
        {"a": "2", "c": "0", "b": "y"},
    ]


def test_a_grid_of_a_range_without_steps_is_refused():
    with pytest.raises(ConfigError, match="sweep=optuna"):
        combinations(read_space({"lr": {"low": 0.1, "high": 0.2}}))


def test_suggestions_stay_inside_and_follow_conditions():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = read_space(CONDITIONAL)
    seen = [suggested(study.ask(), space) for _ in range(60)]
    assert {one["optimizer"] for one in seen} == {"adam", "adamw"}
    for one in seen:
        assert ("optimizer.weight_decay" in one) is (one["optimizer"] == "adamw")
        assert one["training.batch_size"] in ("16", "32", "48", "64")
        assert 1e-5 <= float(one.get("optimizer.weight_decay", 1e-5)) <= 0.1
