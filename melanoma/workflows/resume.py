"""Resuming of an interrupted training in its own run, from its recorded configuration and its last checkpoint."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import mlflow
import yaml
from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from melanoma.config.arguments import flattened
from melanoma.config.launch import typed
from melanoma.config.schema import TrainConfig
from melanoma.errors import ConfigError, ModelError
from melanoma.tracking.log_config import found_later
from melanoma.tracking.names import Artifact, Tag
from melanoma.tracking.open_runs import DEAD, state_of
from melanoma.tracking.records import NotRecorded, RunRecord
from melanoma.tracking.store import open_store, sqlite_path
from melanoma.training.checkpoint import checkpoints_of, home_of
from melanoma.workflows.experiment import Experiment

__all__ = [
    "Recorded",
    "claimed",
    "configuration_of",
    "newest_interrupted",
    "overrides_of",
    "recorded_configuration",
    "refuse_what_cannot_be_resumed",
]

log = logging.getLogger("melanoma")

_WHOLE = {"experiment", "preset"}  # groups that set keys of others
_FREE = ("resume", "tracking.uri", "training.checkpoint.", "hydra.")  # what may have another value
_FILLED_IN = {"data.positive", "primary_metric", "training.monitor"}  # nulls that are recorded as what they stand for


class Recorded(NamedTuple):
    """The configuration of an interrupted run: its ID, the typed settings, the same as logged, and the overrides."""

    run_id: str
    settings: TrainConfig
    resolved: dict[str, Any]
    overrides: list[str]


def recorded_configuration(settings: TrainConfig, resolved: dict[str, Any], overrides: Sequence[str]) -> Recorded:
    """Read the configuration of the run `settings.resume`.

    Args:
        settings: Configuration of the command, of which only the store and the checkpoints are used.
        resolved: The same as plain dictionaries.
        overrides: Overrides of the command.

    Raises:
        ConfigError: If an override contradicts the configuration of the run.
        ModelError: If the run cannot be resumed.
    """
    open_store(settings.tracking.uri)
    record = RunRecord.read(settings.resume)
    config = configuration_of(record)
    _refuse_differences(overrides, resolved, config)
    merged = OmegaConf.create(config)
    merged.tracking = {**config.get("tracking", {}), "uri": settings.tracking.uri}
    if any(word.lstrip("+").startswith("training.checkpoint.") for word in overrides):
        merged.training.checkpoint = resolved["training"]["checkpoint"]
    kept: Any = OmegaConf.to_container(merged)
    own = typed(TrainConfig, merged)
    refuse_what_cannot_be_resumed(record, own.training.checkpoint.folder)
    return Recorded(record.id, own, kept, overrides_of(record))


def configuration_of(record: RunRecord) -> dict[str, Any]:
    """Return the configuration of a run of `melanoma train`.

    Raises:
        ModelError: If it has none.
    """
    try:
        config = record.config
    except NotRecorded as error:
        raise ModelError(
            "The run ended before its configuration was recorded, so nothing of it is lost; train anew. "
            f"Received: {record.id}"
        ) from error
    if not {"data", "model", "training"} <= config.keys():
        raise ModelError(f"The run is not one of `melanoma train`. Received: {record.id}")
    return config


def overrides_of(record: RunRecord) -> list[str]:
    """Return the overrides that were typed for a run."""
    return [str(word) for word in yaml.safe_load(record.optional_text(Artifact.OVERRIDES)) or []]


def _refuse_differences(overrides: Sequence[str], resolved: dict[str, Any], config: dict[str, Any]) -> None:
    """Refuse overrides with other values than the run has."""
    typed_keys = [word.lstrip("+~").partition("=")[0] for word in overrides]
    typed_keys = [key for key in typed_keys if not f"{key}.".startswith(_FREE)]
    now, before = flattened(resolved), flattened(config)
    found = found_later(config)
    compared = [
        key
        for key in sorted(now.keys() & before.keys())
        if (_WHOLE & set(typed_keys) or any(f"{key}.".startswith(f"{one}.") for one in typed_keys))
        and not key.startswith(_FREE)
        and key not in found
        and not (now[key] is None and key in _FILLED_IN)
    ]
    faults = [
        f"The run has {key}={before[key]}; leave the key out, or train anew. Received: {key}={now[key]}"
        for key in compared
        if now[key] != before[key]
    ]
    if faults:
        raise ConfigError(faults)


def refuse_what_cannot_be_resumed(record: RunRecord, folder: str | None) -> None:
    """Refuse a run that is over, lives, is a part of another, or whose checkpoint is elsewhere.

    Args:
        record: The run.
        folder: `training.checkpoint.folder`.

    Raises:
        ModelError: If it cannot be resumed.
    """
    info, tags, received = record.run.info, record.tags, f"Received: resume={record.id}"
    if info.lifecycle_stage == "deleted":
        raise ModelError(f"The run was deleted; restore it by `mlflow runs restore`. {received}")
    if info.status == "FINISHED":
        raise ModelError(f"The run is finished. {received}")
    if Tag.CONFIG not in tags:
        raise ModelError(f"An older version started the run, which wrote no checkpoints; train anew. {received}")
    if info.status == "RUNNING" and state_of(record.run) != DEAD:
        raise ModelError(f"The process of the run lives on {tags.get(Tag.HOST, 'another machine')}. {received}")
    _refuse_a_part(record)
    epochs, checkpoints = len(record.history("train/loss")), checkpoints_of(folder, record.id)
    if epochs > 1 and not checkpoints.last_place:
        raise ModelError(
            f"There is no checkpoint of the run, which has {epochs} epochs and ran on {tags.get(Tag.HOST, '?')}; copy "
            f"the folder from there, or train anew. For several machines, training.checkpoint.folder names a folder "
            f"that all of them have. {received}, and no checkpoint in {checkpoints.folder}"
        )


def _refuse_a_part(record: RunRecord) -> None:
    """Refuse a run that is resumed by another command or by another run."""
    tags, received = record.tags, f"Received: resume={record.id}"
    if Tag.SWEEP in tags:
        raise ModelError(f"The run belongs to a sweep; resume that by sweep.resume={tags[Tag.SWEEP]}. {received}")
    if Tag.REPLAY_OF in tags:
        raise ModelError(f"The run is a replay; make it again by `melanoma replay {tags[Tag.REPLAY_OF]}`. {received}")
    if Tag.MEMBER in tags:
        raise ModelError(f"The run is a part of another; resume that by resume={tags.get(Tag.PARENT)}. {received}")


def newest_interrupted(experiment: Experiment) -> str | None:
    """Return the ID of the newest run of an experiment that was interrupted; None if there is none to resume."""
    settings, path = experiment.settings, sqlite_path(experiment.uri)
    if path is not None and not path.is_file():
        return None
    open_store(settings.tracking.uri)
    found = mlflow.get_experiment_by_name(settings.tracking.experiment)
    runs: Any = [] if found is None else mlflow.search_runs(
        [found.experiment_id],
        f"tags.`{Tag.CONFIG}` = '{experiment.digest}' and attributes.status != 'FINISHED'",
        order_by=["start_time DESC"],
        output_format="list",
    )  # fmt: skip
    for record in map(RunRecord, runs):
        if record.run.info.status != "RUNNING" and Tag.INTERRUPTED not in record.tags:
            continue  # it failed by itself, or was given up by `melanoma runs clean`
        try:
            configuration_of(record)
            refuse_what_cannot_be_resumed(record, settings.training.checkpoint.folder)
        except ModelError as error:
            log.info("Not resumed: %s", error)
            continue
        return record.id
    log.info("No interrupted run has this configuration; a new one starts")
    return None


@contextmanager
def claimed(run_id: str | None) -> Iterator[None]:
    """Keep other processes of this machine from resuming or cleaning a run within the context; None for a new run.

    Raises:
        ModelError: If another process resumes it.
    """
    if run_id is None:
        yield
        return
    home = home_of(None)
    home.mkdir(parents=True, exist_ok=True)
    path = home / f".{run_id}.lock"
    try:
        with FileLock(path, timeout=0):
            yield
            path.unlink(missing_ok=True)
    except Timeout as error:
        raise ModelError(f"Another process resumes this run at the moment. Received: resume={run_id}") from error
