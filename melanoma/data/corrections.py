"""Corrections of labels that a person has decided on, from a table."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from melanoma.data.digests import file_digests
from melanoma.data.sources import Source
from melanoma.errors import DataError

__all__ = ["EXCLUDE", "with_corrections"]

EXCLUDE = "exclude"


def with_corrections(source: Source, file: Path) -> Source:
    """Apply the decisions of a table, such as that of `melanoma audit labels=RUN`.

    Args:
        source: The images as delivered.
        file: CSV file with the columns `path` (relative, as in the source) and `decision`: a class, `exclude`, or empty
            to keep the label; and optionally `sha256` of the image that was decided on.

    Raises:
        DataError: If the file cannot be read, or if a row has no such image, class or content.
    """
    decided = _decisions(file)
    unknown = sorted(set(decided.path) - set(source.table.path))
    wrong = sorted(set(decided.decision) - {*source.classes, EXCLUDE})
    if unknown or wrong:
        raise DataError(
            f"data.corrections names images of the data by their path, and a class or {EXCLUDE} for each. Received: "
            + (
                f"no image {unknown[0]}"
                if unknown
                else f"decision {wrong[0]}, where the classes are {', '.join(source.classes)}"
            )
            + f" in {file}"
        )
    if "sha256" in decided:
        known = decided[decided.sha256 != ""]
        found = file_digests(source.root, list(known.path))
        changed = [path for path, own, now in zip(known.path, known.sha256, found, strict=True) if own != now]
        if changed:
            raise DataError(
                "An image is not the one that was decided on: its content has changed. Decide again. "
                f"Received: {changed[0]} in {file}"
            )
    decisions = decided.set_index("path").decision
    given = source.table.path.map(decisions)
    table = source.table.assign(label=given.where(given.notna() & (given != EXCLUDE), source.table.label))
    changed_labels, excluded = int((table.label != source.table.label).sum()), int((given == EXCLUDE).sum())
    note = f"data.corrections changed {changed_labels} labels and excluded {excluded} images"
    return replace(source, table=table[given != EXCLUDE].reset_index(drop=True), notes=[*source.notes, note])


def _decisions(file: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"The table of corrections cannot be read ({reason}). Received: data.corrections={file}"
        ) from error
    absent = {"path", "decision"} - set(table)
    if absent:
        raise DataError(
            f"The table of corrections needs the columns path and decision. Received: {', '.join(table)} in {file}"
        )
    table = table[table.decision != ""]
    twice = table[table.path.duplicated()]
    if len(twice):
        raise DataError(f"The table of corrections decides on an image twice. Received: {twice.path.iloc[0]} in {file}")
    return table
