"""Audit of a data source, which reads every image once."""

import logging
from pathlib import Path

import numpy as np

from melanoma.auditing.across import copies_among
from melanoma.auditing.findings import Audit, find
from melanoma.auditing.inspection import Inspection, inspect_files
from melanoma.auditing.near import near_duplicates
from melanoma.config.schema import ArchiveConfig, AuditConfig
from melanoma.data.digests import file_digests, unread_reasons
from melanoma.data.sources import Source, image_files, open_path
from melanoma.errors import DataError
from melanoma.terminal import stage

__all__ = ["audit_source"]

log = logging.getLogger("melanoma")


@stage("Auditing the images")
def audit_source(source: Source, settings: AuditConfig, max_megapixels: float) -> Audit:
    """Audit a data set. The results of reading the images are cached.

    Args:
        source: The images as delivered.
        settings: Problems to look for.
        max_megapixels: Larger images count as unreadable.
    """
    table = source.table.copy()
    table["sha256"], inspection = _inspect(source.root, list(table.path), max_megapixels)
    readable = table.sha256.isin(inspection.facts.index)
    reason = table.sha256.map(inspection.reasons).astype(object).fillna(unread_reasons(source.root, table))
    unreadable = table[["path", "label"]].assign(reason=reason)[~readable].reset_index(drop=True)
    pairs = np.empty((0, 2), np.int64)
    if settings.near_duplicates:
        first = ~inspection.facts.pixels.duplicated().to_numpy()
        pairs, similarity = near_duplicates(inspection.thumbnails[first], list(inspection.facts.pixels[first]))
        pairs = pairs[similarity >= settings.similarity]
    table = table[readable].reset_index(drop=True)
    others = _contents_of(settings.exclude, max_megapixels)
    excluded: set[str] = set()
    if others:
        least = settings.similarity if settings.near_duplicates else None
        excluded, unseen = copies_among(list(table.sha256), others, least)
        if unseen:
            log.warning("%d images of audit.exclude cannot be decoded: only files equal to them are found", unseen)
    return find(source, table, unreadable, inspection, pairs, settings.odd, excluded)


def _inspect(root: Path, paths: list[str], max_megapixels: float) -> tuple[list[str | None], Inspection]:
    """Return the SHA-256 of each file, or None if it cannot be read, and the inspection of their contents."""
    digests = file_digests(root, paths)
    permitted = [(root / path, digest) for path, digest in zip(paths, digests, strict=True) if digest is not None]
    files, contents = [file for file, _ in permitted], [digest for _, digest in permitted]
    return digests, inspect_files(files, contents, max_pixels=max_megapixels * 1e6)


def _contents_of(paths: list[str], max_megapixels: float) -> list[str]:
    """Inspect all images in some folders and archives, and return their SHA-256."""
    contents: list[str] = []
    for path in paths:
        folder = open_path(path, ArchiveConfig(), key="audit.exclude")
        files = image_files(folder)
        if len(files) == 0:
            raise DataError(f"audit.exclude names a folder or an archive without images. Received: {path}")
        names = [str(file.relative_to(folder)) for file in files]
        digests = [digest for digest in _inspect(folder, names, max_megapixels)[0] if digest is not None]
        if len(digests) == 0:
            raise DataError(f"None of the images of audit.exclude may be read. Received: {path}")
        contents += digests
    return contents
