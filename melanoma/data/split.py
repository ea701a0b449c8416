"""Splits into training, validation and test that keep the images of a group in one part."""

import shlex
import warnings
from fractions import Fraction

import numpy as np
import pandas as pd

from melanoma.config.schema import SplitConfig
from melanoma.data.sources import METADATA
from melanoma.errors import DataError

__all__ = [
    "PARTS",
    "REMOVED",
    "drawn_rows",
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
REMOVED = "removed"  # in place of a part, for images that are not used


def split_parts(table: pd.DataFrame, settings: SplitConfig, seed: int) -> pd.Series:
    """Split a data set, stratified by class. Images of one group are never in two parts.

    Args:
        table: Columns `path`, `label`, `part` (delivered part, or empty) and `group` (the same number for images that
            must stay in one part).
        settings: `method` is `official` to keep the delivered test set, `holdout` to draw a new split, or `auto`, which
            is `official` with a delivered test set and `holdout` without one. `validation` is the share of validation
            images among all rows that are not in a delivered test set. `test` is the share of test images among all
            rows; it is not used with a delivered test set.
        seed: Seed of the random draw.

    Returns:
        `train`, `validation` or `test` for each row of `table`, or `removed` for rows outside a delivered test set that
        share a group with one of its images, and for training rows that share a group with an image of a delivered
        validation set.

    Raises:
        DataError: If `method` is `official` and there is no delivered test set, or if a class is too small to be in
            every part.
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
    """Split a data set for cross-validation. Every row is in one test fold, whatever its delivered part.

    Args:
        table: See `split_parts`.
        settings: `folds` is the number of folds. `validation` is the share of validation images among the rows outside
            the test fold.
        seed: Seed of the random draw.

    Returns:
        The part of each row, for each of the folds.

    Raises:
        DataError: If a class has fewer groups than folds, or is too small to be in every part.
    """
    require_enough_for_folds(table.groupby("label").group.nunique(), settings.folds)
    from sklearn.model_selection import StratifiedGroupKFold  # late, as it takes a second to import

    splitter = StratifiedGroupKFold(settings.folds, shuffle=True, random_state=np.random.RandomState(seed))
    runs = []
    for _, tested in splitter.split(table, table.label, table.group):
        parts = pd.Series("train", index=table.index, dtype=object)
        parts.iloc[tested] = "test"
        _add_validation(parts, table, round(settings.validation * (len(table) - len(tested))), seed)
        runs.append(parts)
    return runs


def left_out_parts(table: pd.DataFrame, settings: SplitConfig, seed: int) -> dict[str, pd.Series]:
    """Split a data set once for each value of a column. The rows with that value are the test set.

    Args:
        table: See `split_parts`, with the column. Rows without a value are never in a test set.
        settings: `column` is a metadata column, such as `site`. `validation` is the share of validation images among
            the rows outside the test set.
        seed: Seed of the random draw.

    Returns:
        The part of each row, for each value of the column.

    Raises:
        DataError: If the column does not exist, has fewer than two values, or a class occurs with one value only.
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


def drawn_rows(table: pd.DataFrame, images: int, seed: int) -> pd.Series:
    """Draw whole groups with about this number of images, with the classes in the same shares.

    Args:
        table: Columns `label` and `group`.
        images: Number of images.
        seed: Seed of the random draw.

    Returns:
        Whether each row is drawn.
    """
    groups = table.groupby("group").label.agg(["first", "size"]).sample(frac=1, random_state=seed)
    wanted = groups["first"].map(table.label.value_counts(normalize=True) * images)
    # A group is drawn if more than half of it fits.
    fits = groups.groupby("first")["size"].cumsum() - groups["size"] / 2 <= wanted
    return table.group.isin(groups.index[fits])


def require_delivered_test(table: pd.DataFrame) -> None:
    """Raise a DataError if there is no delivered test set."""
    if not (table.part == "test").any():
        raise DataError(
            "split=official needs a delivered test folder (test/CLASS/*.jpg); use split=auto or split=holdout. "
            f"Received: parts {', '.join(sorted(set(table.part) - {''})) or 'none'}"
        )


def require_enough_for_folds(groups: pd.Series, folds: int) -> None:
    """Raise a DataError if a class has fewer groups than folds. `groups` is the number of groups by class name."""
    few = groups[groups < folds]
    if len(few):
        raise DataError(
            f"Each class needs at least split.folds={folds} lesions, patients or single images, so that one is in each "
            f"fold; add images or lower split.folds. Received: {few.to_dict()}"
        )


def values_left_out(table: pd.DataFrame, column: str) -> list[object]:
    """Return the sorted values of a metadata column. Raise a DataError if it is absent or has fewer than two values."""
    if column not in table:
        raise DataError(
            f"split.column must be {', '.join(METADATA[:-1])} or {METADATA[-1]}. Name the column of your table first, "
            f"as in {shlex.quote(f'data.source.site_column={column}')} split.column=site; for class folders it is "
            "data.metadata.site_column. "
            f"Received: split.column={column}, with {', '.join(c for c in METADATA if c in table) or 'no such columns'}"
        )
    found = sorted(table[column].dropna().astype(object).unique(), key=str)
    if len(found) < 2:
        raise DataError(f"split.column={column} must have at least two values. Received: {found}")
    return found


def refuse_overlap(table: pd.DataFrame) -> None:
    """Check that no group has rows in more than one part.

    Args:
        table: Columns `path`, `part` and `group`.

    Raises:
        DataError: If a group has rows in more than one part. The message names some of its images.
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
    """Remove rows in a group with test images, and training rows in a group with validation images."""
    for held_out, others in (("test", ["train", "validation"]), ("validation", ["train"])):
        groups = set(table.group[parts == held_out])
        parts[parts.isin(others) & table.group.isin(groups)] = REMOVED


def _add_validation(parts: pd.Series, table: pd.DataFrame, wanted: int, seed: int) -> None:
    if not (parts == "validation").any():
        _draw(parts, table, "validation", wanted, seed)
    require_classes(parts, table.label)


def _draw(parts: pd.Series, table: pd.DataFrame, name: str, wanted: int, seed: int) -> None:
    """Move a stratified sample of the training rows to another part. Each class keeps rows in both parts."""
    rows = table[parts == "train"]
    groups = rows.groupby("label").group.nunique().reindex(sorted(set(table.label)), fill_value=0)
    small = groups[groups < (3 if name == "test" else 2)]
    if len(small):
        counts = {label: int((rows.label == label).sum()) for label in small.index}
        raise DataError(
            f"Class {', '.join(repr(label) for label in small.index)} has too few images to be in training, "
            "validation and test, or all its images belong together as one lesion, patient or cluster of copies; add "
            "images, or leave it out by data.leave_out. "
            f"Received: {counts} images in {small.to_dict()} groups when drawing {name}"
        )
    parts.loc[_stratified(rows, max(wanted, len(groups)), seed)] = name


def _stratified(rows: pd.DataFrame, taken: int, seed: int) -> pd.Index:
    """Return the index of a stratified sample of whole groups, with some but not all rows of each class."""
    from sklearn.model_selection import StratifiedGroupKFold, train_test_split

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
        warnings.simplefilter("ignore", UserWarning)  # classes smaller than the number of folds
        tests = [test for _, test in folds.split(rows, rows.label, rows.group)]
    drawn.iloc[np.concatenate(tests[: share.numerator])] = True
    return _mended(rows, drawn)


def _mended(rows: pd.DataFrame, drawn: pd.Series) -> pd.Index:
    """Return the drawn rows, after moving the smallest group of a class that is missing on one side."""
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
        "The images cannot be split so that each part has each class: too many belong together as one lesion, patient "
        "or cluster of copies; add images, leave a class out, or choose another split.group. "
        f"Received: {rows.groupby('label').group.nunique().to_dict()} groups a class"
    )


def require_classes(parts: pd.Series, labels: pd.Series) -> None:
    """Raise a DataError if a class has no rows in training or validation."""
    for part in PARTS:
        absent = sorted(set(labels) - set(labels[parts == part]))
        if absent and part != "test":
            raise DataError(
                f"Class {', '.join(repr(c) for c in absent)} has no image in {part}: too few images, or a split that "
                f"leaves it out. Add images or raise split.{part if part != 'train' else 'validation'}. "
                f"Received: {labels[labels.isin(absent)].value_counts().to_dict()}"
            )
