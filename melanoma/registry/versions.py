"""What stands in the registry, and changing it so that a crash at any point leaves one champion.

MLflow has no transaction over several aliases and tags, and no compare-and-set. So each decision is first written down
as begun, in a tag of the registered model; the alias `champion` is then moved by one call, before which nothing has
changed for those who serve it and after which the decision stands; whatever is left to write can be told from the
decision, and the next command that changes the registry writes it.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime

import mlflow
from filelock import FileLock
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from melanoma.data.cache import content_key
from melanoma.errors import ModelError
from melanoma.paths import cache_dir
from melanoma.registry.trail import Decision, decisions, lives, owner, write_down
from melanoma.tracking.run import patiently
from melanoma.tracking.store import sqlite_path

__all__ = [
    "CHAMPION",
    "PREVIOUS",
    "PROMOTED",
    "ROLLED_BACK",
    "STATE",
    "alias_of",
    "alone",
    "carry_out",
    "model_name",
    "only_model",
    "register",
    "registered_models",
    "repair",
    "rolled_back",
    "withdraw",
]

log = logging.getLogger("melanoma")

CHAMPION, PREVIOUS = "champion", "previous"
PROMOTED, ROLLED_BACK = "promoted", "rolled back"
STATE = "melanoma.promotion"  # of a version: pending, promoted, rolled back, refused
_OWNER = "melanoma.promotion.owner"
_NOTICE = "Research software, not a medical device: no diagnosis may rest on it."


@contextmanager
def alone(uri: str, name: str) -> Iterator[None]:
    """No other process of this machine changes the registered model meanwhile; a killed one's lock is free."""
    file = sqlite_path(uri)
    file = None if file is None else file.resolve()  # one lock, however the address is written
    lock = f"{content_key(uri if file is None else file.name, name)[:16]}.registry.lock"
    folder = cache_dir() if file is None else file.parent
    with FileLock(folder / f".{lock}"):
        yield


def model_name(task: str) -> str:
    """The name of a task's registered model."""
    plain = re.sub(r"[^\w.-]", "_", task, flags=re.ASCII)
    return f"melanoma-{plain}" if plain == task else f"melanoma-{plain}-{content_key(task)[:6]}"


def registered_models() -> list[str]:
    """Names of the registered models of this project."""
    found = mlflow.MlflowClient().search_registered_models("name LIKE 'melanoma-%'")
    return sorted(model.name for model in found)


def only_model(task: str | None) -> str:
    """The registered model of a task, or the only one there is.

    Raises:
        ModelError: there is none, or more than one.
    """
    known = registered_models()
    if task is not None:
        if model_name(task) not in known:
            raise ModelError(
                f"Nothing of this task was promoted yet; known: {', '.join(known) or 'none'}. Received: task={task}"
            )
        return model_name(task)
    if len(known) != 1:
        several = "Several models are registered; name one (task=TASK, or model=models:/NAME@champion)"
        what = several if known else "No model is registered; promote one"
        raise ModelError(f"{what}. Received: {', '.join(known) or 'an empty registry'}")
    return known[0]


def alias_of(name: str, alias: str) -> ModelVersion | None:
    """The version that an alias stands for, or None."""
    return _found(mlflow.MlflowClient().get_model_version_by_alias, name, alias)


def _version(name: str, number: int) -> ModelVersion | None:
    """A version by its number; None where it was deleted."""
    return _found(mlflow.MlflowClient().get_model_version, name, str(number))


def _found(get: Callable[[str, str], ModelVersion], name: str, key: str) -> ModelVersion | None:
    try:
        return get(name, key)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def register(name: str, task: str, address: str, model_id: str, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
    """A new version, pending, once no other that was begun before it is undecided.

    The store numbers versions one after the other, so that they serve as tickets: of several processes, on whatever
    machines, the one with the lowest number goes first.
    """
    client = mlflow.MlflowClient()
    try:
        client.create_registered_model(name, description=f"Classifiers of skin lesions, task {task}. {_NOTICE}")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name, address, run_id=run_id, model_id=model_id, tags={**tags, STATE: "pending", _OWNER: owner()}
    )
    try:
        _wait_for_those_before(version)
    except BaseException:
        withdraw(version)
        raise
    return version


