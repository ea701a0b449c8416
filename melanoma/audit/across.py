"""Images of one set among those of another: the same picture is in many public sets, resized, cropped or saved anew."""

from collections.abc import Collection, Sequence

import pandas as pd

from melanoma.audit.inspection import recalled
from melanoma.audit.near import near_duplicates
from melanoma.data.groups import related_rows

__all__ = ["copies_among", "seen_among"]


def copies_among(digests: Sequence[str], others: Sequence[str], similarity: float | None) -> tuple[set[str], int]:
    """Which images are, or are near duplicates of, some of another set.

    Images are compared by what audits on this machine have kept of them; those that none has seen, by their bytes only.

    Args:
        digests: SHA-256 of the images asked about.
        others: SHA-256 of the images of the other set.
        similarity: from which on two images are near duplicates, see `AuditConfig`; None for equal pictures only.

    Returns:
        SHA-256 of those that are, and how many images of either set could be compared by their bytes only.
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
    """Which rows of an audit's table were seen, as they are, as a copy, or by another image of their lesion or patient.

    Args:
        table: of an audit.
        seen: SHA-256 of the images that were.
        similarity: see `copies_among`.

    Returns:
        True for each such row, and how many images could be compared by their bytes only.
    """
    found, not_compared = copies_among(list(table.sha256), sorted(seen), similarity)
    return related_rows(table, table.sha256.isin(found)), not_compared
