"""Corrections of labels that a person has decided on, from a table."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from melanoma.data.csv_text import read_csv_text
from melanoma.data.digests import file_digests
from melanoma.data.sources import Source
from melanoma.errors import DataError

__all__ = ["EXCLUDE", "with_corrections"]

EXCLUDE = "exclude"


def with_corrections(source: Source, file: Path) -> Source:
    """Apply the decisions of a table, such as that of `melanoma audit labels=RUN`.

    A decision is about a picture: it applies to all files with the same content.

    Args:
        source: The images as delivered.
        file: CSV file with the columns `path` (relative, as in the source) and `decision`: a class, `exclude`, or empty
            to keep the label; and optionally `sha256` of the image that was decided on.

    Raises:
        DataError: If the file cannot be read, if a row has no such image, class or content, or if two rows decide
            differently about one content.
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
                else f"{wrong[0]}, where the classes are {', '.join(source.classes)}"
            )
            + f" in {file}"
        )
    contents = pd.Series(file_digests(source.root, list(source.table.path)), index=source.table.path, dtype=object)
    decided = decided.assign(now=decided.path.map(contents))
    if "sha256" in decided:
        changed = decided[(decided.sha256 != "") & (decided.sha256 != decided.now)]
        if len(changed):
            raise DataError(
                "An image is not the one that was decided on: its content has changed. Decide again. "
                f"Received: {changed.path.iloc[0]} in {file}"
            )
    differing = decided.groupby("now").decision.nunique()
    if (differing > 1).any():
        paths = decided.path[decided.now == differing.idxmax()]
        raise DataError(f"Copies of one picture have different decisions. Received: {', '.join(paths)} in {file}")
    given = source.table.path.map(contents).map(decided.drop_duplicates("now").set_index("now").decision)
    table = source.table.assign(label=given.where(given.notna() & (given != EXCLUDE), source.table.label))
    changed_labels, excluded = int((table.label != source.table.label).sum()), int((given == EXCLUDE).sum())
    note = f"data.corrections changed the labels of {changed_labels} images and excluded {excluded}"
    return replace(source, table=table[given != EXCLUDE].reset_index(drop=True), notes=[*source.notes, note])


def _decisions(file: Path) -> pd.DataFrame:
    try:
        table = read_csv_text(file, dtype=str, keep_default_na=False)
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
