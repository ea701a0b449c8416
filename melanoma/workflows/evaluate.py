"""Evaluation of a saved model on any data source, without the images that it was trained or tuned on."""

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from melanoma.auditing.audit import audit_source
from melanoma.config.command_schema import EvaluateConfig
from melanoma.config.launch import typed
from melanoma.config.schema import AuditConfig, DataConfig
from melanoma.data.dataset import Dataset, load_images, without_classes
from melanoma.data.sources import Source
from melanoma.errors import DataError
from melanoma.evaluation.metrics import default_primary_metric
from melanoma.lineage.contamination import Seen, with_copies
from melanoma.lineage.protocol import CLEAN, Protocol, Shortcut
from melanoma.terminal import log_to, quiet_native_imports
from melanoma.tracking.names import Artifact, Tag, metrics_named
from melanoma.tracking.store import downloaded, open_store, predict_command
from melanoma.workflows.experiment import Result
from melanoma.workflows.recalibrate import announce_recalibration, with_images_to_recalibrate
from melanoma.workflows.source_checks import check_binary_tasks, check_prevalence, kept_classes
from melanoma.workflows.stages import read_source, seen_by

if TYPE_CHECKING:
    from melanoma.tracking.models import SavedModel
    from melanoma.tracking.records import RunRecord

__all__ = ["binary_tasks_of", "evaluate_saved"]

log = logging.getLogger("melanoma")
_SOURCES = {
    "melanoma.data.sources.class_folders",
    "melanoma.data.sources.synthetic",
    "melanoma.data.tables.metadata_table",
}


def evaluate_saved(config: DictConfig, overrides: list[str], folder: Path) -> Result:
    """Evaluate a saved model in a new run, linked to the run that trained it.

    Without other data, the test images of the training run are evaluated. With other data, images in the training or
    validation part of that run, or of a run from whose weights it started, are left out, and so are copies of these
    images. `include_seen` evaluates all images and is recorded in the protocol of the run. `recalibrate` fits slope,
    intercepts and decisions on some of the images, evaluates the others, and saves the recalibrated model.

    Args:
        config: Composed configuration of `melanoma evaluate`.
        overrides: Overrides of the command line.
        folder: Folder for the run's log file.

    Raises:
        ModelError: If the model does not exist.
        DataError: If the data has classes that the model does not have, or only images that the model was trained or
            tuned on.
    """
    log_file = log_to(folder, "evaluate")
    settings: EvaluateConfig = typed(EvaluateConfig, config)
    with quiet_native_imports():
        from melanoma.evaluation.calibration import fit_recalibration
        from melanoma.evaluation.evaluate import bootstrap_of
        from melanoma.evaluation.predict import size_and_latency
        from melanoma.tracking import log as tracking_log
        from melanoma.tracking.log_config import log_config
        from melanoma.tracking.model_store import model_address
        from melanoma.tracking.models import load_saved_model
        from melanoma.tracking.run import logging_file, tracked_run
        from melanoma.workflows.card import log_card
        from melanoma.workflows.measure import log_measured, measure_model, save_measured
        from melanoma.workflows.summary import show_result

    uri = open_store(settings.tracking.uri)
    address = model_address(settings.saved_model or settings.run)
    saved = load_saved_model(address)
    trained = _record_of(saved)
    data = _data_for(settings, saved, trained)
    source = read_source(data)
    kept_classes(data, source.classes, least=1)
    check_binary_tasks(data.binary_tasks, saved.classes)
    check_prevalence(settings.evaluation.prevalence, data.binary_tasks, saved.classes)
    seen, protocol = _seen_and_protocol(settings, saved, trained, source, data)
    bootstrap = bootstrap_of(settings.evaluation, settings.seed)
    tags = _tags(data, protocol, address, saved, trained, recalibrate=settings.recalibrate is not None)
    name = settings.tracking.run_name or f"{'model' if trained is None else trained.name} on {data.name}"
    with tracked_run(uri, settings.tracking, tags=tags, name=name) as run, logging_file(run, log_file):
        log_config(run, _resolved(config, data), overrides)
        dataset, left_out = _test_images(settings, saved, trained, source, data, seen)
        run.log_measures({"data/seen_left_out": left_out})
        tracking_log.log_dataset(run, dataset, data.path or data.name)
        measured = measure_model(
            saved.keras_model,
            dataset,
            settings.evaluation,
            bootstrap,
            binary_tasks=data.binary_tasks,
            fit=None if settings.recalibrate is None else fit_recalibration,
            saved=saved,
        )
        evaluation = measured.evaluations[-1]
        # The test metrics of the training run, for comparison with those on other images.
        internal = trained.metrics if settings.data is not None and trained is not None else {}
        beside = metrics_named(internal, [f"test/{name}" for name in evaluation.metrics])
        run.log_measures({f"internal/{name.removeprefix('test/')}": value for name, value in beside.items()})
        internal = {**internal, **beside}
        log_measured(run, measured, dataset, settings.evaluation, bootstrap, protocol=protocol, internal=internal)
        if settings.recalibrate is not None:
            announce_recalibration(run, measured)
        if saved.run_id is not None and settings.data is not None:
            log_card(run, trained_by=saved.run_id if trained is None else _trained_first(trained))
        if settings.recalibrate is not None:
            run.log_measures(size_and_latency(measured.model, data.image_size))
            address = save_measured(measured, dataset, data, protocol)
    primary = tags[Tag.PRIMARY_METRIC]
    evaluations, model = measured.evaluations, None
    if settings.recalibrate is not None:
        model = f"{address}   ({predict_command(run.id, settings.tracking.uri)})"
    show_result(evaluations, run.id, uri, model, internal, measures=run.measures, primary=primary)
    return Result(run.id, evaluations, address, protocol, measures=run.measures)


