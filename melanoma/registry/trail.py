"""The decision trail: what was decided on a registered model, by whom, and whether it is still under way."""

import getpass
import json
import os
import shlex
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import psutil
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from melanoma.tracking.names import Tag
from melanoma.tracking.store import without_password

__all__ = ["Decision", "decisions", "new_decision", "owner", "process_alive", "write_down"]

_ABANDONED = 3600  # seconds after which the process of a decision on another machine counts as dead


@dataclass(frozen=True)
class Decision:
    """One entry of the decision trail.

    Attributes:
        key: its name in the trail; sorted, they are in order of time.
        action: `promote`, `refuse` or `rollback`.
        version: that was decided on; None for a run that was refused before it was registered.
        replaces: the champion before.
        run_id: of the version.
        by: user@host.
        when: in UTC, ISO 8601.
        command: as typed.
        owner: host:process:start, by which a decision whose process died is recognized.
        state: `begun`, `done` or `abandoned`.
        failed: names of the gates that were not passed.
    """

    key: str
    action: str
    version: int | None
    replaces: int | None
    run_id: str
    by: str
    when: str
    command: str
    owner: str
    state: str = "begun"
    failed: list[str] = field(default_factory=list)


def new_decision(
    action: str, version: ModelVersion | None, replaces: ModelVersion | None, run_id: str, failed: list[str]
) -> Decision:
    """A decision of this process, now."""
    now = datetime.now(UTC)
    return Decision(
        key=f"{now:%Y-%m-%dT%H:%M:%S.%fZ}-{os.getpid()}",
        action=action,
        version=None if version is None else int(version.version),
        replaces=None if replaces is None else int(replaces.version),
        run_id=run_id,
        by=f"{_user()}@{socket.gethostname()}",
        when=now.isoformat(timespec="seconds"),
        command=without_password(" ".join([sys.argv[0], *map(shlex.quote, sys.argv[1:])]))[:1000],
        owner=owner(),
        failed=[gate[:100] for gate in failed[:20]],  # a tag has its limits
    )


def write_down(name: str, decision: Decision) -> None:
    """Enter a decision in the trail, or enter it anew."""
    text = json.dumps(asdict(decision), ensure_ascii=False)
    mlflow.MlflowClient().set_registered_model_tag(name, f"{Tag.DECISION}{decision.key}", text)


def decisions(name: str) -> list[Decision]:
    """The trail, oldest first."""
    try:
        tags = mlflow.MlflowClient().get_registered_model(name).tags
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []
        raise
    found = []
    for key in sorted(tags):
        with suppress(TypeError, ValueError):  # not written by this project
            if key.startswith(Tag.DECISION):
                found.append(Decision(**json.loads(tags[key])))
    return found


def owner() -> str:
    """This process, as `process_alive` identifies it: host:process:start."""
    return f"{_machine()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def _machine() -> str:
    """The host, and where that is known the space of process numbers: containers may share a host's name."""
    try:
        return f"{socket.gethostname()}/{Path('/proc/self/ns/pid').readlink()}".replace(":", "")
    except OSError:
        return socket.gethostname()


def process_alive(owner: str, begun: float) -> bool:
    """Whether a process may still go on; one of another machine is given an hour."""
    host, _, process = owner.partition(":")
    if host == _machine():
        number, _, started = process.partition(":")
        try:
            return f"{psutil.Process(int(number)).create_time():.0f}" == started
        except (psutil.Error, ValueError):
            return False
    return time.time() - begun < _ABANDONED


def _user() -> str:
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
