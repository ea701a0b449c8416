"""The study of a sweep: its name, its lock, and what it draws when it goes on."""

from pathlib import Path

import pytest

from melanoma.config.command_schema import SweepConfig
from melanoma.errors import ConfigError
from melanoma.sweeps.space import read_space, suggested
from melanoma.sweeps.study import check_name, open_study, storage_address

SPACE = read_space({"optimizer.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}})


def settings(**given) -> SweepConfig:
    return SweepConfig(**{"sampler": "random", "n_trials": 3, "direction": "maximize", **given})


def drawn(address: str, count: int, **given) -> list[str]:
    with open_study(settings(**given), "s", address, {"data": 1}) as study:
        values = []
        for _ in range(count):
            trial = study.ask()
            values.append(suggested(trial, SPACE)["optimizer.learning_rate"])
            study.tell(trial, 0.5)
    return values


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'new' / 'sweeps.db'}"


@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes", "nsga2"])
def test_a_search_that_goes_on_draws_other_values(address: str, sampler: str):
    first = drawn(address, 3, sampler=sampler)
    again = drawn(address, 3, sampler=sampler, resume="s")
    assert len(set(first + again)) == 6


def test_the_same_seed_draws_the_same(tmp_path: Path):
    one, other = (drawn(f"sqlite:///{tmp_path / name}.db", 4, seed=3) for name in ("a", "b"))
    assert one == other


def test_a_sweep_under_way_is_not_resumed(address: str):
    with open_study(settings(), "s", address, {"data": 1}):
        with (
            pytest.raises(ConfigError, match="running in another process"),
            open_study(settings(resume="s"), "s", address, {"data": 1}),
        ):
            pass
        with open_study(settings(), "another", address, {"data": 1}):
            pass
    with open_study(settings(resume="s"), "s", address, {"data": 1}):
        pass


def test_names_are_looked_at_first(address: str):
    check_name(settings(), "s", address)
    with pytest.raises(ConfigError, match="no such sweep"):
        check_name(settings(resume="s"), "s", address)
    drawn(address, 1)
    check_name(settings(resume="s"), "s", address)
    with pytest.raises(ConfigError, match="has this name already"):
        check_name(settings(), "s", address)


def test_what_changed_is_named(address: str):
    drawn(address, 1)
    with (
        pytest.raises(ConfigError, match="data: 1 became 2"),
        open_study(settings(resume="s"), "s", address, {"data": 2}),
    ):
        pass


@pytest.mark.parametrize(
    ("configured", "tracking", "expected"),
    [
        (None, "sqlite:////a/b/mlflow.db", "sqlite:////a/b/sweeps.db"),
        ("postgresql://x/y", "sqlite:////a/b/mlflow.db", "postgresql://x/y"),
    ],
)
def test_the_store_is_beside_the_tracking_store(configured, tracking, expected):
    assert storage_address(configured, tracking) == expected


def test_a_store_that_cannot_be_used_is_said():
    with pytest.raises(ConfigError, match="cannot be used"):
        check_name(settings(), "s", "nonsense://x")
