"""Split files, which each run writes and `split.file` reads, and the hash of a split."""

from collections.abc import Collection

import pandas as pd

from melanoma.data.cache import content_key
from melanoma.data.csv_text import read_csv_text
from melanoma.data.split import PARTS, REMOVED, require_classes
from melanoma.errors import DataError
from melanoma.paths import user_path

__all__ = ["read_split", "shared_with_training", "split_hash", "split_table"]


def read_split(file: str, table: pd.DataFrame, without: Collection[str] = ()) -> pd.Series:
    """Read the part of each row from a CSV with columns `path` and `part`, such as `data/split.csv` of a run.

    Rows with a `parent` (augmented images) are skipped, because these images are generated again. Paths in `without`,
    which were removed from the data set, are skipped too.

    Raises:
        DataError: If the file does not exist, lacks columns, has unknown parts, does not match the images of the data
            set, or leaves a part empty or a class out of training or validation.
    """
    frame = split_table(file)
    frame = frame[~frame.path.isin(without)]
    if frame.path.duplicated().any():
        raise DataError(f"split.file names an image twice. Received: {frame.path[frame.path.duplicated()].iloc[0]}")
    parts = table.path.map(frame.set_index("path").part)
    if parts.isna().any():
        raise DataError(
            "split.file must name each image of the data set; it was made for other data. Received: no part for "
            f"{int(parts.isna().sum())} of {len(table)} images, such as {table.path[parts.isna()].iloc[0]}"
        )
    absent = frame.path[(frame.part != "quarantined") & ~frame.path.isin(table.path)]
    if len(absent):
        raise DataError(
            f"split.file names images that are not in the data set, or cannot be read; bring them back, or make a new "
            f"split. Received: {len(absent)} such images, as {absent.iloc[0]}"
        )
    wanted = parts[parts != "quarantined"]
    absent = [part for part in PARTS if not (wanted == part).any()]
    if absent:
        raise DataError(f"split.file leaves {' and '.join(absent)} without images. Received: {file}")
    if len(wanted) < len(parts):
        raise DataError(
            "split.file marks images as quarantined that can be read now; make a new split. Received: "
            f"{table.path[parts == 'quarantined'].iloc[0]}"
        )
    require_classes(parts, table.label)
    return parts


def split_table(file: str) -> pd.DataFrame:
    """Read the rows of a split file as text, without augmented images.

    Raises:
        DataError: If the file does not exist, lacks columns, or has unknown parts.
    """
    where = user_path(file)
    try:
        frame = read_csv_text(where, keep_default_na=False, dtype=str)
    except (OSError, ValueError, UnicodeError) as error:
        raise DataError(f"split.file cannot be read ({error}). Received: {file}") from error
    if not {"path", "part"} <= set(frame):
        raise DataError(f"split.file needs columns path and part. Received: {', '.join(frame)} in {file}")
    if "parent" in frame:
        frame = frame[frame.parent == ""]
    wrong = sorted(set(frame.part) - {*PARTS, REMOVED, "quarantined"})
    if wrong:
        raise DataError(f"The parts of split.file are train, validation and test. Received: {wrong} in {file}")
    return frame


def split_hash(table: pd.DataFrame) -> str:
    """Return the hash of a split, computed from the content, label and part of each image."""
    rows = sorted(f"{row.sha256}\t{row.label}\t{row.part}" for row in table.itertuples())
    return content_key("split-1", rows)


def shared_with_training(table: pd.DataFrame) -> dict[str, int]:
    """Count the test images that share a cluster of copies, lesion or patient with training or validation images."""
    test, used = table[table.part == "test"], table[table.part.isin(["train", "validation"])]
    return {
        column: int(test[column].dropna().isin(set(used[column].dropna())).sum())
        for column in ("cluster", "lesion", "patient")
        if column in table
    }
