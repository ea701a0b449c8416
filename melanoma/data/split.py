"""Dividing images into training, validation and test."""

import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from melanoma.data.cache import content_key
from melanoma.errors import DataError

__all__ = ["PARTS", "read_split", "shared_with_training", "split_hash", "split_parts"]

PARTS = ("train", "validation", "test")


def split_parts(table: pd.DataFrame, *, method: str, validation: float, test: float, seed: int) -> pd.Series:
    """The part of each row, stratified by class; what is drawn never parts images of one group.

    A group is the images that share bytes (`sha256`), `lesion` or `patient`, where the table has these columns. A
    delivered test set is kept as it is: see `shared_with_training` for what it shares with the rest.

    Args:
        table: columns `path`, `label` and `part` (as delivered, or empty), and any of those above.
        method: `official` keeps the delivered test set, `holdout` draws all anew, `auto` is `official` where a test
            set was delivered and `holdout` where none was.
        validation: share for validation, of all rows that are not in a delivered test set.
        test: share for test, of all rows; unused with a delivered test set.
        seed: of the draw.

    Returns:
        `train`, `validation` or `test` for each row of `table`.

    Raises:
        DataError: `official` without a delivered test set, or a class too small to be in every part.
    """
    delivered = table.part if method != "holdout" else pd.Series("", index=table.index)
    if method == "official" and not (delivered == "test").any():
        raise DataError(
            "split=official needs a delivered test folder (test/CLASS/*.jpg); use split=auto or split=holdout. "
            f"Received: parts {sorted(set(table.part)) or 'none'}"
        )
    parts = delivered.replace("", "train").copy()
    for_validation = round(validation * (parts != "test").sum())
    if not (parts == "test").any():
        _draw(parts, table, "test", round(test * len(table)), seed)
    if not (parts == "validation").any():
        _draw(parts, table, "validation", for_validation, seed)
    _check_classes(parts, table.label)
    return parts


def read_split(file: str, table: pd.DataFrame) -> pd.Series:
    """The part of each row from a split file: a CSV with columns `path` and `part`, such as a run's `data/split.csv`.

    Rows with a `parent` (made by augmentation) are passed over: they are made anew.

    Raises:
        DataError: no such file, missing columns, unknown parts, or other images than in the data set.
    """
    where = Path(file).expanduser()
    try:
        frame = pd.read_csv(where, keep_default_na=False, dtype=str)
    except (OSError, ValueError, UnicodeError) as error:
        raise DataError(f"split.file cannot be read ({error}). Received: {file}") from error
    if not {"path", "part"} <= set(frame):
        raise DataError(f"split.file needs columns path and part. Received: {', '.join(frame)} in {file}")
    if "parent" in frame:
        frame = frame[frame.parent == ""]
    wrong = sorted(set(frame.part) - {*PARTS, "quarantined"})
    if wrong:
        raise DataError(f"The parts of split.file are train, validation and test. Received: {wrong} in {file}")
    if frame.path.duplicated().any():
        raise DataError(f"split.file names an image twice. Received: {frame.path[frame.path.duplicated()].iloc[0]}")
    parts = table.path.map(frame.set_index("path").part)
    if parts.isna().any():
        raise DataError(
            "split.file must name each image of the data set; it was made for other data. Received: nothing for "
            f"{int(parts.isna().sum())} of {len(table)} images, such as {table.path[parts.isna()].iloc[0]}"
        )
    gone = frame.path[(frame.part != "quarantined") & ~frame.path.isin(table.path)]
    if len(gone):
        raise DataError(
            f"split.file names images that are not in the data set, or cannot be read; bring them back, or make a new "
            f"split. Received: {len(gone)} such images, as {gone.iloc[0]}"
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
    _check_classes(parts, table.label)
    return parts


def split_hash(table: pd.DataFrame) -> str:
    """One hash for a split: which content, under which label, is in which part."""
    rows = sorted(f"{row.sha256}\t{row.label}\t{row.part}" for row in table.itertuples())
    return content_key("split-1", rows)


def shared_with_training(table: pd.DataFrame) -> dict[str, int]:
    """How many test images share their content, lesion or patient with an image that is trained or tuned on.

    Only what is known is counted: equal bytes, and the columns `lesion` and `patient` where there are such.
    """
    originals = table[table.parent == ""]
    test = originals[originals.part == "test"]
    used = originals[originals.part.isin(["train", "validation"])]
    columns = {"content": "sha256", "lesion": "lesion", "patient": "patient"}
    return {
        name: int(test[column].dropna().isin(set(used[column].dropna())).sum())
        for name, column in columns.items()
        if column in table
    }


def _draw(parts: pd.Series, table: pd.DataFrame, name: str, wanted: int, seed: int) -> None:
    """Move training rows to another part, stratified."""
    rows = parts.index[parts == "train"].to_numpy()
    labels = table.label[rows]
    counts = labels.value_counts()
    taken = max(wanted, len(counts))
    small = sorted(counts.index[counts < 2])
    if not small and taken > len(rows) - len(counts):
        small = sorted(counts.index[counts == counts.min()])
    if not small:
        drawn = _stratified(rows, labels, _groups(table)[rows], taken, seed)
        small = sorted(set(labels) - set(labels[drawn]))
    if small:
        raise DataError(
            f"Class {', '.join(repr(c) for c in small)} has too few images to stand in training, validation and test; "
            f"add images or leave the class out. Received: {int(counts.min())} images left when drawing {name}"
        )
    parts.loc[drawn] = name


def _stratified(
    rows: NDArray[np.integer], labels: pd.Series, groups: NDArray[np.integer], taken: int, seed: int
) -> NDArray[np.integer]:
    """Some of the rows, with about the class shares of all; a group comes whole, so that sizes are then approximate."""
    random = np.random.RandomState(seed)
    if len(np.unique(groups)) == len(rows):
        return train_test_split(rows, test_size=taken, stratify=labels, random_state=random)[1]
    share = Fraction(taken, len(rows)).limit_denominator(20) or Fraction(1, 20)
    folds = StratifiedGroupKFold(share.denominator, shuffle=True, random_state=random)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes smaller than the number of folds: checked by us
        tests = [test for _, test in folds.split(rows, labels, groups)]
    return rows[np.concatenate(tests[: share.numerator])]


def _groups(table: pd.DataFrame) -> NDArray[np.integer]:
    """A number for each row; rows that share content, lesion or patient, also by way of others, have the same."""
    edges = [np.empty((0, 2), np.int64)]
    size = len(table)
    for column in ("sha256", "lesion", "patient"):
        if column in table:
            known = np.flatnonzero(table[column].notna())
            keys, _ = pd.factorize(table[column].iloc[known])
            edges.append(np.stack([known, keys + size], axis=1))
            size += len(known)
    ends = np.concatenate(edges)
    graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(size, size))
    return connected_components(graph, directed=False)[1][: len(table)]


def _check_classes(parts: pd.Series, labels: pd.Series) -> None:
    for part in PARTS:
        absent = sorted(set(labels) - set(labels[parts == part]))
        if absent and part != "test":
            raise DataError(
                f"Class {', '.join(repr(c) for c in absent)} has no image in {part}: too few images, or a split that "
                f"leaves it out. Add images or raise split.{part if part != 'train' else 'validation'}. "
                f"Received: {labels[labels.isin(absent)].value_counts().to_dict()}"
            )
