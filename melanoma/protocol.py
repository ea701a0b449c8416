"""The protocol of a run: `clean`, or the names of the shortcuts it takes."""

import os

import pandas as pd

from melanoma.config.schema import AuditConfig, TrainConfig

__all__ = ["SHORTCUTS", "joined_protocol", "shortcuts"]

SHORTCUTS = "MELANOMA_SHORTCUTS"  # environment of a trial: further shortcuts
_KNOWN_WEIGHTS = (None, "none", "imagenet")


def shortcuts(settings: TrainConfig, columns: pd.Index) -> list[str]:
    """The name of each shortcut that a run takes; none is the clean protocol.

    Args:
        settings: the whole configuration.
        columns: of the source's table: a shortcut about lesions is none where no lesions are known.
    """
    debug, audit, group = settings.debug, settings.audit, settings.split.group
    published = settings.protocol == "published"
    known = [name for name in ("lesion", "patient") if name in columns]
    taken = {
        "published": published,
        "augmented_before_split": published and settings.balance.name == "augmentor",
        "validated_on_test": published and settings.split.published_validation == "test",
        "duplicates_ignored": published,
        "groups_ignored": published or (group == "none" and bool(known)),
        "lesions_ignored": not published and group == "patient" and "lesion" in known,
        "patients_ignored": not published and group == "lesion" and "patient" in known,
        # Above the default fewer copies are found, at 1 none.
        "near_duplicates_ignored": not published
        and (not audit.near_duplicates or audit.similarity > AuditConfig().similarity),
        "conflicts_kept": not published and audit.conflicts == "keep",
        "conflicts_first": not published and audit.conflicts == "first",
        # A file does not say which images made it.
        "pretraining_unknown": settings.model.weights not in _KNOWN_WEIGHTS and ":/" not in str(settings.model.weights),
        "debug_overfit": debug.overfit,
        "debug_one_batch": debug.train_batches == 1 and not debug.overfit,
        "debug_few_batches": (debug.train_batches or 0) > 1 and not debug.overfit,
    }
    # What a sweep knows of its trials, and a trial cannot know of itself.
    told = [name for name in os.environ.get(SHORTCUTS, "").split(",") if name]
    return [name for name, is_taken in taken.items() if is_taken] + told


def joined_protocol(*protocols: str) -> str:
    """One protocol of several: all their shortcuts; `clean` where there is none."""
    taken = dict.fromkeys(name for protocol in protocols for name in protocol.split(",") if name not in ("", "clean"))
    return ",".join(taken) or "clean"
