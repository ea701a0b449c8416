"""Dividing images into training, validation and test, so that images which belong together stay together."""

import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from melanoma.config.schema import SplitConfig
from melanoma.data.sources import METADATA
from melanoma.errors import DataError

__all__ = [
    "PARTS",
    "REMOVED",
    "fold_parts",
    "left_out_parts",
    "refuse_overlap",
    "require_classes",
    "require_delivered_test",
    "require_enough_for_folds",
    "split_parts",
    "values_left_out",
]

PARTS = ("train", "validation", "test")
REMOVED = "removed"  # instead of a part: what is used for nothing


def split_parts(table: pd.DataFrame, settings: SplitConfig, seed: int) -> pd.Series:
    """The part of each row, stratified by class; images of one group are never in two parts.

    Args:
        table: columns `path`, `label`, `part` (as delivered, or empty) and `group` (number that images have in common
            which belong together).
        settings: `method` is `official` to keep the delivered test set, `holdout` to draw all anew, or `auto`, which is
            `official` where a test set was delivered and `holdout` where none was; `validation` is the share for
            validation of all rows that are not in a delivered test set, `test` the share for test of all rows, unused
            with a delivered test set.
        seed: of the draw.

    Returns:
        `train`, `validation` or `test` for each row of `table`, or `removed` for what shares a group with an image of a
        delivered test set, or with one of a delivered validation set while it is in training.

    Raises:
        DataError: `official` without a delivered test set, or a class too small to be in every part.
    """
    delivered = table.part if settings.method != "holdout" else pd.Series("", index=table.index)
    if settings.method == "official":
        require_delivered_test(table)
    parts = delivered.replace("", "train").copy()
    _remove_relatives(parts, table)
    wanted = round(settings.validation * parts.isin(["train", "validation"]).sum())
    if not (parts == "test").any():
        _draw(parts, table, "test", round(settings.test * len(table)), seed)
    _add_validation(parts, table, wanted, seed)
    return parts


def fold_parts(table: pd.DataFrame, settings: SplitConfig, seed: int) -> list[pd.Series]:
    """The parts of each of `settings.folds` runs: every row is tested once, whatever part it was delivered in.

    Args:
        table: as for `split_parts`.
        settings: `folds` is the number of runs, `validation` the share for validation of what a run does not test.
        seed: of the draw.

    Raises:
        DataError: a class with fewer groups than folds, or too small to be in every part.
    """
    require_enough_for_folds(table.groupby("label").group.nunique(), settings.folds)
    splitter = StratifiedGroupKFold(settings.folds, shuffle=True, random_state=np.random.RandomState(seed))
    runs = []
    for _, tested in splitter.split(table, table.label, table.group):
        parts = pd.Series("train", index=table.index, dtype=object)
        parts.iloc[tested] = "test"
        _add_validation(parts, table, round(settings.validation * (len(table) - len(tested))), seed)
        runs.append(parts)
    return runs


def left_out_parts(table: pd.DataFrame, settings: SplitConfig, seed: int) -> dict[str, pd.Series]:
    """The parts of a run for each value of a column, which is that run's test set.

    Args:
        table: as for `split_parts`, with the column; rows without a value are never tested.
        settings: `column` is a metadata column, such as `site`, `validation` the share for validation of what a run
            does not test.
        seed: of the draw.

    Raises:
        DataError: no such column, fewer than two values, or a class that only one of them has.
    """
    runs, column = {}, str(settings.column)
    for value in values_left_out(table, column):
        parts = pd.Series(
            np.where(table[column].astype(object) == value, "test", "train"), index=table.index, dtype=object
        )
        try:
            _remove_relatives(parts, table)
            _add_validation(parts, table, round(settings.validation * (parts == "train").sum()), seed)
        except DataError as error:
            raise DataError(f"With {column}={value} left out: {error}") from error
        runs[str(value)] = parts
    return runs


def require_delivered_test(table: pd.DataFrame) -> None:
    """Raise a DataError if no test set was delivered."""
    if not (table.part == "test").any():
        raise DataError(
            "split=official needs a delivered test folder (test/CLASS/*.jpg); use split=auto or split=holdout. "
            f"Received: parts {', '.join(sorted(set(table.part) - {''})) or 'none'}"
        )


def require_enough_for_folds(groups: pd.Series, folds: int) -> None:
    """Raise a DataError if a class, by name, has fewer groups than there are folds."""
    few = groups[groups < folds]
    if len(few):
        raise DataError(
            f"Each class needs at least split.folds={folds} lesions, patients or single images, so that one is in each "
            f"fold; add images or lower split.folds. Received: {few.to_dict()}"
        )


def values_left_out(table: pd.DataFrame, column: str) -> list[object]:
    """The values of a metadata column, sorted; a DataError if there is no such column, or fewer than two values."""
    if column not in table:
        raise DataError(
            "split.column must be a column of the data set's metadata (data=csv, or data.metadata.path). "
            f"Received: split.column={column}, with {', '.join(c for c in METADATA if c in table) or 'no such columns'}"
        )
    found = sorted(table[column].dropna().astype(object).unique(), key=str)
    if len(found) < 2:
        raise DataError(f"split.column={column} must have at least two values. Received: {found}")
    return found


