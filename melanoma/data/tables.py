"""Data source for images with a metadata table, as in HAM10000 and the ISIC challenges."""

import difflib
import shlex
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from melanoma.data.sources import IMAGE_SUFFIXES, METADATA, Source, image_files, ordered_classes
from melanoma.errors import DataError
from melanoma.paths import user_path

__all__ = ["metadata_table", "with_metadata"]


def metadata_table(  # noqa: PLR0913 - keys of a configuration
    path: Path,
    *,
    table: str,
    image_column: str,
    classes: list[str] | int | None = None,
    extra_tables: list[str] | None = None,
    label_column: str | None = None,
    label_columns: list[str] | None = None,
    labels: dict[str, str] | None = None,
    lesion_column: str | None = None,
    patient_column: str | None = None,
    age_column: str | None = None,
    sex_column: str | None = None,
    site_column: str | None = None,
    skin_tone_column: str | None = None,
) -> Source:
    """List the images below `path` that have a label in a table.

    Args:
        path: Folder of the images (at any depth) and, usually, of the table.
        table: CSV file, absolute or relative to `path` or the current folder. If it is in neither, it is searched below
            `path`.
        image_column: Column of the image id or file name, with or without folder and suffix.
        classes: Class names in the desired order, the number of classes, or None.
        extra_tables: Additional CSV files, joined on the image column.
        label_column: Column of the class, or None with `label_columns`.
        label_columns: One-hot columns named by class.
        labels: Class name for each value in the table. Other values are used as class names.
        lesion_column: Column of the lesion identifier. Images of one lesion form a group.
        patient_column: Column of the patient identifier.
        age_column: Column of the age in years.
        sex_column: Column of the sex.
        site_column: Column of the anatomical site.
        skin_tone_column: Column of the skin tone or type, such as Fitzpatrick's I to VI or 1 to 6.

    Raises:
        DataError: If a table or column is missing or unreadable, an image id occurs twice, an image has no label, a
            row has no image file, or two files match one id.
    """
    frame = _read(path, table, image_column)
    for extra in extra_tables or []:
        frame = _join(frame, _read(path, extra, image_column), image_column, extra)
    optional = {
        "lesion": lesion_column,
        "patient": patient_column,
        "age": age_column,
        "sex": sex_column,
        "site": site_column,
        "skin_tone": skin_tone_column,
    }
    typed = [("image_column", image_column)]
    typed += [("label_columns", c) for c in label_columns or ()] or [("label_column", label_column or "label")]
    _require(frame, [*typed, *((f"{name}_column", c) for name, c in optional.items() if c)], table)
    ids = frame[image_column]
    _refuse_repeated(ids, image_column, table)
    found, files = _files_of(path, ids)
    missing = ids[~ids.isin(found.keys())]
    if len(missing):
        raise DataError(
            f"{len(missing)} of {len(ids)} rows have no image file below data.path; add the files or remove the rows. "
            f"Received: {_some(missing)} in {table}"
        )
    values = _one_hot(frame, label_columns, table) if label_columns else frame[label_column or "label"]
    if values.isna().any():
        raise DataError(f"Every image needs a label. Received: no label for {_some(ids[values.isna()])} in {table}")
    names = {str(value): name for value, name in (labels or {}).items()}
    columns = {
        "path": ids.map(found),
        "label": values.astype(str).map(lambda v: names.get(v, v)),
        "part": "",
        **{name: frame[column] for name, column in optional.items() if column},
    }
    result = pd.DataFrame(columns).sort_values("path", ignore_index=True)
    extra_files = files - len(result)
    notes = [f"{extra_files} image files have no row in {table} and were skipped"] if extra_files else []
    return Source(path, result, ordered_classes(set(result.label), classes, path), notes)