def _wait_for_those_before(version: ModelVersion) -> None:
    told = False
    while before := [other for other in _pending(version.name) if int(other.version) < int(version.version)]:
        repair(version.name)
        if not told:
            log.info("Waiting for the promotion of version %s by %s", before[0].version, before[0].tags.get(_OWNER))
            told = True
        time.sleep(1)


def withdraw(version: ModelVersion) -> None:
    """Take away a version that came to no decision, so that no other waits for one."""
    with suppress(MlflowException):
        mlflow.MlflowClient().delete_model_version(version.name, version.version)


def rolled_back(name: str) -> set[str]:
    """Runs that were in service and then taken out of it by a rollback, and have not come back since."""
    versions = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
    last = {}
    for version in sorted(versions, key=lambda one: int(one.version)):
        if version.tags.get(STATE) in (PROMOTED, ROLLED_BACK):
            last[version.run_id] = version.tags[STATE]
    return {run_id for run_id, state in last.items() if state == ROLLED_BACK}


def carry_out(name: str, decision: Decision) -> None:
    """Make the version of a decision that was written down the champion, and the champion before it `previous`."""
    patiently(mlflow.MlflowClient().set_registered_model_alias, name, CHAMPION, str(decision.version))
    _finish(name, decision)


def repair(name: str) -> list[str]:
    """Finish or give up what a process has begun that is no more; returns what was done, in sentences."""
    client, done = mlflow.MlflowClient(), []
    trail = decisions(name)
    for decision in trail:
        if decision.state != "begun":
            continue
        goes_on = lives(decision.owner, datetime.fromisoformat(decision.when).timestamp())
        champion = alias_of(name, CHAMPION)
        if champion is not None and int(champion.version) == decision.version:
            _finish(name, decision)  # it stands, whoever was to finish it
            if not goes_on:
                done.append(f"Finished the {decision.action} of version {decision.version}, which was interrupted.")
        elif not goes_on:
            if decision.action == "promote":
                _mark_interrupted(decision)
            write_down(name, replace(decision, state="abandoned"))
            done.append(f"Gave up the {decision.action} of version {decision.version}, which was interrupted.")
    were = {decision.version for decision in trail if decision.state == "done"}
    for version in _pending(name):
        if int(version.version) not in were and not lives(
            version.tags.get(_OWNER, ""), version.creation_timestamp / 1000
        ):
            client.delete_model_version(name, version.version)
            done.append(f"Took away version {version.version}: its promotion was interrupted before it was decided.")
    return done


def _finish(name: str, decision: Decision) -> None:
    client = mlflow.MlflowClient()
    left = None if decision.replaces is None else _version(name, decision.replaces)
    if left is not None:
        patiently(client.set_registered_model_alias, name, PREVIOUS, left.version)
    client.set_model_version_tag(name, str(decision.version), STATE, PROMOTED)
    _tag_run(decision.run_id, PROMOTED)
    if decision.action == "rollback" and left is not None:
        client.set_model_version_tag(name, left.version, STATE, ROLLED_BACK)
        _tag_run(left.run_id, ROLLED_BACK)
    write_down(name, replace(decision, state="done"))


def _mark_interrupted(decision: Decision) -> None:
    """The run says of itself that it was promoted, as that was written before it was done."""
    _tag_run(decision.run_id, "interrupted")
    with suppress(MlflowException, OSError, ValueError, KeyError):
        told = json.loads(mlflow.artifacts.load_text(f"runs:/{decision.run_id}/promotion.json"))
        if told["when"] == decision.when:
            mlflow.MlflowClient().log_dict(decision.run_id, {**told, "decision": "interrupted"}, "promotion.json")


def _tag_run(run_id: str, state: str) -> None:
    with suppress(MlflowException):  # it was deleted: the registry goes on without it
        mlflow.MlflowClient().set_tag(run_id, STATE, state)


def _pending(name: str) -> list[ModelVersion]:
    versions = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
    return [version for version in versions if version.tags.get(STATE) == "pending"]
