"""The registry on a real SQLite store: killed at every point, and eight processes at once."""

import gc
import os
import re
import shutil
import signal
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path

import mlflow
import pytest
from mlflow.entities.model_registry import ModelVersion

from melanoma.config.command_schema import RollbackConfig
from melanoma.errors import ModelError
from melanoma.registry.history import rollback
from melanoma.registry.trail import decisions, new_decision, write_down
from melanoma.registry.versions import alias_of, carry_out, register, registry_lock, repair, rolled_back, withdraw
from melanoma.tracking.names import Alias, Tag
from melanoma.tracking.registered import model_name, only_model, registered_models

NAME = "melanoma-test"
# What changes the store, in the order in which a promotion calls it and beyond.
CHANGES = (
    "create_registered_model", "create_model_version", "set_registered_model_tag", "set_registered_model_alias",
    "set_model_version_tag", "delete_model_version", "update_model_version", "set_tag",
)  # fmt: skip


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables made, which takes seconds."""
    folder = tmp_path_factory.mktemp("empty")
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def uri(empty: Path, tmp_path: Path) -> str:
    shutil.copy(empty, tmp_path / "mlflow.db")
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(address)
    return address


@cache
def run_of(uri: str, name: str) -> str:
    return str(mlflow.MlflowClient(uri).create_run("0", run_name=name).info.run_id)


def promoted(uri: str, run_id: str) -> ModelVersion:
    """What `melanoma promote` does to the registry, without gates and files."""
    with registry_lock(uri, NAME):
        repair(NAME)
        champion = alias_of(NAME, Alias.CHAMPION)
        if champion is not None and champion.run_id == run_id:
            return champion
        version = register(NAME, "test", f"runs:/{run_id}/package", None, run_id, {})
        decision = new_decision("promote", version, alias_of(NAME, Alias.CHAMPION), run_id, [])
        write_down(NAME, decision)
        carry_out(NAME, decision)
        return version


def in_a_process(task: Callable[[], object]) -> int:
    """Fork, so that nothing has to be imported again; returns the process's number."""
    child = os.fork()
    if child:
        return child
    gc.disable()  # what other tests left of TensorFlow waits for threads that this process does not have
    try:
        task()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def killed_at(call: int, task: Callable[[], object]) -> Callable[[], object]:
    """The task, ended by SIGKILL before its n-th change of the store."""
    left = call

    def counting(change):
        def changed(*arguments, **named):
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return change(*arguments, **named)

        return changed

    def run() -> None:
        for name in CHANGES:
            setattr(mlflow.MlflowClient, name, counting(getattr(mlflow.MlflowClient, name)))
        task()

    return run


def state(name: str = NAME) -> tuple[str | None, str | None, dict[str, str]]:
    """Runs of champion and previous, and the state of each version by its run."""
    champion, before = alias_of(name, Alias.CHAMPION), alias_of(name, Alias.PREVIOUS)
    versions = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
    states = {version.run_id: version.tags[Tag.PROMOTION] for version in versions}
    return champion and champion.run_id, before and before.run_id, states


def states_of_runs(uri: str) -> dict[str, str]:
    runs = mlflow.MlflowClient(uri).search_runs(["0"])
    return {run.info.run_id: run.data.tags.get(Tag.PROMOTION, "") for run in runs}


def test_a_name_for_every_task():
    assert model_name("isic9") == "melanoma-isic9"
    names = [model_name(task) for task in ("a_b", "a/b", "a:b", "a@b", "o'brien", "Läsion")]
    assert names[0] == "melanoma-a_b"
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"melanoma-[\w.-]+", name, flags=re.ASCII) for name in names)