def with_metadata(
    source: Source,
    table: str,
    *,
    image_column: str,
    label_column: str | None = None,
    labels: dict[str, str | list[str]] | None = None,
    **columns: str | None,
) -> Source:
    """Add metadata from a table to a source whose images are labelled by their folders.

    Args:
        source: The source. The metadata columns are added to its `table`. With `label_column`, the column
            `metadata_label` is also added: a tuple of the classes that the table allows for an image, empty if the
            table has no label for it.
        table: CSV file, absolute or relative to the source's root or the current folder; see `metadata_table`.
        image_column: Column of the image id or file name, with or without folder and suffix.
        label_column: Column of the label.
        labels: Class, or classes, for each value of the label column. Other values are used as class names.
        columns: `lesion_column`, `patient_column`, `age_column`, `sex_column`,
            `site_column` and `skin_tone_column`.

    Raises:
        DataError: If a table or column is missing or unreadable, an image id occurs twice, or no image has a row in
            the table.
    """
    frame = _read(source.root, table, image_column, label_column)
    wanted = {name: columns.get(f"{name}_column") for name in METADATA}
    typed = {"image_column": image_column, "label_column": label_column}
    typed |= {f"{name}_column": column for name, column in wanted.items()}
    _require(frame, [(key, column) for key, column in typed.items() if column], table, "data.metadata")
    # Compare file names only, because the table may not have the class folders.
    frame = frame.assign(**{image_column: frame[image_column].map(lambda name: PurePosixPath(name).name)})
    _refuse_repeated(frame[image_column], image_column, table)
    stems = source.table.path.map(lambda name: PurePosixPath(_stem(name)).name)
    known = stems.isin(frame[image_column])
    if not known.any():
        raise DataError(
            f"No image has a row in the metadata table; is '{image_column}' the column of its name? "
            f"Received: {_some(stems, 3)} as images, {_some(frame[image_column], 3)} in {table}"
        )
    rows = frame.set_index(image_column).reindex(stems)
    found = {name: rows[column].to_numpy() for name, column in wanted.items() if column}
    if label_column:
        allowed = {str(v): (c,) if isinstance(c, str) else tuple(c) for v, c in (labels or {}).items()}
        values = [allowed.get(value, (value,)) if pd.notna(value) else () for value in rows[label_column]]
        found["metadata_label"] = pd.Series(values, dtype=object).to_numpy()
    unused = int((~frame[image_column].isin(stems)).sum())
    note = f"{table} names {int(known.sum())} of {len(known)} images; {unused} of its rows have no image here"
    return replace(source, table=source.table.assign(**found), notes=[*source.notes, note])


def _read(path: Path, table: str, image_column: str, label_column: str | None = None) -> pd.DataFrame:
    """Read a table. Image and label columns are text, to keep ids such as 0012; suffixes are removed from ids."""
    if not table:
        raise DataError("The metadata table must not be empty; is a shell variable unset? Received: data.source.table=")
    typed = user_path(table)
    where = next((file for file in (path / typed, typed.absolute()) if file.is_file()), None)
    if where is None and not typed.is_absolute():
        where = next(iter(sorted(path.rglob(typed.name))), None)
    if where is None:
        folders = "" if typed.is_absolute() else f"in {path} or {Path.cwd()}"
        raise DataError(f"There is no such table {folders}; give the path of a CSV file. Received: {table}")
    try:
        frame = pd.read_csv(where, dtype={image_column: str, **({label_column: str} if label_column else {})})
    except (ValueError, UnicodeError, OSError) as error:
        raise DataError(f"The metadata table cannot be read as CSV ({error}). Received: {where}") from error
    if image_column not in frame:
        return frame
    unnamed = np.flatnonzero(frame[image_column].isna()) + 2
    if len(unnamed):
        raise DataError(
            f"Every row needs an image in column '{image_column}'. Received: none in lines {_some(unnamed)} of {where}"
        )
    return frame.assign(**{image_column: frame[image_column].map(_stem)})


