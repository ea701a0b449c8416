"""An audit of a data source: reads every image once, then puts the findings together."""

import os
from pathlib import Path

import numpy as np

from melanoma.audit.findings import Audit, find
from melanoma.audit.inspection import inspect_files
from melanoma.audit.near import near_duplicates
from melanoma.config.schema import AuditConfig
from melanoma.data.digests import file_digests
from melanoma.data.progress import Progress
from melanoma.data.sources import Source

__all__ = ["audit_source"]


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
    workers = len(os.sched_getaffinity(0))
    table = source.table.copy()
    table["sha256"] = file_digests(source.root, list(table.path), cache=cache, progress=progress, workers=workers)
    permitted = table[table.sha256.notna()]
    inspection = inspect_files(
        [source.root / path for path in permitted.path],
        list(permitted.sha256),
        max_pixels=max_megapixels * 1e6,
        cache=cache,
        progress=progress,
        workers=workers,
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
    return find(source, table[readable].reset_index(drop=True), unreadable, inspection, pairs, settings.odd)
