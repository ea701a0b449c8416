"""`melanoma replay`: a run made again from its record, and a comparison of all numbers of both."""

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import mlflow
from omegaconf import OmegaConf

from melanoma.config.launch import typed
from melanoma.config.schema import TrainConfig
from melanoma.errors import ModelError
from melanoma.lineage.protocol import SHORTCUTS_VARIABLE, Shortcut
from melanoma.terminal import log_to, out
from melanoma.tracking.log_config import environment_text
from melanoma.tracking.model_store import registered_version
from melanoma.tracking.names import Artifact, Tag
from melanoma.tracking.records import RunRecord
from melanoma.tracking.source import git_commit, git_diff
from melanoma.tracking.store import open_store, store_errors
from melanoma.workflows.resume import configuration_of, overrides_of
from melanoma.workflows.train import train_configured

__all__ = ["DIFFERENT", "IDENTICAL", "WITHIN_TOLERANCE", "Comparison", "compared", "replay"]

log = logging.getLogger("melanoma")

IDENTICAL, WITHIN_TOLERANCE, DIFFERENT = "identical", "within tolerance", "different"
_TIMED = ("seconds", "latency", "images_per_second", "system/")  # which measure the machine, not the model
_MARGIN = 2  # tolerance as a multiple of the difference of two replays
_SHOWN = 20

Key = tuple[str, str, int]  # part of the run, such as a fold, or empty; metric; epoch from 1, or 0 for a final metric


@dataclass(frozen=True)
class Comparison:
    """The comparison of a run with its replay.

    Attributes:
        verdict: `identical`, `within tolerance` or `different`.
        compared: How many numbers were compared.
        differing: Original, replay and tolerance of each number that differs; NaN where there is none.
    """

    verdict: str
    compared: int
    differing: dict[Key, tuple[float, float, float]]


def replay(address: str, uri: str | None, folder: Path) -> str:
    """Make a run again from its record, compare all its numbers, log a report to the new run, and print it.

    If numbers differ, the run is made once more: two replays on this machine tell what its nondeterminism is.

    Args:
        address: ID of a run, or address of a model, such as `models:/NAME@champion`.
        uri: URI of the store; None for the default.
        folder: Folder for log files.

    Returns:
        The verdict; see `Comparison`.

    Raises:
        ModelError: If the run cannot be made again from its record.
    """
    open_store(uri)
    with store_errors():
        record = RunRecord.read(_run_of(address))
        config = _config_to_repeat(record, uri)
        before = numbers_of(record)
    first = _again(record, config, folder, "replay")
    again, second = numbers_of(first), None
    found = compared(before, again)
    changes = _changes(record, first)
    if found.verdict == DIFFERENT:
        log.warning("%d of %d numbers differ; a second replay shows what this machine's nondeterminism is",
                    len(found.differing), found.compared)  # fmt: skip
        second = _again(record, config, folder, "second replay")
        found = compared(before, again, numbers_of(second))
    _log_report(record, first, found, changes)
    return found.verdict


def _run_of(address: str) -> str:
    if ":/" not in address:
        return address
    if address.startswith("runs:/"):
        return address.removeprefix("runs:/").partition("/")[0]
    version = registered_version(address)
    run_id = (
        mlflow.get_logged_model(address.removeprefix("models:/")).source_run_id if version is None else version.run_id
    )
    if not run_id:
        raise ModelError(f"The model does not record which run trained it. Received: {address}")
    return str(run_id)


