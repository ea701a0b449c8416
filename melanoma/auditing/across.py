"""Comparison of two data sets. Many public data sets contain resized, cropped or recompressed copies of one image."""

from collections.abc import Collection, Sequence

import pandas as pd

from melanoma.auditing.inspection import recalled
from melanoma.auditing.near import near_duplicates
from melanoma.data.groups import related_rows

__all__ = ["copies_among", "seen_among"]


def copies_among(digests: Sequence[str], others: Sequence[str], similarity: float | None) -> tuple[set[str], int]:
    """Find the images that are copies of images of another set.

    The comparison uses the cached results of audits on this machine. Images that have not been audited are compared by
    their bytes only.

    Args:
        digests: SHA-256 of the images.
        others: SHA-256 of the images of the other set.
        similarity: Similarity from which two images are near duplicates; see `AuditConfig`. None finds only exact
            duplicates.

    Returns:
        SHA-256 of the images that are copies, and the number of images of both sets that could be compared by their
        bytes only.
    """
    pixels, thumbnails = recalled({*digests, *others})
    own = pixels[pixels.index.isin(digests)]
    theirs = set(pixels[pixels.index.isin(others)])
    alike = theirs
    if similarity is not None and len(own):
        first = ~pixels.duplicated().to_numpy()
        unique = pixels[first].to_numpy()
        pairs, scores = near_duplicates(thumbnails[first], list(unique))
        close = pd.DataFrame(unique[pairs[scores >= similarity]].reshape(-1, 2))
        alike = theirs | set(close[0][close[1].isin(theirs)]) | set(close[1][close[0].isin(theirs)])
    found = {*digests} & {*others} | set(own.index[own.isin(alike)])
    return found, len({*digests, *others}) - len(pixels)


def seen_among(table: pd.DataFrame, seen: Collection[str], similarity: float | None) -> tuple[pd.Series, int]:
    """Find the rows of an audit's table that are seen images, copies of these, or images of their lesions or patients.

    Args:
        table: Table of an audit.
        seen: SHA-256 of the seen images.
        similarity: See `copies_among`.

    Returns:
        True for each such row, and the number of images that could be compared by their bytes only.
    """
    found, not_compared = copies_among(list(table.sha256), sorted(seen), similarity)
    return related_rows(table, table.sha256.isin(found)), not_compared