def _join(frame: pd.DataFrame, extra: pd.DataFrame, column: str, name: str) -> pd.DataFrame:
    _require(extra, [("image_column", column)], name)
    _refuse_repeated(extra[column], column, name)
    return frame.merge(extra.drop(columns=[c for c in extra if c != column and c in frame]), on=column, how="left")


def _refuse_repeated(ids: pd.Series, column: str, table: str) -> None:
    if ids.duplicated().any():
        raise DataError(
            f"Column '{column}' must name each image once; remove the extra rows. Received: "
            f"{_some(ids[ids.duplicated()].unique())} more than once in {table}"
        )


def _require(frame: pd.DataFrame, typed: list[tuple[str, str]], table: str, group: str = "data.source") -> None:
    """Raise an error with a line to type unless the table has the columns that `typed` names by their keys."""
    absent = [(f"{group}.{key}", column) for key, column in typed if column not in frame]
    if not absent:
        return
    key, wanted = absent[0]
    columns = [str(column) for column in frame]
    near = [name for name in columns if wanted.lower() in name.lower()] or difflib.get_close_matches(wanted, columns)
    example = shlex.quote(f"{key}={[*near, *columns][0]}")
    raise DataError(
        f"The table has no column {', '.join(f'{column!r} ({key})' for key, column in absent)}; name its own columns, "
        f"for example {example}. Received: columns {', '.join(map(repr, columns))} in {table}"
    )


def _one_hot(frame: pd.DataFrame, columns: list[str], table: str) -> pd.Series:
    try:
        hot = frame[columns].to_numpy(dtype=float)
        if not np.isin(hot, (0, 1)).all():
            raise ValueError("there are other numbers, or empty cells")
    except ValueError as error:
        raise DataError(f"One-hot label columns must hold 0 and 1 ({error}). Received: {table}") from error
    wrong = (hot == 1).sum(axis=1) != 1
    if wrong.any():
        raise DataError(
            f"Each row must have exactly one label column set to 1 of {', '.join(columns)}; drop the others or name "
            f"more in data.source.label_columns. Received: {int(wrong.sum())} such rows in {table}"
        )
    return pd.Series([columns[i] for i in hot.argmax(axis=1)], index=frame.index)


def _files_of(path: Path, ids: pd.Series) -> tuple[dict[str, str], int]:
    """Match ids to files relative to `path`; also return the number of image files.

    An id with folders matches the file whose path ends with the id, or whose whole path is the end of the id. If there
    is no such file, it matches a file of the same stem, unless another id has that stem. An id without folders matches
    the file of that stem.
    """
    files = [file.relative_to(path).as_posix() for file in image_files(path)]
    by_stem: dict[str, list[str]] = {}
    for file in files:
        by_stem.setdefault(_stem(PurePosixPath(file).name), []).append(file)
    found: dict[str, str] = {}
    stems = ids.map(lambda name: PurePosixPath(name).name)
    alone = ~stems.duplicated(keep=False)
    for name, stem, is_alone in zip(ids, stems, alone, strict=True):
        near = by_stem.get(stem, [])
        if "/" in name:
            there = [f for f in near if f"/{_stem(f)}".endswith(f"/{name}") or f"/{name}".endswith(f"/{_stem(f)}")]
            near = there or (near if is_alone else [])
        if len(near) > 1:
            raise DataError(
                "Two files share one image id; keep one, or give the ids with their folders. "
                f"Received: {path / near[0]} and {path / near[1]}"
            )
        if near:
            found[name] = near[0]
    return found, len(files)


def _stem(value: object) -> str:
    """Return a file name or path without the suffix of an image."""
    name = str(value).replace("\\", "/").strip().removeprefix("./")
    suffix = PurePosixPath(name).suffix.lower()
    return name[: -len(suffix)] if suffix in IMAGE_SUFFIXES else name


def _some(values: object, count: int = 5) -> str:
    listed = [str(v) for v in list(values)]  # type: ignore[call-overload]
    return ", ".join(listed[:count]) + (f" and {len(listed) - count} others" if len(listed) > count else "")
