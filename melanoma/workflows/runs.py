"""The commands of `melanoma runs`: what is running or was interrupted, and the end of what died."""

import time
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Column, Table

from melanoma.data.cache import remove_leftovers
from melanoma.errors import ModelError
from melanoma.terminal import out
from melanoma.tracking.names import Tag
from melanoma.tracking.open_runs import (
    DEAD,
    INTERRUPTED,
    RUNNING,
    UNKNOWN,
    OpenRun,
    checkpoints_in,
    end_run,
    give_up,
    interrupted_runs,
    kept_of,
    open_runs,
    remove_forgotten_checkpoints,
)
from melanoma.tracking.store import open_store, resume_command, store_errors
from melanoma.workflows.resume import claimed

__all__ = ["clean_runs", "show_runs"]

_UNITS = (("d", 86_400), ("h", 3600), ("min", 60))


def show_runs(uri: str | None) -> None:
    """Print the runs that are not over, with what is known about their processes, and the commands that resume them."""
    open_store(uri)
    with store_errors():
        found = [*open_runs(), *interrupted_runs()]
    if not found:
        out().print("No run is running, dead or interrupted.")
        return
    whole = Column("ID", no_wrap=True)  # to be copied
    table = Table("run", whole, "state", "checkpoint", "started", "last sign of life", "host and process")
    now = time.time()
    for one in found:
        info, tags = one.run.info, one.run.data.tags
        place = ", ".join(filter(None, [tags.get(Tag.HOST, ""), _number(tags.get(Tag.OWNER, ""))]))
        started, sign = (_ago(now - then) for then in (info.start_time / 1000, one.last_sign))
        checkpoint = checkpoints_in(one.run).last_place or "-"
        table.add_row(escape(str(info.run_name)), info.run_id, one.state, checkpoint, started, sign, escape(place))
    out().print(table)
    resumed = [command for one in found if (command := _resume_command(one, uri))]
    for command in dict.fromkeys(resumed):
        out().print(f"To go on: {command}", markup=False, soft_wrap=True)
    dead = sum(one.state == DEAD for one in found)
    if dead:
        out().print(
            f"{dead} of {len(found)} have no process any more; `melanoma runs clean` ends them and removes their "
            "checkpoints.",
            soft_wrap=True,
        )


def _resume_command(one: OpenRun, uri: str | None) -> str:
    """Return the command that goes on with a run that is dead or interrupted; empty if there is none."""
    tags = one.run.data.tags
    if one.state not in (DEAD, INTERRUPTED) or Tag.MEMBER in tags:
        return ""  # a part goes on with its parent run
    if Tag.SWEEP in tags:
        return f"melanoma sweep ... sweep.resume={tags[Tag.SWEEP]}   (with its other arguments)"
    return resume_command(one.run.info.run_id, uri) if Tag.CONFIG in tags else ""


def clean_runs(uri: str | None, run_ids: Sequence[str] = (), *, dry_run: bool = False) -> list[str]:
    """End runs whose process died as KILLED, without their checkpoints, and remove what killed processes left.

    Args:
        uri: URI of the store; None for the default.
        run_ids: IDs of runs to end, also of those whose process is not known or that were interrupted; empty for all
            dead ones.
        dry_run: Whether only to print what would be done.

    Returns:
        The IDs of the ended runs.

    Raises:
        ModelError: If one of `run_ids` is over, or is still running.
    """
    open_store(uri)
    with store_errors():
        found = open_runs()
        chosen = _chosen([*found, *interrupted_runs()], run_ids) if run_ids else [r for r in found if r.state == DEAD]
        for one in chosen:
            kept, place = kept_of(one.run), checkpoints_in(one.run).last_place
            if not dry_run:
                with claimed(one.run.info.run_id):  # so that nobody resumes it meanwhile
                    if one.state != INTERRUPTED:
                        end_run(one.run)
                    give_up(one.run)
            out().print(
                f"{'Would end' if dry_run else 'Ended'} {one.label}; kept: {kept}"
                + (f"; removed: the checkpoint after {place}" if place else ""),
                markup=False, soft_wrap=True,
            )  # fmt: skip
        leftovers = 0 if dry_run else remove_leftovers() + remove_forgotten_checkpoints()
    unknown = [one.run.info.run_id for one in found if one.state == UNKNOWN and one not in chosen]
    out().print(f"{len(chosen)} runs, {leftovers} leftovers in the cache")
    if unknown:
        out().print(
            f"Not known whether they live, as an older version started them; to end them: melanoma runs clean "
            f"{' '.join(unknown)}",
            soft_wrap=True,
        )
    return [one.run.info.run_id for one in chosen]


def _chosen(found: Sequence[OpenRun], run_ids: Sequence[str]) -> list[OpenRun]:
    by_id = {one.run.info.run_id: one for one in found}
    for run_id in run_ids:
        if run_id not in by_id:
            raise ModelError(f"No such run is open or interrupted; see `melanoma runs`. Received: {run_id}")
        if by_id[run_id].state == RUNNING:
            raise ModelError(f"The process of the run lives; stop it with Ctrl-C or kill. Received: {run_id}")
    return [by_id[run_id] for run_id in run_ids]


def _number(owner: str) -> str:
    """Return the number of the process from `melanoma.tracking.heartbeat.owner`; empty if it is not known."""
    return owner.rpartition(":")[0].rpartition(":")[2]


def _ago(seconds: float) -> str:
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"