def refuse_overlap(table: pd.DataFrame) -> None:
    """Make sure that no group has rows in two parts.

    Args:
        table: `path`, `part` and `group`.

    Raises:
        DataError: a group does; the message names images of it.
    """
    parts = table.groupby("group").part.nunique()
    shared = parts[parts > 1]
    if len(shared):
        rows = table[table.group == shared.index[0]].drop_duplicates("part")
        named = " and ".join(f"{row.path} ({row.part})" for row in rows.itertuples())
        raise DataError(
            "A split must keep images of one lesion, patient or cluster of copies in one part; make a new split, or "
            f"ask for protocol=published. Received: {len(shared)} groups in two parts or more, as {named}"
        )


def _remove_relatives(parts: pd.Series, table: pd.DataFrame) -> None:
    """Take out what belongs to test images, and out of training what belongs to validation images."""
    for held_out, others in (("test", ["train", "validation"]), ("validation", ["train"])):
        groups = set(table.group[parts == held_out])
        parts[parts.isin(others) & table.group.isin(groups)] = REMOVED


def _add_validation(parts: pd.Series, table: pd.DataFrame, wanted: int, seed: int) -> None:
    if not (parts == "validation").any():
        _draw(parts, table, "validation", wanted, seed)
    require_classes(parts, table.label)


def _draw(parts: pd.Series, table: pd.DataFrame, name: str, wanted: int, seed: int) -> None:
    """Move training rows to another part, stratified, so that each class has rows in both."""
    rows = table[parts == "train"]
    groups = rows.groupby("label").group.nunique().reindex(sorted(set(table.label)), fill_value=0)
    small = groups[groups < (3 if name == "test" else 2)]
    if len(small):
        counts = {label: int((rows.label == label).sum()) for label in small.index}
        raise DataError(
            f"Class {', '.join(repr(label) for label in small.index)} has too few images to stand in training, "
            "validation and test, or all its images belong together as one lesion, patient or cluster of copies; add "
            "images, or leave it out by data.leave_out. "
            f"Received: {counts} images in {small.to_dict()} groups when drawing {name}"
        )
    parts.loc[_stratified(rows, max(wanted, len(groups)), seed)] = name


def _stratified(rows: pd.DataFrame, taken: int, seed: int) -> pd.Index:
    """Index of some rows, with about the class shares of all, of each class some but not all; a group comes whole."""
    random = np.random.RandomState(seed)
    taken = min(taken, len(rows) - rows.label.nunique())
    drawn = pd.Series(False, index=rows.index)
    if rows.group.is_unique:
        drawn[train_test_split(rows.index, test_size=taken, stratify=rows.label, random_state=random)[1]] = True
        return _mended(rows, drawn)
    most = max(2, min(20, int(rows.label.value_counts().max()), rows.group.nunique()))
    share = Fraction(taken, len(rows)).limit_denominator(most)
    share = min(max(share, Fraction(1, most)), Fraction(most - 1, most))
    folds = StratifiedGroupKFold(share.denominator, shuffle=True, random_state=random)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes smaller than the number of folds: mended below
        tests = [test for _, test in folds.split(rows, rows.label, rows.group)]
    drawn.iloc[np.concatenate(tests[: share.numerator])] = True
    return _mended(rows, drawn)


def _mended(rows: pd.DataFrame, drawn: pd.Series) -> pd.Index:
    """The drawn rows, with a small group of a class moved over where one side has none of it."""
    sizes = rows.groupby("group").size()
    for _ in range(2 * rows.label.nunique()):
        sides = pd.crosstab(rows.label, drawn).reindex(columns=[False, True], fill_value=0)
        absent = sides[sides.min(axis=1) == 0]
        if not len(absent):
            return rows.index[drawn]
        label = absent.index[0]
        smallest = sizes[rows[rows.label == label].group.unique()].sort_values(kind="stable").index[0]
        drawn[rows.group == smallest] = bool(sides.loc[label, True] == 0)
    raise DataError(
        "The images cannot be divided so that each class is on both sides: lesions, patients or copies tie too many "
        "together; add images, leave a class out, or choose another split.group. "
        f"Received: {rows.groupby('label').group.nunique().to_dict()} groups a class"
    )


def require_classes(parts: pd.Series, labels: pd.Series) -> None:
    """Raise a DataError if a class has no row in training or validation."""
    for part in PARTS:
        absent = sorted(set(labels) - set(labels[parts == part]))
        if absent and part != "test":
            raise DataError(
                f"Class {', '.join(repr(c) for c in absent)} has no image in {part}: too few images, or a split that "
                f"leaves it out. Add images or raise split.{part if part != 'train' else 'validation'}. "
                f"Received: {labels[labels.isin(absent)].value_counts().to_dict()}"
            )
