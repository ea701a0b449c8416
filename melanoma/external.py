"""Evaluating a saved model on any data source, without the images it was trained or tuned on."""

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from omegaconf import DictConfig, OmegaConf

from melanoma.audit.across import seen_among
from melanoma.config.command_schema import EvaluateConfig
from melanoma.config.launch import typed
from melanoma.config.schema import AuditConfig, DataConfig
from melanoma.data.dataset import Dataset, without_classes
from melanoma.data.progress import TerminalProgress
from melanoma.data.sources import Source
from melanoma.errors import DataError
from melanoma.paths import cache_dir
from melanoma.pipeline import Result
from melanoma.protocol import joined_protocol
from melanoma.source_checks import check_views, kept_classes
from melanoma.stages import audited, decoded, read_source
from melanoma.terminal import log_to, quiet_native_imports
from melanoma.tracking.store import open_store, recorded

__all__ = ["evaluate_saved", "questions_of"]

log = logging.getLogger("melanoma")
_SOURCES = {
    "melanoma.data.sources.class_folders",
    "melanoma.data.sources.synthetic",
    "melanoma.data.tables.metadata_table",
}


def evaluate_saved(config: DictConfig, overrides: list[str], folder: Path) -> Result:
    """Evaluate a saved model into a new run, linked to the run that trained it.

    Without other data these are the test images of that run. Of other data, images that stand in the training or
    validation part of that run, or of one whose weights it began from, are left out, and copies of such. `include_seen`
    evaluates all, and is written on the run as its protocol.

    Args:
        config: the composed configuration of `melanoma evaluate`.
        overrides: as given on the command line.
        folder: for the run's log file.

    Raises:
        ModelError: there is no such model.
        DataError: the data has classes that the model does not know, or nothing but images it has seen.
    """
    log_file = log_to(folder, "evaluate")
    settings: EvaluateConfig = typed(EvaluateConfig, config)
    with quiet_native_imports():
        from melanoma.evaluation.evaluate import evaluate
        from melanoma.evaluation.predict import predict_probabilities
        from melanoma.summary import show_result
        from melanoma.tracking import log as tracking_log
        from melanoma.tracking.card import log_card
        from melanoma.tracking.log_config import log_config
        from melanoma.tracking.log_evaluation import log_evaluations
        from melanoma.tracking.model_store import model_address
        from melanoma.tracking.models import images_seen_by, load_saved_model, metrics_of_run, protocol_of, split_of
        from melanoma.tracking.run import by_own_names, tracked_run

    uri = open_store(settings.tracking.uri)
    address = model_address(settings.saved_model or settings.run or "")
    saved = load_saved_model(address)
    data = settings.data or _data_of(saved.run_id)
    data = replace(data, image_size=saved.image_size, resize=saved.resize, views=questions_of(saved.run_id, data.views))
    source = read_source(data)
    kept_classes(data, source.classes, least=1)
    check_views(data.views, saved.classes)
    # Beside the result on other images stands the one on the test images of the training run.
    internal = metrics_of_run(saved.run_id) if settings.data is not None and saved.run_id else {}
    seen, unknown = (
        (set(), False) if settings.include_seen else images_seen_by(saved.run_id, selected=settings.data is not None)
    )
    if settings.data is None:  # what the run took, its own test images have behind them
        protocol = protocol_of(saved.run_id)
    else:
        protocol = "seen_images_unknown" if unknown else "clean"
        if seen:
            seen, compared = _with_copies(source, seen, data.max_megapixels)
            protocol = joined_protocol(protocol, "" if compared else "near_duplicates_ignored")
    if settings.include_seen:
        protocol = joined_protocol(protocol, "seen_images")
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    if resolved.get("data") is None:
        resolved["data"] = asdict(data)
    resolved["data"]["views"] = data.views
    with tracked_run(
        uri=uri,
        experiment=settings.tracking.experiment,
        name=settings.tracking.run_name,
        system_metrics=settings.tracking.system_metrics,
        tags={
            "melanoma.task": data.name,
            "melanoma.protocol": protocol,
            "melanoma.evaluated_model": address,
            **({"melanoma.evaluated_run": saved.run_id, "mlflow.parentRunId": saved.run_id} if saved.run_id else {}),
        },
    ) as run:
        try:
            log_config(run, resolved, overrides)
            dataset = _as_test(without_classes(decoded(data, source, least=1), data.leave_out), saved.classes)
            images = len(dataset.table)
            if settings.data is None and not settings.include_seen:
                dataset = _tested_by(dataset, split_of(str(saved.run_id)))
            dataset = _without(dataset, seen)
            run.log_metrics({"data/seen_left_out": images - len(dataset.table)})
            tracking_log.log_dataset(run, dataset, data.path or data.name)
            probabilities = predict_probabilities(
                saved.keras_model,
                dataset.store,
                dataset.table.row.to_numpy(),
                batch_size=settings.evaluation.batch_size,
            )
            evaluation = evaluate(
                "test",
                dataset.table,
                probabilities,
                saved.classes,
                views=data.views,
                resamples=settings.evaluation.bootstrap,
                confidence=settings.evaluation.confidence,
                seed=settings.seed,
            )
            beside = by_own_names(internal, [f"test/{name}" for name in evaluation.metrics])
            run.log_metrics({f"internal/{name.removeprefix('test/')}": value for name, value in beside.items()})
            internal = {**internal, **beside}
            log_evaluations(
                run,
                [evaluation],
                protocol=protocol,
                dataset=dataset,
                settings=settings.evaluation,
                seed=settings.seed,
                model=saved.keras_model,
                decisions=saved.decisions,
                internal=internal,
            )
            if saved.run_id is not None and settings.data is not None:
                log_card(run, trained_by=saved.run_id)
        finally:
            run.log_file(str(log_file), "logs")
    show_result([evaluation], run.id, uri, None, internal)
    return Result(run.id, [evaluation], address, protocol)


