"""Data sets for training: listed, decoded, cleaned, split and balanced."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma.config.schema import BalanceConfig, DataConfig
from melanoma.data.balance import augment_files
from melanoma.data.digests import data_fingerprint, file_digests, unread_reasons
from melanoma.data.groups import connected_groups
from melanoma.data.images import ImageStore, decode_images
from melanoma.data.sources import Source, open_path
from melanoma.data.split import REMOVED, refuse_overlap
from melanoma.data.split_file import split_hash
from melanoma.errors import DataError
from melanoma.terminal import stage

__all__ = [
    "CLASS_LEFT_OUT",
    "Dataset",
    "add_augmented",
    "load_images",
    "open_source",
    "with_groups",
    "with_split",
    "without_classes",
    "without_rows",
]

log = logging.getLogger("melanoma")
CLASS_LEFT_OUT = "class left out"  # reason for removal
_REMOVED = ["path", "label", "sha256", "reason"]


@dataclass(frozen=True)
class Dataset:
    """Images with their labels and metadata.

    Attributes:
        name: Name of the data config.
        root: Folder that `path` is relative to.
        classes: Class names in the order of the model's outputs.
        table: One row per readable image: `path`, `label`, `part`, `parent` (for an augmented image, else empty),
            `sha256`, `target` (class index), `row` (index in `store`), any metadata columns, and after the audit
            `cluster` (the same number for all copies of an image) and `group` (the same number for images that must
            stay in one part).
        quarantined: Unreadable images: `path`, `label`, `reason`.
        removed: Readable images that were removed: `path`, `label`, `sha256`, `reason`.
        store: Decoded pixels.
        fingerprint: Fingerprint of the readable images as delivered.
    """

    name: str
    root: Path
    classes: list[str]
    table: pd.DataFrame
    quarantined: pd.DataFrame
    removed: pd.DataFrame
    store: ImageStore
    fingerprint: str

    def part(self, name: str) -> pd.DataFrame:
        """Return the rows of one part: `train`, `validation` or `test`."""
        return self.table[self.table.part == name]

    @property
    def split_hash(self) -> str:
        """Hash of the content and label of the images in each part, without augmented images."""
        return split_hash(self.table[self.table.parent == ""])

    def pixels(self, rows: pd.DataFrame) -> NDArray[np.uint8]:
        """Return the decoded pixels of some rows of the table, shape (len(rows), size, size, 3)."""
        return self.store.read(rows.row.to_numpy())


def open_source(build_source: Callable[..., Source], settings: DataConfig) -> Source:
    """List the images of a data set without reading them.

    Args:
        build_source: Function that is called with `path` (the folder or None) and `classes`.
        settings: Location of the images.

    Raises:
        DataError: If there are no usable images at `data.path`.
    """
    folder = None if settings.path is None else open_path(settings.path, settings.archive)
    classes = settings.classes
    return build_source(path=folder, classes=classes if classes is None or isinstance(classes, int) else list(classes))


@stage("Decoding the images")
def load_images(source: Source, settings: DataConfig, least: int = 2) -> Dataset:
    """Decode every image once into the cache, and quarantine unreadable images.

    Args:
        source: The images as delivered.
        settings: How to decode the images.
        least: Minimum number of readable images in each class that is not in `data.leave_out`.

    Raises:
        DataError: If the share of unreadable images exceeds `data.max_quarantined`, or a class has too few readable
            images.
    """
    table = source.table.copy()
    table["sha256"] = file_digests(source.root, list(table.path))
    readable = table[table.sha256.notna()]
    store, rows, reasons = decode_images(
        [source.root / path for path in readable.path],
        list(readable.sha256),
        size=settings.image_size,
        resize=settings.resize,
        max_pixels=settings.max_megapixels * 1e6,
    )
    reason = unread_reasons(source.root, table)
    reason = pd.concat([reason, pd.Series({readable.index[i]: why for i, why in reasons.items()}, dtype=object)])
    quarantined = table.loc[reason.index, ["path", "label"]].assign(reason=reason).sort_values("path")
    _check_quarantine(quarantined, len(table), settings.max_quarantined)
    table = readable.assign(row=pd.array(rows, dtype="Int64")).dropna(subset="row")
    table = table.astype({"row": np.int64}).reset_index(drop=True)
    table["target"] = table.label.map({label: i for i, label in enumerate(source.classes)}).astype(np.int64)
    table["parent"] = ""
    _check_sizes(table, source, least, settings.leave_out)
    removed = pd.DataFrame(columns=_REMOVED, dtype=object)
    fingerprint = data_fingerprint(table)
    return Dataset(settings.name, source.root, source.classes, table, quarantined, removed, store, fingerprint)


def with_groups(dataset: Dataset, clusters: pd.Series, columns: list[str]) -> Dataset:
    """Return the data set with the columns `cluster` and `group`.

    Args:
        dataset: The data set as loaded.
        clusters: Number of the cluster of each image, by path. An image without a number gets its own cluster.
        columns: See `melanoma.data.groups.connected_groups`. If empty, each image is its own group.
    """
    found = dataset.table.path.map(clusters)
    alone = found.isna()
    found[alone] = -1 - np.arange(int(alone.sum()))
    table = dataset.table.assign(cluster=found.astype(np.int64))
    return replace(dataset, table=table.assign(group=connected_groups(table, columns)))


def without_rows(dataset: Dataset, reasons: pd.Series) -> Dataset:
    """Return the data set without some rows, and list these in `removed`.

    Args:
        dataset: The data set.
        reasons: Reason for the removal of each row, by the index of `dataset.table`; empty for rows to keep.
    """
    removed_rows = reasons != ""
    removed = dataset.table[removed_rows].assign(reason=reasons[removed_rows])[_REMOVED]
    table = dataset.table[~removed_rows].reset_index(drop=True)
    return replace(dataset, table=table, removed=pd.concat([dataset.removed, removed], ignore_index=True))


def without_classes(dataset: Dataset, labels: Collection[str]) -> Dataset:
    """Return the data set without some classes and their images."""
    dataset = without_rows(dataset, dataset.table.label.isin(labels).map({True: CLASS_LEFT_OUT, False: ""}))
    classes = [label for label in dataset.classes if label not in labels]
    targets = dataset.table.label.map({label: i for i, label in enumerate(classes)}).astype(np.int64)
    return replace(dataset, classes=classes, table=dataset.table.assign(target=targets))


def with_split(dataset: Dataset, parts: pd.Series) -> Dataset:
    """Return the data set with the part of each row, without the rows whose part is `removed`.

    Raises:
        DataError: If a group is in more than one part.
    """
    reasons = (parts == REMOVED).map({True: "related to a held-out image", False: ""})
    dataset = without_rows(replace(dataset, table=dataset.table.assign(part=parts)), reasons)
    refuse_overlap(dataset.table)
    return dataset


def add_augmented(dataset: Dataset, settings: BalanceConfig, *, resize: str, seed: int) -> Dataset:
    """Add images that Augmentor generates from the training images. The column `parent` is the path of the original."""
    folder, made = augment_files(dataset.root, dataset.part("train"), settings, seed)
    made = made.assign(sha256=file_digests(folder, list(made.path)), part="train")
    store, rows, _ = decode_images(
        [folder / path for path in made.path],
        list(made.sha256),
        size=dataset.store.size,
        resize=resize,
        max_pixels=float("inf"),
    )
    made["row"] = np.asarray(rows, dtype=np.int64) + len(dataset.store)
    made["target"] = made.label.map({label: i for i, label in enumerate(dataset.classes)}).astype(np.int64)
    parents = dataset.table.set_index("path")
    for column in ("cluster", "group", "lesion", "patient"):
        if column in parents:
            made[column] = made.parent.map(parents[column])
    made["path"] = "augmentor/" + made.path
    table = pd.concat([dataset.table, made], ignore_index=True)
    return replace(dataset, table=table, store=dataset.store.joined(store))


def _check_quarantine(quarantined: pd.DataFrame, images: int, allowed: float) -> None:
    for row in quarantined.itertuples():
        log.warning("Quarantined %s: %s", row.path, row.reason)
    if len(quarantined) > allowed * images:
        listed = "; ".join(f"{row.path}: {row.reason}" for row in quarantined.head(5).itertuples())
        raise DataError(
            f"{len(quarantined)} of {images} images cannot be read, more than data.max_quarantined={allowed:g} allows. "
            f"Mend or remove them, or raise that share. Received: {listed}{' ...' if len(quarantined) > 5 else ''}"
        )


def _check_sizes(table: pd.DataFrame, source: Source, least: int, leave_out: Collection[str]) -> None:
    kept = [label for label in source.classes if label not in leave_out]
    counts = table.label.value_counts().reindex(kept, fill_value=0)
    small = counts[counts < least]
    if len(small):
        listed = ", ".join(f"'{label}': {count}" for label, count in small.items())
        raise DataError(
            f"Each class needs at least {least} readable images, and enough for its part of the split; add images or "
            f"leave the class out by data.leave_out. Received: {listed} in {source.root}"
        )
