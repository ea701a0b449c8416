"""Crash-safe changes of the registry: a crash at any point leaves one champion.

MLflow has no transaction over several aliases and tags, and no compare-and-set. Each decision is therefore first
written to a tag of the registered model, with the state `begun`. A single call then moves the alias `champion`. Before
this call nothing has changed for the clients of the champion; after it the decision is final. All remaining writes can
be derived from the decision, and the next command that changes the registry completes them.
"""

import json
import logging
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
from melanoma.paths import cache_dir
from melanoma.registry.trail import ABANDONED, Decision, decisions, write_down
from melanoma.tracking.heartbeat import owner, process_alive
from melanoma.tracking.names import Alias, Artifact, Tag
from melanoma.tracking.run import with_retries
from melanoma.tracking.store import sqlite_path

__all__ = [
    "PROMOTED",
    "ROLLED_BACK",
    "alias_of",
    "carry_out",
    "promoted_versions",
    "register",
    "registry_lock",
    "repair",
    "rolled_back",
    "withdraw",
]

log = logging.getLogger("melanoma")

PROMOTED, ROLLED_BACK = "promoted", "rolled back"
_NOTICE = "Research software, not a medical device: no diagnosis may rest on it."


@contextmanager
def registry_lock(uri: str, name: str) -> Iterator[None]:
    """Lock a registered model against changes by other processes of this machine.

    The lock is released if its process is killed.
    """
    file = sqlite_path(uri)
    file = None if file is None else file.resolve()  # one lock for all spellings of the address
    lock = f"{content_key(uri if file is None else file.name, name)[:16]}.registry.lock"
    folder = cache_dir() if file is None else file.parent
    with FileLock(folder / f".{lock}"):
        yield


def alias_of(name: str, alias: str) -> ModelVersion | None:
    """Return the version that an alias points to, or None."""
    return _found(mlflow.MlflowClient().get_model_version_by_alias, name, alias)


def _version(name: str, number: int) -> ModelVersion | None:
    """Return a version by its number; None if it was deleted."""
    return _found(mlflow.MlflowClient().get_model_version, name, str(number))


def _found(get: Callable[[str, str], ModelVersion], name: str, key: str) -> ModelVersion | None:
    try:
        return get(name, key)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def register(name: str, task: str, address: str, model_id: str, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
    """Register a new pending version, and wait until all earlier pending versions are decided.

    The store numbers versions consecutively, so that the numbers order concurrent promotions, also across machines: the
    process with the lowest number goes first.
    """
    client = mlflow.MlflowClient()
    try:
        client.create_registered_model(name, description=f"Classifiers of skin lesions, task {task}. {_NOTICE}")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name,
        address,
        run_id=run_id,
        model_id=model_id,
        tags={**tags, Tag.PROMOTION: "pending", Tag.PROMOTION_OWNER: owner()},
    )
    try:
        _wait_for_earlier_versions(version)
    except BaseException:
        withdraw(version)
        raise
    return version


def _wait_for_earlier_versions(version: ModelVersion) -> None:
    announced = False
    while before := [other for other in _pending(version.name) if int(other.version) < int(version.version)]:
        repair(version.name)
        if not announced:
            log.info(
                "Waiting for the promotion of version %s by %s",
                before[0].version,
                before[0].tags.get(Tag.PROMOTION_OWNER),
            )
            announced = True
        time.sleep(1)


def withdraw(version: ModelVersion) -> None:
    """Delete a version without a decision, so that no other promotion waits for it."""
    with suppress(MlflowException):
        mlflow.MlflowClient().delete_model_version(version.name, version.version)


def promoted_versions(name: str) -> list[ModelVersion]:
    """Return all versions that are or were the champion."""
    versions = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
    return [version for version in versions if version.tags.get(Tag.PROMOTION) in (PROMOTED, ROLLED_BACK)]


def rolled_back(name: str) -> set[str]:
    """Return the IDs of the runs whose latest promotion was rolled back."""
    last = {}
    for version in sorted(promoted_versions(name), key=lambda one: int(one.version)):
        last[version.run_id] = version.tags[Tag.PROMOTION]
    return {run_id for run_id, state in last.items() if state == ROLLED_BACK}


def carry_out(name: str, decision: Decision) -> None:
    """Carry out a recorded decision: make its version the champion, and the champion before it `previous`."""
    with_retries(mlflow.MlflowClient().set_registered_model_alias, name, Alias.CHAMPION, str(decision.version))
    _finish(name, decision)


def repair(name: str) -> list[str]:
    """Finish or abandon the decisions of dead processes, and return a sentence for each action."""
    client, done = mlflow.MlflowClient(), []
    trail = decisions(name)
    for decision in trail:
        if decision.state != "begun":
            continue
        goes_on = process_alive(decision.owner, datetime.fromisoformat(decision.when).timestamp(), ABANDONED)
        champion = alias_of(name, Alias.CHAMPION)
        if champion is not None and int(champion.version) == decision.version:
            _finish(name, decision)  # the decision is final; only its records are incomplete
            if not goes_on:
                done.append(f"Finished an interrupted decision: {decision.action} version {decision.version}.")
        elif not goes_on:
            if decision.action == "promote":
                _mark_interrupted(decision)
            write_down(name, replace(decision, state="abandoned"))
            done.append(f"Abandoned an interrupted decision: {decision.action} version {decision.version}.")
    were = {decision.version for decision in trail if decision.state == "done"}
    for version in _pending(name):
        if int(version.version) not in were and not process_alive(
            version.tags.get(Tag.PROMOTION_OWNER, ""), version.creation_timestamp / 1000, ABANDONED
        ):
            client.delete_model_version(name, version.version)
            done.append(f"Deleted version {version.version}: its promotion was interrupted before it was decided.")
    return done


def _finish(name: str, decision: Decision) -> None:
    client = mlflow.MlflowClient()
    left = None if decision.replaces is None else _version(name, decision.replaces)
    if left is not None:
        with_retries(client.set_registered_model_alias, name, Alias.PREVIOUS, left.version)
    client.set_model_version_tag(name, str(decision.version), Tag.PROMOTION, PROMOTED)
    _tag_run(decision.run_id, PROMOTED)
    if decision.action == "rollback" and left is not None:
        client.set_model_version_tag(name, left.version, Tag.PROMOTION, ROLLED_BACK)
        _tag_run(left.run_id, ROLLED_BACK)
    write_down(name, replace(decision, state="done"))


def _mark_interrupted(decision: Decision) -> None:
    """Mark the run as interrupted: `promotion.json` was written before the promotion was complete."""
    _tag_run(decision.run_id, "interrupted")
    with suppress(MlflowException, OSError, ValueError, KeyError):
        recorded = json.loads(mlflow.artifacts.load_text(f"runs:/{decision.run_id}/{Artifact.PROMOTION}"))
        if recorded["when"] == decision.when:
            mlflow.MlflowClient().log_dict(decision.run_id, {**recorded, "decision": "interrupted"}, Artifact.PROMOTION)


def _tag_run(run_id: str, state: str) -> None:
    with suppress(MlflowException):  # the run was deleted; the registry does not need it
        mlflow.MlflowClient().set_tag(run_id, Tag.PROMOTION, state)


def _pending(name: str) -> list[ModelVersion]:
    versions = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
    return [version for version in versions if version.tags.get(Tag.PROMOTION) == "pending"]