def _with_copies(source: Source, seen: set[str], max_megapixels: float) -> tuple[set[str], bool]:
    """What was seen, with copies and relatives of it in the source, and whether all could be compared."""
    settings = AuditConfig()
    own = audited(source, settings, max_megapixels).table
    rows, not_compared = seen_among(
        own, seen, similarity=settings.similarity, cache=cache_dir(), progress=TerminalProgress()
    )
    if not_compared:
        log.warning(
            "%d images that the model was trained on have not been audited on this machine, so that copies were "
            "not looked for; run `melanoma audit` of its data set here, and evaluate again", not_compared,
        )  # fmt: skip
    return seen | set(own.sha256[rows]), not not_compared


def questions_of(run_id: str | None, views: dict[str, list[str]]) -> dict[str, list[str]]:
    """The questions that a model was trained and tuned for, and those of the data that have other names."""
    from mlflow.exceptions import MlflowException

    from melanoma.tracking.predictions import config_of

    try:
        own = config_of(str(run_id))["data"].get("views") or {}
    except (MlflowException, OSError, KeyError, TypeError):
        return views
    for name in own:
        if name in views and set(own[name]) != set(views[name]):
            log.warning(
                "%s is asked as the model was tuned for it: %s; the data's own question is %s",
                name, ", ".join(own[name]), ", ".join(views[name]),
            )  # fmt: skip
    return {**views, **{str(name): [str(label) for label in labels] for name, labels in own.items()}}


def _data_of(run_id: str | None) -> DataConfig:
    """The data config of the run that trained a model. Only this project's own sources are built from it."""
    from melanoma.tracking.run import flattened

    if run_id is None:
        raise DataError(
            "The model does not say which run trained it; name the images, as in data=folder data.path=FOLDER"
        )
    text = recorded(run_id, "config/resolved.yaml")
    if not text:
        raise DataError(f"The run has no config/resolved.yaml; name the images with data=... Received: {run_id}")
    stored = yaml.safe_load(text)["data"]
    targets = [value for key, value in flattened(stored).items() if key.rsplit(".", 1)[-1] == "_target_"]
    if targets != [stored["source"].get("_target_")] or targets[0] not in _SOURCES or "${" in text:
        raise DataError(
            "The run's data source is not one of this project's own, and what a stored run names is not executed; name "
            f"the images yourself with data=... Received: {', '.join(map(str, targets))} in run {run_id}"
        )
    return typed(DataConfig, OmegaConf.create(stored))


def _as_test(dataset: Dataset, classes: list[str]) -> Dataset:
    """All images as the test set, their targets by the model's order of classes."""
    unknown = sorted(set(dataset.classes) - set(classes))
    if unknown:
        raise DataError(
            f"The model does not know {', '.join(repr(c) for c in unknown)}; its classes are {', '.join(classes)}. "
            f"Rename those folders, or leave them out by data.leave_out. Received: {', '.join(dataset.classes)}"
        )
    targets = dataset.table.label.map({label: i for i, label in enumerate(classes)})
    return replace(dataset, classes=classes, table=dataset.table.assign(part="test", target=targets.astype("int64")))


def _tested_by(dataset: Dataset, split: pd.DataFrame) -> Dataset:
    """The test images of a run, with what it knew of their groups."""
    tested = split[split.part == "test"].set_index("path")
    made = int((tested.parent != "").sum())
    if made:
        raise DataError(
            "The run's test set holds files that were made by augmentation before the split, which are not kept; name "
            f"other images with data=... Received: {made} such files of {len(tested)}"
        )
    rows = dataset.table[dataset.table.path.isin(tested.index)]
    rows = rows[rows.sha256 == rows.path.map(tested.sha256)]
    if len(rows) < len(tested):
        raise DataError(
            "The images are no longer those that the run was tested on; name other images with data=... "
            f"Received: {len(rows)} of {len(tested)} test images in {dataset.root}"
        )
    if "group" in tested:
        rows = rows.assign(group=rows.path.map(tested.group))
    return replace(dataset, table=rows.reset_index(drop=True))


def _without(dataset: Dataset, seen: set[str]) -> Dataset:
    known = dataset.table.sha256.isin(seen)
    if known.all():
        raise DataError(
            "The model was trained or tuned on every one of these images; give others, or include_seen=true. "
            f"Received: {len(known)} images, all seen"
        )
    if known.any():
        log.warning("%d of %d images were left out: the model was trained or tuned on them", known.sum(), len(known))
    return replace(dataset, table=dataset.table[~known].reset_index(drop=True))
