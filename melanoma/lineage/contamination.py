"""Images that a model and its ancestors were trained or tuned on, and contamination of a test set by these images."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from melanoma.auditing.across import seen_among
from melanoma.lineage.protocol import CLEAN, Protocol, Shortcut

__all__ = ["Contamination", "Seen", "TrainedOn", "contamination", "images_seen", "with_copies"]


class TrainedOn(NamedTuple):
    """Split of a run (`path`, `part`, `parent` and `sha256` of each image), and its protocol."""

    split: pd.DataFrame
    protocol: Protocol


@dataclass(frozen=True)
class Seen:
    """Images that a model and its ancestors (the models whose weights it started from) were trained or tuned on.

    Attributes:
        images: SHA-256 of each image.
        complete: Whether these are all such images.
    """

    images: frozenset[str] = frozenset()
    complete: bool = True


@dataclass(frozen=True)
class Contamination:
    """Overlap of a test set with seen images.

    Attributes:
        test_images: Number of test images that are seen images, copies of these, or images of their lesions or
            patients; None if no seen image is known.
        not_compared: Number of images that could be compared by their bytes only, so that their copies are not found.
        protocol: The resulting shortcuts.
    """

    test_images: int | None
    not_compared: int
    protocol: Protocol


def images_seen(ancestors: Iterable[TrainedOn], *, complete: bool, selected: bool = True) -> Seen:
    """Collect the images that a run and its ancestors were trained or tuned on.

    Args:
        ancestors: The run, followed by the runs whose weights it started from.
        complete: Whether all ancestors are known.
        selected: Whether to include the test images of runs that were selected by test results.
    """
    seen: set[str] = set()
    for split, protocol in ancestors:
        chosen = ["train", "validation", *(["test"] if selected and Shortcut.SELECTED_ON_TEST in protocol else [])]
        used = split[split.part.isin(chosen)]
        # An image is also seen if only augmented images of it were used.
        seen |= set(split.sha256[(split.parent == "") & split.path.isin({*used.path, *used.parent})])
        complete = complete and Shortcut.PRETRAINING_UNKNOWN not in protocol
    return Seen(frozenset(seen), complete)


def with_copies(seen: Seen, table: pd.DataFrame, similarity: float | None) -> tuple[set[str], int]:
    """Extend the seen images by their copies, and other images of their lesions and patients, in an audit's table.

    Args:
        seen: Seen images.
        table: Table of an audit.
        similarity: See `melanoma.auditing.across.copies_among`.

    Returns:
        SHA-256 of all these images, and the number of images that could be compared by their bytes only.
    """
    rows, not_compared = seen_among(table, seen.images, similarity)
    return {*seen.images, *table.sha256[rows]}, not_compared


def contamination(seen: Seen, table: pd.DataFrame, test: pd.DataFrame, similarity: float | None) -> Contamination:
    """Compute the overlap of the test images of a run with the images behind its initial weights.

    Args:
        seen: Images that the model with the initial weights was trained or tuned on.
        table: Table of the audit of all images, including images that the run has removed, because these can connect a
            test image to a seen image.
        test: Columns `path` and `parent` of the test images.
        similarity: See `melanoma.auditing.across.copies_among`.
    """
    if not seen.images:
        return Contamination(None, 0, Protocol.of(Shortcut.PRETRAINING_UNKNOWN))
    rows, not_compared = seen_among(table, seen.images, similarity)
    known = set(table.path[rows])
    shared = int((test.path.isin(known) | test.parent.isin(known)).sum())
    not_compared = not_compared if similarity is not None else 0
    protocol = CLEAN
    if shared:
        protocol |= Protocol.of(Shortcut.PRETRAINED_ON_TEST)
    if not seen.complete or not_compared:
        protocol |= Protocol.of(Shortcut.PRETRAINING_UNKNOWN)
    return Contamination(shared, not_compared, protocol)