def test_promotions_and_rollbacks(uri: str, monkeypatch, capsys: pytest.CaptureFixture):
    first, second, third = (run_of(uri, name) for name in ("first", "second", "third"))
    with pytest.raises(ModelError, match="No model is registered"):
        only_model(None)
    promoted(uri, first)
    assert state() == (first, None, {first: "promoted"})
    with pytest.raises(ModelError, match="no previous champion to roll back to"):
        rollback(RollbackConfig("test"), uri)
    promoted(uri, second)
    promoted(uri, third)
    assert state() == (third, second, dict.fromkeys((first, second, third), "promoted"))
    monkeypatch.setattr(
        "melanoma.tracking.model_store.checked_model", lambda address: None
    )  # these versions have no files
    rollback(RollbackConfig(), uri)
    assert state()[:2] == (second, third)
    assert states_of_runs(uri) == {first: "promoted", second: "promoted", third: "rolled back"}
    rollback(RollbackConfig("test"), uri)
    assert state()[:2] == (third, second)
    assert states_of_runs(uri)[third] == "promoted"
    trail = decisions(NAME)
    assert [one.action for one in trail] == ["promote"] * 3 + ["rollback"] * 2
    assert {one.state for one in trail} == {"done"}
    assert [(one.version, one.replaces) for one in trail] == [(1, None), (2, 1), (3, 2), (2, 3), (3, 2)]
    assert registered_models() == [NAME]
    assert "Rolled back: melanoma-test, version 3, is the champion (previous: version 2)" in capsys.readouterr().out
    with pytest.raises(ModelError, match=r"known: melanoma-test\. Received: task=other"):
        only_model("other")


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_a_process_killed_at_any_point_leaves_one_champion(action: str, empty: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("melanoma.tracking.model_store.checked_model", lambda address: None)
    finished = False
    call = 0
    outcomes = set()
    while not finished:
        folder = tmp_path / f"{action}-{call}"
        folder.mkdir()
        shutil.copy(empty, folder / "mlflow.db")
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        mlflow.set_tracking_uri(uri)
        oldest, old, new = (run_of(uri, name) for name in ("oldest", "old", "new"))
        promoted(uri, oldest)
        promoted(uri, old)
        # The store's connections must not be shared with a child.
        child_uri = f"sqlite:///{folder / '.' / 'mlflow.db'}?timeout=30"

        def task(uri: str = child_uri, new: str = new) -> object:
            mlflow.set_tracking_uri(uri)
            return promoted(uri, new) if action == "promote" else rollback(RollbackConfig("test"), uri)

        _, status = os.waitpid(in_a_process(killed_at(call, task)), 0)
        finished = os.WIFEXITED(status)
        assert finished or os.WTERMSIG(status) == signal.SIGKILL
        assert not finished or os.WEXITSTATUS(status) == 0
        target = new if action == "promote" else oldest
        champion, _, _ = state()
        assert champion in (old, target), f"after {call} changes"
        repair(NAME)
        now, before, states = state()
        assert now == champion
        assert before == (old if champion == target else oldest)
        left = {oldest, old, new} - {champion} if action == "rollback" and champion == target else set()
        assert states.get(old) == ("rolled back" if old in left else "promoted")
        assert set(states.values()) <= {"promoted", "rolled back"}
        assert {one.state for one in decisions(NAME)} <= {"done", "abandoned"}
        assert repair(NAME) == []
        outcomes.add(champion == target)
        # And the next promotion goes through.
        promoted(uri, new)
        assert state()[0] == new
        assert states_of_runs(uri)[new] == "promoted"
        call += 1
    assert outcomes == {False, True}
    assert call > 4


def test_eight_processes_at_once_lose_nothing(uri: str, tmp_path: Path):
    runs = [run_of(uri, f"run {i}") for i in range(8)]
    address = f"sqlite:///{tmp_path / '.' / 'mlflow.db'}?timeout=60"

    def task(run_id: str) -> Callable[[], object]:
        def run() -> None:
            mlflow.set_tracking_uri(address)
            promoted(address, run_id)

        return run

    children = [in_a_process(task(run_id)) for run_id in runs]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    champion, before, states = state()
    assert states == dict.fromkeys(runs, "promoted")
    trail = decisions(NAME)
    assert [one.version for one in trail] == list(range(1, 9))
    assert [one.replaces for one in trail] == [None, *range(1, 8)]
    assert (champion, before) == (trail[-1].run_id, trail[-2].run_id)


def test_without_a_lock_the_numbers_of_the_versions_are_the_order(uri: str, tmp_path: Path, monkeypatch):
    """As on several machines, which share a server and no file."""
    runs = [run_of(uri, f"run {i}") for i in range(4)]
    address = f"sqlite:///{tmp_path / '.' / 'mlflow.db'}?timeout=60"

    def task(run_id: str) -> Callable[[], object]:
        def run() -> None:
            mlflow.set_tracking_uri(address)
            version = register(NAME, "test", f"runs:/{run_id}/package", None, run_id, {})
            decision = new_decision("promote", version, alias_of(NAME, Alias.CHAMPION), run_id, [])
            write_down(NAME, decision)
            carry_out(NAME, decision)

        return run

    children = [in_a_process(task(run_id)) for run_id in runs]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    trail = decisions(NAME)
    assert sorted(one.version for one in trail) == [1, 2, 3, 4]
    assert {one.version: one.replaces for one in trail} == {1: None, 2: 1, 3: 2, 4: 3}
    assert int(alias_of(NAME, Alias.CHAMPION).version) == 4
    assert int(alias_of(NAME, Alias.PREVIOUS).version) == 3


def test_one_that_died_on_another_machine_after_its_alias_is_finished_by_a_rollback(uri: str, monkeypatch):
    monkeypatch.setattr("melanoma.tracking.model_store.checked_model", lambda address: None)
    first, second, third = (run_of(uri, name) for name in ("first", "second", "third"))
    promoted(uri, first)
    promoted(uri, second)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("melanoma.tracking.heartbeat._machine", lambda: "elsewhere")
        version = register(NAME, "test", f"runs:/{third}/package", None, third, {})
        write_down(NAME, new_decision("promote", version, alias_of(NAME, Alias.CHAMPION), third, []))
        mlflow.MlflowClient().set_registered_model_alias(NAME, Alias.CHAMPION, str(version.version))
    rollback(RollbackConfig("test"), uri)
    assert state()[:2] == (second, third)
    assert len(state()[2]) == 3


def test_one_that_is_under_way_on_another_machine_is_left_alone(uri: str, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("melanoma.tracking.heartbeat._machine", lambda: "elsewhere")
        register(NAME, "test", "runs:/x/package", None, run_of(uri, "theirs"), {})
    assert repair(NAME) == []
    assert list(state()[2].values()) == ["pending"]
    monkeypatch.setattr("melanoma.registry.versions.ABANDONED", 0)
    assert repair(NAME) == ["Deleted version 1: its promotion was interrupted before it was decided."]
    assert state()[2] == {}


def test_a_run_that_was_deleted_holds_nothing_up(uri: str, monkeypatch):
    monkeypatch.setattr("melanoma.tracking.model_store.checked_model", lambda address: None)
    first, second = (run_of(uri, name) for name in ("first", "second"))
    promoted(uri, first)
    promoted(uri, second)
    for run_id in (first, second):
        mlflow.MlflowClient().delete_run(run_id)
    rollback(RollbackConfig("test"), uri)
    assert state()[:2] == (first, second)
    assert {one.state for one in decisions(NAME)} == {"done"}
    assert repair(NAME) == []


def test_a_run_that_was_rolled_back_is_remembered_until_it_comes_back(uri: str, monkeypatch):
    monkeypatch.setattr("melanoma.tracking.model_store.checked_model", lambda address: None)
    first, second, third = (run_of(uri, name) for name in ("first", "second", "third"))
    promoted(uri, first)
    promoted(uri, second)
    assert rolled_back(NAME) == set()
    rollback(RollbackConfig("test"), uri)
    assert rolled_back(NAME) == {second}
    mlflow.MlflowClient().set_tag(second, Tag.PROMOTION, "refused")  # whatever was decided since
    promoted(uri, third)
    assert rolled_back(NAME) == {second}
    promoted(uri, second)
    assert rolled_back(NAME) == set()


def test_a_version_that_was_replaced_and_deleted_by_hand_holds_nothing_up(uri: str, monkeypatch):
    first, second, third = (run_of(uri, name) for name in ("first", "second", "third"))
    promoted(uri, first)
    promoted(uri, second)
    version = register(NAME, "test", f"runs:/{third}/package", None, third, {})
    champion = alias_of(NAME, Alias.CHAMPION)
    write_down(NAME, new_decision("promote", version, champion, third, []))
    mlflow.MlflowClient().set_registered_model_alias(NAME, Alias.CHAMPION, str(version.version))
    monkeypatch.setattr("melanoma.registry.versions.process_alive", lambda *_: False)  # killed here
    mlflow.MlflowClient().delete_model_version(NAME, champion.version)
    assert repair(NAME) == ["Finished an interrupted decision: promote version 3."]
    assert state()[0] == third
    assert repair(NAME) == []


def test_a_run_does_not_go_on_saying_that_it_was_promoted(uri: str, monkeypatch):
    run_id = run_of(uri, "only")
    version = register(NAME, "test", f"runs:/{run_id}/package", None, run_id, {})
    decision = new_decision("promote", version, None, run_id, [])
    write_down(NAME, decision)
    told = {"when": decision.when, "decision": "promoted"}
    mlflow.MlflowClient().log_dict(run_id, told, "promotion.json")
    monkeypatch.setattr("melanoma.registry.versions.process_alive", lambda *_: False)  # killed here
    assert len(repair(NAME)) == 2
    assert mlflow.artifacts.load_dict(f"runs:/{run_id}/promotion.json") == {**told, "decision": "interrupted"}
    assert states_of_runs(uri) == {run_id: "interrupted"}


def test_a_version_without_a_decision_is_waited_for_by_none(uri: str):
    run_id = run_of(uri, "only")
    withdraw(register(NAME, "test", f"runs:/{run_id}/package", None, run_id, {}))
    assert state()[2] == {}
    promoted(uri, run_id)
    assert state()[0] == run_id


def test_a_store_has_one_lock_however_its_address_is_written(uri: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for address in (uri, "sqlite:///mlflow.db", f"sqlite:///{tmp_path / 'sub' / '..' / 'mlflow.db'}"):
        with registry_lock(address, NAME):
            pass
    assert len(list(tmp_path.rglob("*.registry.lock"))) == 1


def test_the_trail_survives_what_others_wrote(uri: str):
    promoted(uri, run_of(uri, "only"))
    mlflow.MlflowClient().set_registered_model_tag(NAME, "melanoma.decision.zzz", "by hand")
    assert len(decisions(NAME)) == 1
    assert repair(NAME) == []
