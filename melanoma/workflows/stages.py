"""The stages of an experiment before training. Each takes the configuration and the result of the previous stage."""

import logging
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pandas as pd
from hydra.errors import HydraException, InstantiationException
from hydra.utils import UNSAFE_DISABLE_EXECUTION_CHECKS, instantiate

from melanoma.auditing.audit import audit_source
from melanoma.auditing.findings import Audit
from melanoma.auditing.policy import apply_policy, contradicting
from melanoma.config.schema import FOLDED, DataConfig, TrainConfig
from melanoma.data.corrections import with_corrections
from melanoma.data.dataset import (
    CLASS_LEFT_OUT,
    Dataset,
    add_augmented,
    load_images,
    open_source,
    with_groups,
    with_split,
    without_classes,
    without_rows,
)
from melanoma.data.groups import group_columns
from melanoma.data.sources import Source
from melanoma.data.split import (
    fold_parts,
    left_out_parts,
    split_parts,
    values_left_out,
)
from melanoma.data.split_file import read_split
from melanoma.data.tables import with_metadata
from melanoma.errors import ConfigError, DataError, MelanomaError
from melanoma.lineage.contamination import Seen, TrainedOn, images_seen
from melanoma.paths import user_path
from melanoma.terminal import stage

__all__ = [
    "balance",
    "build",
    "clean",
    "clean_images",
    "folds_of",
    "number_of_folds",
    "prepare_dataset",
    "prepare_once",
    "read_source",
    "seen_by",
    "split_images",
]

log = logging.getLogger("melanoma")


@stage("Listing the images")
def read_source(settings: DataConfig) -> Source:
    """List the images of a data configuration, with their metadata."""
    source = open_source(partial(build, "data.source", settings.source), settings)
    columns = asdict(settings.metadata)
    path = columns.pop("path")
    if path is not None:
        source = with_metadata(source, path, **columns)
    if settings.corrections is not None:
        source = with_corrections(source, user_path(settings.corrections))
    for note in source.notes:
        log.warning("%s", note)
    return source


def prepare_once(settings: TrainConfig, source: Source) -> tuple[Audit, Dataset]:
    """Audit, decode, clean, split and balance the images; see `prepare_dataset`."""
    audit = audit_source(source, settings.audit, settings.data.max_megapixels)
    return audit, prepare_dataset(settings, source, audit)


def clean_images(settings: TrainConfig, source: Source) -> tuple[Audit, Dataset]:
    """Audit, decode and clean the images, before they are split into folds."""
    audit = audit_source(source, settings.audit, settings.data.max_megapixels)
    return audit, clean(settings, load_images(source, settings.data), audit)


def clean(settings: TrainConfig, dataset: Dataset, audit: Audit) -> Dataset:
    """Group images, and remove copies, images with contradicting labels, excluded images, and left-out classes.

    Classes are left out last, so that an image that also has the label of a left-out class is still a label conflict.
    """
    dataset = without_classes(_without_copies(settings, dataset, audit), settings.data.leave_out)
    empty = [label for label in dataset.classes if not (dataset.table.label == label).any()]
    if empty:
        removed = dataset.removed[dataset.removed.label.isin(empty)]
        raise DataError(
            f"No image is left of class {', '.join(map(repr, empty))}; use data.leave_out, or relax `audit`. "
            f"Received: {removed.groupby('label').reason.value_counts().to_dict()}"
        )
    return dataset


def _without_copies(settings: TrainConfig, dataset: Dataset, audit: Audit) -> Dataset:
    seen = audit.table.set_index("path")
    # A delivered test set stays complete, because it is not used for training and its results are compared with others.
    delivered = settings.split.method in ("auto", "official") and bool((dataset.table.part == "test").any())
    excluded = dataset.table.path.isin(audit.excluded.path) & ~((dataset.table.part == "test") & delivered)
    dataset = without_rows(dataset, excluded.map({True: "in an excluded set", False: ""}))
    if settings.protocol == "published":
        return with_groups(dataset, seen.cluster, [])
    dataset = with_groups(dataset, seen.cluster, group_columns(dataset.table, settings.split.group))
    found = {column: dataset.table.path.map(seen[column]) for column in ("pixels", "contradicts")}
    table = dataset.table.assign(pixels=found["pixels"], contradicts=found["contradicts"].fillna(False).astype(bool))
    if settings.split.file is not None:
        return replace(dataset, table=table.drop(columns="pixels"))  # the file determines the images
    return without_rows(dataset, apply_policy(table, settings.audit, keep_test=delivered))


