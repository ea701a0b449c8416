"""Protocol of a run: `clean`, or the names of the shortcuts that it takes."""

import os
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from melanoma.config.schema import AuditConfig, TrainConfig

__all__ = ["CLEAN", "SHORTCUTS_VARIABLE", "Protocol", "Shortcut", "protocol_of"]

SHORTCUTS_VARIABLE = "MELANOMA_SHORTCUTS"  # environment variable with additional shortcuts of a trial
_KNOWN_WEIGHTS = (None, "none", "imagenet")


class Shortcut(StrEnum):
    """Shortcuts that make a result not clean, by their names in the tracking store."""

    PUBLISHED = "published"
    AUGMENTED_BEFORE_SPLIT = "augmented_before_split"
    VALIDATED_ON_TEST = "validated_on_test"
    DUPLICATES_IGNORED = "duplicates_ignored"
    GROUPS_IGNORED = "groups_ignored"
    LESIONS_IGNORED = "lesions_ignored"
    PATIENTS_IGNORED = "patients_ignored"
    NEAR_DUPLICATES_IGNORED = "near_duplicates_ignored"
    CONFLICTS_KEPT = "conflicts_kept"
    CONFLICTS_FIRST = "conflicts_first"
    PRETRAINING_UNKNOWN = "pretraining_unknown"
    PRETRAINED_ON_TEST = "pretrained_on_test"
    SELECTED_ON_TEST = "selected_on_test"
    SEEN_IMAGES = "seen_images"
    SEEN_IMAGES_UNKNOWN = "seen_images_unknown"
    DEBUG_OVERFIT = "debug_overfit"
    DEBUG_ONE_BATCH = "debug_one_batch"
    DEBUG_FEW_BATCHES = "debug_few_batches"


@dataclass(frozen=True)
class Protocol:
    """Shortcuts of a run, without repetition, in the order in which they were added.

    A name that was written by another version and is unknown to this version counts as a shortcut.
    """

    shortcuts: tuple[str, ...] = ()

    @classmethod
    def of(cls, *shortcuts: str) -> "Protocol":
        """Return a protocol of these shortcuts."""
        return cls(tuple(dict.fromkeys(str(one) for one in shortcuts)))

    @classmethod
    def parse(cls, text: str) -> "Protocol":
        """Parse the text in the tracking store: names separated by commas, or `clean`."""
        return cls.of(*(name for name in text.split(",") if name not in ("", "clean")))

    def __str__(self) -> str:
        return ",".join(self.shortcuts) or "clean"

    def __contains__(self, shortcut: str) -> bool:
        return shortcut in self.shortcuts

    def __or__(self, other: "Protocol") -> "Protocol":
        return Protocol.of(*self.shortcuts, *other.shortcuts)

    @property
    def is_clean(self) -> bool:
        """Whether no shortcut was taken."""
        return not self.shortcuts


CLEAN = Protocol()


def protocol_of(settings: TrainConfig, columns: pd.Index) -> Protocol:
    """Return the protocol of a run.

    Args:
        settings: The whole configuration.
        columns: Columns of the source's table. Shortcuts about lesions or patients require a column for these.
    """
    debug, audit, group = settings.debug, settings.audit, settings.split.group
    published = settings.protocol == "published"
    known = [name for name in ("lesion", "patient") if name in columns]
    taken = {
        Shortcut.PUBLISHED: published,
        Shortcut.AUGMENTED_BEFORE_SPLIT: published and settings.balance.name == "augmentor",
        Shortcut.VALIDATED_ON_TEST: published and settings.split.published_validation == "test",
        Shortcut.DUPLICATES_IGNORED: published,
        Shortcut.GROUPS_IGNORED: published or (group == "none" and bool(known)),
        Shortcut.LESIONS_IGNORED: not published and group == "patient" and "lesion" in known,
        Shortcut.PATIENTS_IGNORED: not published and group == "lesion" and "patient" in known,
        # Values above the default find fewer near duplicates; 1 finds none.
        Shortcut.NEAR_DUPLICATES_IGNORED: not published
        and (not audit.near_duplicates or audit.similarity > AuditConfig().similarity),
        Shortcut.CONFLICTS_KEPT: not published and audit.conflicts == "keep",
        Shortcut.CONFLICTS_FIRST: not published and audit.conflicts == "first",
        # A weights file does not record which images it was trained on.
        Shortcut.PRETRAINING_UNKNOWN: settings.model.weights not in _KNOWN_WEIGHTS
        and ":/" not in str(settings.model.weights),
        Shortcut.DEBUG_OVERFIT: debug.overfit,
        Shortcut.DEBUG_ONE_BATCH: debug.train_batches == 1 and not debug.overfit,
        Shortcut.DEBUG_FEW_BATCHES: (debug.train_batches or 0) > 1 and not debug.overfit,
    }
    # Shortcuts of the sweep, which a trial cannot detect.
    inherited = Protocol.parse(os.environ.get(SHORTCUTS_VARIABLE, ""))
    return Protocol.of(*(name for name, is_taken in taken.items() if is_taken)) | inherited