def _config_to_repeat(record: RunRecord, uri: str | None) -> dict[str, Any]:
    """Return the configuration with which a run is made again: with the values that it found, and not their search."""
    if record.run.info.status != "FINISHED":
        raise ModelError(f"Only a finished run can be replayed; see `melanoma runs`. Received: {record.id}")
    if Tag.BEST_RUN in record.tags:
        best = record.tags[Tag.BEST_RUN]
        raise ModelError(f"The run is a sweep; replay its best trial: melanoma replay {best}. Received: {record.id}")
    config = configuration_of(record)
    member, fold = record.tags.get(Tag.MEMBER, ""), config["split"].get("fold")
    if fold is None and config["split"].get("method") in ("kfold", "leave_one_out_by") and member:
        kind, _, number = member.partition(" ")
        if kind == "fold" and number.isdigit():
            config["split"]["fold"] = int(number)
        elif kind != "seed":  # which is a cross-validation itself
            raise ModelError(
                f"The run is a part of another; replay that: melanoma replay {record.tags.get(Tag.PARENT)}. "
                f"Received: {record.id}"
            )
    _refuse_if_the_clock_ended_it(record, config)
    config["training"] |= {"find_learning_rate": False, "max_minutes": None}
    experiment = mlflow.get_experiment(record.run.info.experiment_id).name
    config["tracking"] = {**config.get("tracking", {}), "uri": uri, "experiment": experiment}
    return config


def _refuse_if_the_clock_ended_it(record: RunRecord, config: dict[str, Any]) -> None:
    """Refuse a run that its time limit ended before the planned epochs, which depended on the speed of its machine."""
    training, trained = config["training"], record.metrics.get("fit/epochs")
    if training.get("max_minutes") is None or trained is None or trained >= training["epochs"]:
        return
    patience = (training.get("early_stopping") or {}).get("patience")
    if patience is None or trained - 1 - record.metrics["fit/best_epoch"] < patience:
        raise ModelError(
            f"The time limit ended the run after {trained:.0f} of {training['epochs']} planned epochs, which cannot be "
            f"repeated. Received: {record.id}"
        )


def _again(record: RunRecord, config: dict[str, Any], folder: Path, what: str) -> RunRecord:
    """Train from the configuration of a run, and return the record of the new run."""
    resolved = {**config, "tracking": {**config["tracking"], "run_name": f"{record.name}, {what}"}}
    settings = typed(TrainConfig, OmegaConf.create(resolved))
    if Shortcut.SELECTED_ON_TEST in record.protocol:
        os.environ[SHORTCUTS_VARIABLE] = Shortcut.SELECTED_ON_TEST
    log_file = log_to(folder, f"{what.replace(' ', '-')}-{datetime.now():%Y%m%d-%H%M%S}")
    log.info("Making %s again", record.label)
    result = train_configured(settings, resolved, overrides_of(record), log_file, replay_of=record.id)
    return RunRecord.read(result.run_id)


def numbers_of(record: RunRecord) -> dict[Key, float]:
    """Return all numbers of a run and of its parts but those that measure time: of each epoch, and the final ones."""
    found: dict[Key, float] = {}
    for part, one in _with_parts(record):
        for name, value in one.metrics.items():
            if any(word in name for word in _TIMED):
                continue
            if name.startswith(("train/", "val/")) or name == "learning_rate":
                found |= {(part, name, step + 1): each for step, each in one.history(name)}
            else:
                found[part, name, 0] = value
    return found


def _with_parts(record: RunRecord, part: str = "") -> Iterator[tuple[str, RunRecord]]:
    yield part, record
    for child in record.children:
        yield from _with_parts(child, f"{part} {child.tags[Tag.MEMBER]}".strip())


