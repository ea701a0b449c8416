"""Checks of the configuration against the list of images, before any image is read."""

from collections.abc import Sequence
from typing import Any

from melanoma.config.schema import DataConfig, TrainConfig
from melanoma.data.sources import Source
from melanoma.data.split import require_delivered_test, require_enough_for_folds, values_left_out
from melanoma.data.split_file import split_table
from melanoma.errors import ConfigError, DataError

__all__ = ["check_binary_tasks", "check_experiment", "check_prevalence", "check_split", "kept_classes"]


def check_experiment(settings: TrainConfig, model: dict[str, Any], source: Source) -> None:
    """Check that the model, the binary tasks, the classes and the split fit the images.

    Raises:
        MelanomaError: If one of them does not fit.
    """
    classes = kept_classes(settings.data, source.classes)
    _check_classes(model, classes)
    check_binary_tasks(settings.data.binary_tasks, classes)
    check_prevalence(settings.evaluation.prevalence, settings.data.binary_tasks, classes)
    check_split(settings, source)


def kept_classes(settings: DataConfig, classes: Sequence[str], least: int = 2) -> list[str]:
    """Return the classes without those of `data.leave_out`.

    Raises:
        ConfigError: If the data does not have one of these, or if fewer than `least` classes are kept.
    """
    unknown = [label for label in settings.leave_out if label not in classes]
    kept = [label for label in classes if label not in settings.leave_out]
    if unknown or (settings.leave_out and len(kept) < least):
        raise ConfigError(
            [f"data.leave_out names classes of the data, and leaves {least} or more: {', '.join(classes)}. "
             f"Received: {', '.join(unknown or settings.leave_out)}"]
        )  # fmt: skip
    return kept


def check_binary_tasks(tasks: dict[str, list[str]], classes: list[str]) -> None:
    """Check that each of `data.binary_tasks` lists at least one class of the data, but not all of them.

    Raises:
        ConfigError: If not; the message lists all faults.
    """
    faults = []
    for name, positives in tasks.items():
        unknown = [str(label) for label in positives if label not in classes]
        if unknown or not 0 < len(set(positives)) < len(classes):
            faults.append(
                f"data.binary_tasks.{name} must name some of the classes, not all: {', '.join(classes)}. "
                f"Received: {', '.join(unknown) or list(positives)}"
            )
    if faults:
        raise ConfigError(faults)


def check_prevalence(prevalence: dict[str, Any], tasks: dict[str, list[str]], classes: list[str]) -> None:
    """Check that `evaluation.prevalence` has shares of binary tasks.

    Args:
        prevalence: Share of positives of each binary task.
        tasks: Binary tasks of the data.
        classes: Classes, of which the last is positive if there are two.

    Raises:
        ConfigError: If not; the message lists all faults.
    """
    known = classes[1:] if len(classes) == 2 else list(tasks)
    faults = []
    for name, share in prevalence.items():
        if name not in known:
            faults.append(f"evaluation.prevalence names binary tasks: {', '.join(known) or 'none'}. Received: {name}")
        elif isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            faults.append(f"evaluation.prevalence.{name} must be a share above 0 and below 1. Received: {share}")
    if faults:
        raise ConfigError(faults)


def _check_classes(model: dict[str, Any], classes: list[str]) -> None:
    if len(classes) < 2:
        raise DataError(
            "A classifier needs at least two classes, each a folder of images: CLASS/*.jpg, or train/CLASS/*.jpg. "
            f"Received: {', '.join(classes)}"
        )
    wanted = model["classes"]
    if wanted is not None and wanted != len(classes):
        raise ConfigError(
            [
                f"Model '{model['name']}' is for {wanted} classes and the data has {len(classes)}; choose another "
                f"model, or other data. Received: {', '.join(classes)}"
            ]
        )


def check_split(settings: TrainConfig, source: Source) -> None:
    """Check `split.*` against the list of images, before images are read and a run is started.

    Raises:
        DataError: If the images cannot be split as configured.
    """
    chosen, table = settings.split, source.table
    if (
        settings.protocol != "published"
        and chosen.group in ("lesion", "patient")
        and (chosen.group not in table or table[chosen.group].isna().all())
    ):
        raise DataError(
            f"No {chosen.group} is known of any image, so that it keeps nothing together; name the column by "
            f"data.source.{chosen.group}_column or data.metadata.{chosen.group}_column, or take split.group=auto. "
            f"Received: split.group={chosen.group}"
        )
    if chosen.file is not None:
        split_table(chosen.file)
    elif chosen.method == "official":
        require_delivered_test(table)
    elif chosen.method == "leave_one_out_by":
        values_left_out(table, str(chosen.column))
    elif chosen.method == "kfold":
        kept = table[~table.label.isin(settings.data.leave_out)]
        require_enough_for_folds(kept.groupby("label").path.nunique(), chosen.folds)