def _record_of(saved: "SavedModel") -> "RunRecord | None":
    """Return the run that trained a model; None if it is not recorded or not in the store."""
    from melanoma.tracking.records import NotRecorded, RunRecord

    try:
        return None if saved.run_id is None else RunRecord.read(saved.run_id)
    except NotRecorded:
        return None


def _trained_first(record: "RunRecord") -> str:
    """Return the ID of the run that trained a model, if the given one recalibrated it."""
    from melanoma.tracking.records import RunRecord

    while Tag.EVALUATED_RUN in record.tags:
        record = RunRecord.read(record.tags[Tag.EVALUATED_RUN])
    return record.id


def _data_for(settings: EvaluateConfig, saved: "SavedModel", trained: "RunRecord | None") -> DataConfig:
    """Return the data configuration, with the image size, the resize method and the binary tasks of the model."""
    data = settings.data or _data_of(saved.run_id, trained)
    tasks = binary_tasks_of(trained, data.binary_tasks)
    return replace(data, image_size=saved.image_size, resize=saved.resize, binary_tasks=tasks)


def _tags(
    data: DataConfig,
    protocol: Protocol,
    address: str,
    saved: "SavedModel",
    trained: "RunRecord | None",
    *,
    recalibrate: bool,
) -> dict[str, str]:
    tags = {Tag.TASK: data.name, Tag.PROTOCOL: str(protocol), Tag.EVALUATED_MODEL: address}
    primary = default_primary_metric(len(saved.classes))
    # Runs of older versions have no primary metric; they were ranked by the AUC.
    tags[Tag.PRIMARY_METRIC] = primary if trained is None else trained.tags.get(Tag.PRIMARY_METRIC, "auc")
    if saved.run_id is not None:
        tags |= {Tag.EVALUATED_RUN: saved.run_id, Tag.PARENT: saved.run_id}
        if recalibrate:
            tags[Tag.WEIGHTS_RUN] = saved.run_id  # whose images the new model has seen, too
    if len(saved.classes) == 2:
        tags[Tag.POSITIVE] = saved.classes[-1]
    return tags


def _resolved(config: DictConfig, data: DataConfig) -> dict[str, Any]:
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    if resolved.get("data") is None:
        resolved["data"] = asdict(data)
    resolved["data"]["binary_tasks"] = data.binary_tasks
    return resolved


def _seen_and_protocol(
    settings: EvaluateConfig, saved: "SavedModel", trained: "RunRecord | None", source: Source, data: DataConfig
) -> tuple[set[str], Protocol]:
    """Return the SHA-256 of the images to leave out, and the protocol of the evaluation."""
    included = Protocol.of(Shortcut.SEEN_IMAGES) if settings.include_seen else CLEAN
    seen = Seen() if settings.include_seen else seen_by(saved.run_id, selected=settings.data is not None)
    if settings.data is None:  # the shortcuts of the run apply to its own test images
        own = Protocol.parse("unknown") if trained is None else trained.protocol
        return set(seen.images), own | included
    protocol = included if seen.complete else included | Protocol.of(Shortcut.SEEN_IMAGES_UNKNOWN)
    if not seen.images:
        return set(), protocol
    defaults = AuditConfig()
    table = audit_source(source, defaults, data.max_megapixels).table
    images, not_compared = with_copies(seen, table, defaults.similarity)
    if not_compared:
        log.warning(
            "%d images that the model was trained on have not been audited on this machine, so that copies were "
            "not looked for; run `melanoma audit` of its data set here, and evaluate again", not_compared,
        )  # fmt: skip
        protocol |= Protocol.of(Shortcut.NEAR_DUPLICATES_IGNORED)
    return images, protocol


