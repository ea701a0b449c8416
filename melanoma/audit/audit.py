"""An audit of a data source: reads every image once, then puts the findings together."""

import logging
import os
from pathlib import Path

import numpy as np

from melanoma.audit.across import copies_among
from melanoma.audit.findings import Audit, find
from melanoma.audit.inspection import Inspection, inspect_files
from melanoma.audit.near import near_duplicates
from melanoma.config.schema import ArchiveConfig, AuditConfig
from melanoma.data.digests import file_digests
from melanoma.data.progress import Progress
from melanoma.data.sources import Source, image_files, open_path
from melanoma.errors import DataError

__all__ = ["audit_source"]

log = logging.getLogger("melanoma")


def audit_source(
    source: Source, settings: AuditConfig, *, max_megapixels: float, cache: Path, progress: Progress
) -> Audit:
    """Find out what is wrong with a data set. What is read of the images is kept in the cache.

    Args:
        source: the images as delivered.
        settings: what is looked for.
        max_megapixels: larger images count as unreadable.
        cache: the cache folder.
        progress: shows how far it is.
    """
    table = source.table.copy()
    table["sha256"], inspection = _looked_at(
        source.root, list(table.path), max_megapixels=max_megapixels, cache=cache, progress=progress
    )
    readable = table.sha256.isin(inspection.facts.index)
    reason = table.sha256.map(inspection.reasons).fillna("no permission to read it, or gone")
    unreadable = table[["path", "label"]].assign(reason=reason)[~readable].reset_index(drop=True)
    pairs = np.empty((0, 2), np.int64)
    if settings.near_duplicates:
        first = ~inspection.facts.pixels.duplicated().to_numpy()
        pairs, similarity = near_duplicates(
            inspection.thumbnails[first], list(inspection.facts.pixels[first]), cache=cache, progress=progress
        )
        pairs = pairs[similarity >= settings.similarity]
    table = table[readable].reset_index(drop=True)
    others = _contents_of(settings.exclude, max_megapixels=max_megapixels, cache=cache, progress=progress)
    excluded: set[str] = set()
    if others:
        least = settings.similarity if settings.near_duplicates else None
        excluded, unseen = copies_among(list(table.sha256), others, similarity=least, cache=cache, progress=progress)
        if unseen:
            log.warning("%d images of audit.exclude cannot be decoded: only files equal to them are found", unseen)
    return find(source, table, unreadable, inspection, pairs, settings.odd, excluded)


def _looked_at(
    root: Path, paths: list[str], *, max_megapixels: float, cache: Path, progress: Progress
) -> tuple[list[str | None], Inspection]:
    """SHA-256 of each file, None for one that may not be read, and what is seen of their contents."""
    workers = len(os.sched_getaffinity(0))
    digests = file_digests(root, paths, cache=cache, progress=progress, workers=workers)
    permitted = [(root / path, digest) for path, digest in zip(paths, digests, strict=True) if digest is not None]
    inspection = inspect_files(
        [file for file, _ in permitted],
        [digest for _, digest in permitted],
        max_pixels=max_megapixels * 1e6,
        cache=cache,
        progress=progress,
        workers=workers,
    )
    return digests, inspection


def _contents_of(paths: list[str], *, max_megapixels: float, cache: Path, progress: Progress) -> list[str]:
    """SHA-256 of all images in some folders and archives, once they are looked at."""
    archives = ArchiveConfig()
    contents: list[str] = []
    for path in paths:
        folder = open_path(
            path, key="audit.exclude", max_files=archives.max_files, max_bytes=archives.max_gigabytes * 1e9,
            cache=cache, progress=progress,
        )  # fmt: skip
        files = image_files(folder)
        if len(files) == 0:
            raise DataError(f"audit.exclude names a folder or an archive without images. Received: {path}")
        names = [str(file.relative_to(folder)) for file in files]
        found, _ = _looked_at(folder, names, max_megapixels=max_megapixels, cache=cache, progress=progress)
        digests = [digest for digest in found if digest is not None]
        if len(digests) == 0:
            raise DataError(f"None of the images of audit.exclude may be read. Received: {path}")
        contents += digests
    return contents
