"""Which images a model and its ancestors have seen, and what follows for a test set."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from melanoma.audit.across import seen_among
from melanoma.lineage.protocol import CLEAN, Protocol, Shortcut

__all__ = ["Contamination", "Seen", "TrainedOn", "contamination", "images_seen", "with_copies"]


class TrainedOn(NamedTuple):
    """The split of a run (`path`, `part`, `parent` and `sha256` of each image) and its protocol."""

    split: pd.DataFrame
    protocol: Protocol


@dataclass(frozen=True)
class Seen:
    """Images that a model, and those whose weights it began from, were trained or tuned on.

    Attributes:
        images: SHA-256 of each.
        complete: whether there are no others.
    """

    images: frozenset[str] = frozenset()
    complete: bool = True


@dataclass(frozen=True)
class Contamination:
    """What a test set shares with images that were seen before.

    Attributes:
        test_images: that were seen, as they are, as a copy, or by another image of their lesion or patient; None where
            it is not known of any image that it was seen.
        not_compared: images that could be compared by their bytes only, so that copies of them are not found.
        protocol: the shortcuts that follow.
    """

    test_images: int | None
    not_compared: int
    protocol: Protocol


def images_seen(ancestors: Iterable[TrainedOn], *, complete: bool, selected: bool = True) -> Seen:
    """What a run and its ancestors have seen.

    Args:
        ancestors: the run, then those whose weights it began from.
        complete: whether all ancestors are known.
        selected: count test images on whose results a run was selected.
    """
    seen: set[str] = set()
    for split, protocol in ancestors:
        chosen = ["train", "validation", *(["test"] if selected and Shortcut.SELECTED_ON_TEST in protocol else [])]
        used = split[split.part.isin(chosen)]
        # An image that only its augmented copies stand for was seen too.
        seen |= set(split.sha256[(split.parent == "") & split.path.isin({*used.path, *used.parent})])
        complete = complete and Shortcut.PRETRAINING_UNKNOWN not in protocol
    return Seen(frozenset(seen), complete)


def with_copies(seen: Seen, table: pd.DataFrame, similarity: float | None) -> tuple[set[str], int]:
    """Which images of an audit's table were seen, as they are, as a copy, or by another image of their lesion.

    Args:
        seen: the images.
        table: of an audit.
        similarity: see `melanoma.audit.across.copies_among`.

    Returns:
        SHA-256 of these and of all that were seen, and how many images could be compared by their bytes only.
    """
    rows, not_compared = seen_among(table, seen.images, similarity)
    return {*seen.images, *table.sha256[rows]}, not_compared


def contamination(seen: Seen, table: pd.DataFrame, test: pd.DataFrame, similarity: float | None) -> Contamination:
    """What a run's test images share with what its initial weights have seen.

    Args:
        seen: by the model whose weights the run starts from.
        table: of the audit of all images: one that the run has removed gives a test image of its lesion away too.
        test: rows of the test images: `path` and `parent`.
        similarity: see `melanoma.audit.across.copies_among`.
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