def _test_images(
    settings: EvaluateConfig,
    saved: "SavedModel",
    trained: "RunRecord | None",
    source: Source,
    data: DataConfig,
    seen: set[str],
) -> tuple[Dataset, int]:
    """Return the images to evaluate, all in the test part, and the number of images that were left out."""
    decoded = without_classes(load_images(source, data, least=1), data.leave_out)
    dataset = _as_test(decoded, saved.classes)
    images = len(dataset.table)
    if settings.data is None and not settings.include_seen and trained is not None:
        dataset = _tested_by(dataset, trained.split)
    dataset = _without(dataset, seen)
    left_out = images - len(dataset.table)
    if settings.recalibrate is not None:
        clusters = audit_source(source, AuditConfig(), data.max_megapixels).table.set_index("path").cluster
        dataset = with_images_to_recalibrate(dataset, clusters, settings.recalibrate, settings.seed)
    return dataset, left_out


def binary_tasks_of(trained: "RunRecord | None", of_data: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the binary tasks of the model, and those of the data with other names."""
    from melanoma.tracking.records import NotRecorded

    try:
        own = {} if trained is None else trained.binary_tasks
    except NotRecorded:
        return of_data
    for name in own:
        if name in of_data and set(own[name]) != set(of_data[name]):
            log.warning(
                "Binary task %s is that of the model: %s; the data defines it as %s",
                name, ", ".join(own[name]), ", ".join(of_data[name]),
            )  # fmt: skip
    return {**of_data, **own}


def _data_of(run_id: str | None, trained: "RunRecord | None") -> DataConfig:
    """Return the data configuration of the run that trained a model, which must use a data source of this project."""
    from melanoma.config.arguments import flattened
    from melanoma.tracking.records import NotRecorded

    if run_id is None:
        raise DataError(
            "The model does not record which run trained it; name the images, as in data=folder data.path=FOLDER"
        )
    try:
        stored = {} if trained is None else trained.config["data"]
        text = "" if trained is None else trained.text(Artifact.CONFIG)
    except NotRecorded:
        stored = {}
    if not stored:
        raise DataError(f"The run has no config/resolved.yaml; name the images with data=... Received: {run_id}")
    targets = [value for key, value in flattened(stored).items() if key.rsplit(".", 1)[-1] == "_target_"]
    if targets != [stored["source"].get("_target_")] or targets[0] not in _SOURCES or "${" in text:
        raise DataError(
            "The run's data source is not one of this project's own, and what a stored run names is not executed; name "
            f"the images yourself with data=... Received: {', '.join(map(str, targets))} in run {run_id}"
        )
    data = typed(DataConfig, OmegaConf.create(stored))
    if data.corrections is None or trained is None:
        return data
    # The run's own copy, because the file may have changed since.
    trained.text(Artifact.CORRECTIONS)
    return replace(data, corrections=str(downloaded(f"runs:/{trained.id}/{Artifact.CORRECTIONS}")))


def _as_test(dataset: Dataset, classes: list[str]) -> Dataset:
    """Put all images in the test part, with targets in the model's order of classes."""
    unknown = sorted(set(dataset.classes) - set(classes))
    if unknown:
        raise DataError(
            f"The model does not have the classes {', '.join(repr(c) for c in unknown)}; its classes are "
            f"{', '.join(classes)}. Rename those folders, or leave them out by data.leave_out. "
            f"Received: {', '.join(dataset.classes)}"
        )
    targets = dataset.table.label.map({label: i for i, label in enumerate(classes)})
    return replace(dataset, classes=classes, table=dataset.table.assign(part="test", target=targets.astype("int64")))


def _tested_by(dataset: Dataset, split: pd.DataFrame) -> Dataset:
    """Select the test images of a run, with the groups that the run recorded."""
    tested = split[split.part == "test"].set_index("path")
    made = int((tested.parent != "").sum())
    if made:
        raise DataError(
            "The run's test set holds files that were made by augmentation before the split, which are not kept; name "
            f"other images with data=... Received: {made} such files of {len(tested)}"
        )
    rows = dataset.table[dataset.table.path.isin(tested.index)]
    rows = rows[(rows.sha256 == rows.path.map(tested.sha256)) & (rows.label == rows.path.map(tested.label))]
    if len(rows) < len(tested):
        raise DataError(
            "The images or their labels are no longer those that the run was tested on; name others with data=... "
            f"Received: {len(rows)} of {len(tested)} test images in {dataset.root}"
        )
    if "group" in tested:
        rows = rows.assign(group=rows.path.map(tested.group))
    return replace(dataset, table=rows.reset_index(drop=True))


def _without(dataset: Dataset, seen: set[str]) -> Dataset:
    known = dataset.table.sha256.isin(seen)
    if known.all():
        raise DataError(
            "The model was trained or tuned on all of these images; give others, or include_seen=true. "
            f"Received: {len(known)} images, all seen"
        )
    if known.any():
        log.warning("%d of %d images were left out: the model was trained or tuned on them", known.sum(), len(known))
    return replace(dataset, table=dataset.table[~known].reset_index(drop=True))