def folds_of(settings: TrainConfig, table: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the part of each row in each run of a cross-validation, by the run's name."""
    chosen, seed = settings.split, _split_seed(settings)
    if chosen.method == "kfold":
        parts = fold_parts(table, chosen, seed)
        return {f"fold {number}": fold for number, fold in enumerate(parts, 1)}
    left_out = left_out_parts(table, chosen, seed)
    return {f"{chosen.column}={value}": parts for value, parts in left_out.items()}


def number_of_folds(settings: TrainConfig, source: Source) -> int:
    """Return the number of runs of a cross-validation; 0 for other splits, or for a single fold."""
    chosen = settings.split
    if chosen.method not in FOLDED or chosen.fold is not None:
        return 0
    return chosen.folds if chosen.method == "kfold" else len(values_left_out(source.table, str(chosen.column)))


def split_images(settings: TrainConfig, dataset: Dataset) -> Dataset:
    """Assign each image to training, validation or test."""
    chosen = settings.split
    if chosen.file is not None:
        left_out = dataset.removed.path[dataset.removed.reason == CLASS_LEFT_OUT]
        dataset = with_split(dataset, read_split(chosen.file, dataset.table, left_out))
        _refuse_conflicts(dataset.table, settings)
        return dataset
    if chosen.method in FOLDED:
        folds = list(folds_of(settings, dataset.table).values())
        if chosen.fold is None or chosen.fold > len(folds):
            raise ConfigError([f"split.fold must be from 1 to {len(folds)}. Received: split.fold={chosen.fold}"])
        return with_split(dataset, folds[chosen.fold - 1])
    return with_split(dataset, split_parts(dataset.table, chosen, _split_seed(settings)))


def _split_seed(settings: TrainConfig) -> int:
    return settings.seed if settings.split.seed is None else settings.split.seed


def _refuse_conflicts(table: pd.DataFrame, settings: TrainConfig) -> None:
    """Refuse a split file that includes images with contradicting labels, which the audit would remove."""
    if settings.protocol == "published" or settings.audit.conflicts == "keep":
        return
    several = contradicting(table)
    if several.any():
        raise DataError(
            "The split file uses copies of a picture under more than one label; leave them out of it, or keep them by "
            f"audit.conflicts=keep, which is tagged. Received: {several.sum()} such images in {settings.split.file}"
        )


def balance(settings: TrainConfig, dataset: Dataset) -> Dataset:
    """Add the augmented images of `balance=augmentor`; other settings of `balance` add no images."""
    if settings.balance.name != "augmentor":
        return dataset
    # Under the published protocol the added images are split, too, and are the same for all seeds of one split.
    seed = _split_seed(settings) if settings.protocol == "published" else settings.seed
    return add_augmented(dataset, settings.balance, resize=settings.data.resize, seed=seed)


def prepare_dataset(settings: TrainConfig, source: Source, audit: Audit) -> Dataset:
    """Decode, clean, split and balance the images."""
    dataset = clean(settings, load_images(source, settings.data), audit)
    if settings.protocol != "published":
        return balance(settings, split_images(settings, dataset))
    # The published protocol: files are added before the split, so validation has augmented copies of training images.
    delivered = dataset.table.part.where(dataset.table.part == "test", "train")
    if settings.split.method == "holdout":
        delivered[:] = "train"
    added = balance(settings, with_split(dataset, delivered))
    table = added.table.assign(
        group=range(len(added.table)), part=added.table.part.where(added.table.part == "test", "")
    )
    dataset = split_images(settings, replace(added, table=table))
    return _validated_on_test(dataset) if settings.split.published_validation == "test" else dataset


def _validated_on_test(dataset: Dataset) -> Dataset:
    """Use the test images for validation too, and return the drawn validation images to training."""
    table = dataset.table.assign(part=dataset.table.part.where(dataset.table.part == "test", "train"))
    return replace(dataset, table=pd.concat([table, dataset.part("test").assign(part="validation")], ignore_index=True))


def seen_by(run_id: str | None, *, selected: bool = True) -> Seen:
    """Return the images that the model of a run, and the models of its initial weights, were trained or tuned on.

    Args:
        run_id: ID of the run; None if the model does not record it.
        selected: Whether to include test images on whose results a run was selected.

    Raises:
        ModelError: If the run did not record its images.
    """
    from melanoma.tracking.records import ancestry

    if run_id is None:
        log.warning("The model does not record which run trained it, so the images it has seen are unknown.")
        return Seen(complete=False)
    found = ancestry(run_id)
    trained_on = [TrainedOn(record.split, record.protocol) for record in found.records]
    return images_seen(trained_on, complete=found.complete, selected=selected)


def build(key: str, node: dict[str, Any], **arguments: Any) -> Any:
    """Instantiate the `_target_` of a node, with the arguments of the node and additional ones.

    Raises:
        ConfigError: If it cannot be built from these arguments.
    """
    try:
        # The configuration belongs to the user, so it may use any installed object as a target.
        return instantiate(node, **arguments, _convert_="all", _execution_whitelist_=UNSAFE_DISABLE_EXECUTION_CHECKS)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, MelanomaError) or not isinstance(
            cause, TypeError | ValueError | ImportError | HydraException
        ):
            raise cause from error
        raise ConfigError([f"{key}: {str(cause).splitlines()[0]}. Received: {node}"]) from error
