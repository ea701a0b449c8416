"""The decision trail of a registered model: each decision, its author and its state."""

import getpass
import json
import os
import shlex
import socket
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from melanoma.tracking.heartbeat import owner
from melanoma.tracking.names import Tag
from melanoma.tracking.store import without_password

__all__ = ["ABANDONED", "Decision", "decisions", "new_decision", "sentence_on", "write_down"]

ABANDONED = 3600  # seconds after which the process of a decision on another machine is considered dead
_HEADING = "**Decisions**"  # in the description of a registered model
_LISTED = 20  # decisions in that description


@dataclass(frozen=True)
class Decision:
    """One entry of the decision trail.

    Attributes:
        key: Name of the entry in the trail; sorted keys are in chronological order.
        action: `promote`, `refuse` or `rollback`.
        version: Number of the version; None for a run that was refused before it was registered.
        replaces: Version number of the previous champion.
        run_id: ID of the version's run.
        by: Author of the decision, as user@host.
        when: Time in UTC, ISO 8601.
        command: Command line of the decision.
        owner: Process of the decision as host:process:start, to recognize a decision whose process died.
        state: `begun`, `done` or `abandoned`.
        failed: Names of the failed gates.
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
    """Create a decision of this process, with the current time."""
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
        failed=[gate[:100] for gate in failed[:20]],  # the length of a tag is limited
    )


def write_down(name: str, decision: Decision) -> None:
    """Write a decision to the trail, or overwrite it, and list the last decisions in the description of the model."""
    text, client = json.dumps(asdict(decision), ensure_ascii=False), mlflow.MlflowClient()
    client.set_registered_model_tag(name, f"{Tag.DECISION}{decision.key}", text)
    own = str(client.get_registered_model(name).description or "").partition(_HEADING)[0].rstrip()
    last = [f"- {one.when.removesuffix('+00:00')} UTC, {one.by}: {sentence_on(one)}" for one in decisions(name)]
    client.update_registered_model(name, "\n".join([f"{own}\n\n{_HEADING}\n", *reversed(last[-_LISTED:])]))


def decisions(name: str) -> list[Decision]:
    """Return the decision trail of a registered model, oldest first."""
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


def sentence_on(decision: Decision) -> str:
    """Return a decision as a sentence, such as `promoted version 2 after version 1`."""
    what = {"promote": "promoted", "rollback": "went back to", "refuse": "refused"}[decision.action]
    subject = f"version {decision.version}" if decision.version else f"run {decision.run_id}"
    before = f" after version {decision.replaces}" if decision.replaces and decision.action != "refuse" else ""
    why = f": {', '.join(decision.failed)}" if decision.failed else ""
    state = "" if decision.state == "done" else f" ({decision.state})"
    return f"{what} {subject}{before}{why}{state}"


def _user() -> str:
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