def compared(
    before: Mapping[Key, float], again: Mapping[Key, float], second: Mapping[Key, float] | None = None
) -> Comparison:
    """Compare the numbers of a run with those of its replay.

    Args:
        before: Numbers of the run.
        again: Numbers of its replay.
        second: Numbers of a second replay. The tolerance of a metric is twice the largest difference of both replays.
    """
    tolerance: dict[tuple[str, str], float] = {}
    for part, name, epoch in second or {}:
        one, other = again.get((part, name, epoch), math.nan), (second or {})[part, name, epoch]
        spread = 0.0 if _same(one, other) else abs(one - other)
        tolerance[part, name] = max(tolerance.get((part, name), 0.0), _MARGIN * spread)
    keys = sorted(before.keys() | again.keys())
    differing = {
        key: (before.get(key, math.nan), again.get(key, math.nan), tolerance.get(key[:2], 0.0))
        for key in keys
        if not (key in before and key in again and _same(before[key], again[key]))
    }
    if not differing:
        return Comparison(IDENTICAL, len(keys), {})
    within = all(abs(one - other) <= allowed for one, other, allowed in differing.values())  # false for NaN
    return Comparison(WITHIN_TOLERANCE if within else DIFFERENT, len(keys), differing)


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _changes(record: RunRecord, again: RunRecord) -> list[str]:
    """Return what differs between a run and its replay beside the numbers: data, code, packages and hardware."""
    pairs = [
        ("images (fingerprint)", record.tags.get(Tag.FINGERPRINT), again.tags.get(Tag.FINGERPRINT)),
        ("split (hash)", record.tags.get(Tag.SPLIT_HASH), again.tags.get(Tag.SPLIT_HASH)),
        ("commit", record.tags.get(Tag.COMMIT), git_commit().get(Tag.COMMIT)),
        ("uncommitted changes", *(_size(text) for text in (record.optional_text(Artifact.DIFF), git_diff()))),
        ("host", record.tags.get(Tag.HOST), again.tags.get(Tag.HOST)),
        *((key, record.params.get(key), again.params.get(key)) for key in ("fit.device", "fit.precision")),
    ]
    found = [f"{what}: {old}, now {new}" for what, old, new in pairs if old != new and None not in (old, new)]
    old, new = (_packages(text) for text in (record.optional_text(Artifact.REQUIREMENTS), environment_text()))
    packages = [
        f"{name} {old[name]}, now {new[name]}" for name in sorted(old) if name in new and old[name] != new[name]
    ]
    return [*found, *packages]


def _size(diff: str) -> str:
    return f"{len(diff.splitlines())} lines" if diff else "none"


def _packages(text: str) -> dict[str, str]:
    lines = [line.lstrip("# ").replace("Python ", "Python==") for line in text.splitlines()]
    return dict(line.split("==", 1) for line in lines if "==" in line)


def _log_report(record: RunRecord, again: RunRecord, found: Comparison, changes: Sequence[str]) -> None:
    """Log the comparison to the new run, as JSON, as its description and as a tag, and print it."""
    rows = sorted(found.differing.items(), key=lambda item: -_distance(item[1]))
    content = {
        "replay_of": record.id,
        "verdict": found.verdict,
        "numbers": found.compared,
        "changes": list(changes),
        "differing": [
            {"part": part, "metric": name, "epoch": epoch or None, "run": one, "replay": other, "tolerance": allowed}
            for (part, name, epoch), (one, other, allowed) in rows
        ],
    }
    lines = [
        f"Replay of {record.label}: **{found.verdict}**",
        f"{found.compared - len(found.differing)} of {found.compared} numbers are the same to the digit.",
    ]
    if rows:
        table = ["| number | run | replay | tolerance |", "|---|---|---|---|"]
        table += [f"| {_label(key)} | {one:.6g} | {other:.6g} | {allowed:.2g} |" for key, (one, other, allowed) in rows]
        lines += ["\n".join(table[: _SHOWN + 2])]
        lines += [f"{len(rows) - _SHOWN} more are in {Artifact.REPLAY}."] if len(rows) > _SHOWN else []
    lines += ["\n".join(["What is not the same:", "", *(f"- {change}" for change in changes)])] if changes else []
    client = mlflow.MlflowClient()
    client.log_text(again.id, json.dumps(content, indent=1), Artifact.REPLAY)
    client.set_tag(again.id, Tag.REPLAY, found.verdict)
    note = "\n\n".join([*lines, again.tags.get(Tag.NOTE, "")]).strip()
    client.set_tag(again.id, Tag.NOTE, note)
    out().print("\n\n".join(lines).replace("**", ""), markup=False, soft_wrap=True)
    out().print(f"\nRun {again.id}, {Artifact.REPLAY}", soft_wrap=True)


def _distance(values: tuple[float, float, float]) -> float:
    difference = abs(values[0] - values[1])
    return math.inf if math.isnan(difference) else difference


def _label(key: Key) -> str:
    part, name, epoch = key
    return ": ".join(filter(None, [part, name])) + (f", epoch {epoch}" if epoch else "")
