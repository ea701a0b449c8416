"""A data source for images described by a metadata table, as in HAM10000 and the ISIC challenges."""

from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from melanoma.data.progress import Progress
from melanoma.data.sources import IMAGE_SUFFIXES, Source, image_files, ordered_classes
from melanoma.errors import DataError

__all__ = ["metadata_table"]


def metadata_table(
    path: Path,
    *,
    cache: Path,  # noqa: ARG001
    progress: Progress,  # noqa: ARG001
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
) -> Source:
    """Images anywhere below `path`, labelled by a table.

    Args:
        path: folder of the images (at any depth) and, usually, of the table.
        cache: unused; sources share one signature.
        progress: unused.
        table: CSV file, relative to `path` (then searched below it) or absolute.
        image_column: image id or file name, with or without folder and suffix.
        classes: class names in the wanted order, their number, or None.
        extra_tables: further CSV files, joined on the image column.
        label_column: column of the class, or None with `label_columns`.
        label_columns: one-hot columns named by class.
        labels: class name for each value in the table; values without one keep their own.
        lesion_column: lesion identifier; images of one lesion belong together.
        patient_column: patient identifier.
        age_column: age in years.
        sex_column: sex.
        site_column: anatomical site.

    Raises:
        DataError: a missing or unreadable table or column, an image id that stands twice, an image without a
            label, rows without an image file, or two files for one id.
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
    }
    needed = [image_column, *(label_columns or [label_column or "label"]), *(c for c in optional.values() if c)]
    _require(frame, needed, table)
    ids = frame[image_column]
    if ids.duplicated().any():
        raise DataError(
            f"Column '{image_column}' must name each image once; remove the extra rows. Received: "
            f"{_some(ids[ids.duplicated()].unique())} more than once in {table}"
        )
    found = _files_by_stem(path)
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
        "path": ids.map(lambda stem: found[stem].relative_to(path).as_posix()),
        "label": values.astype(str).map(lambda v: names.get(v, v)),
        "part": "",
        **{name: frame[column] for name, column in optional.items() if column},
    }
    result = pd.DataFrame(columns).sort_values("path", ignore_index=True)
    extra_files = len(found) - len(result)
    notes = [f"{extra_files} image files have no row in {table} and were passed over"] if extra_files else []
    return Source(path, result, ordered_classes(set(result.label), classes, path), notes)


def _read(path: Path, table: str, image_column: str) -> pd.DataFrame:
    """A table with its image column as text, since ids such as 0012 are not numbers, cut to the ids."""
    where = Path(table).expanduser()
    if not where.is_absolute():
        where = path / table
        if not where.is_file():
            where = next(iter(sorted(path.rglob(PurePosixPath(table).name))), where)
    if not where.is_file():
        raise DataError(f"There is no metadata table; give data.source.table=FILE. Received: {where}")
    try:
        frame = pd.read_csv(where, dtype={image_column: str})
    except (ValueError, UnicodeError, OSError) as error:
        raise DataError(f"The metadata table cannot be read as CSV ({error}). Received: {where}") from error
    return frame.assign(**{image_column: frame[image_column].map(_stem)}) if image_column in frame else frame


def _join(frame: pd.DataFrame, extra: pd.DataFrame, column: str, name: str) -> pd.DataFrame:
    _require(extra, [column], name)
    if extra[column].duplicated().any():
        twice = extra[column][extra[column].duplicated()].unique()
        raise DataError(f"Column '{column}' must name each image once. Received: {_some(twice)} twice in {name}")
    return frame.merge(extra.drop(columns=[c for c in extra if c != column and c in frame]), on=column, how="left")


def _require(frame: pd.DataFrame, columns: list[str], table: str) -> None:
    absent = [c for c in columns if c not in frame]
    if absent:
        raise DataError(
            f"The metadata table lacks {', '.join(repr(c) for c in absent)}; name its columns in data.source "
            f"(image_column, label_column, ...). Received: columns {', '.join(map(str, frame.columns))} in {table}"
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


def _files_by_stem(path: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in image_files(path):
        if file.stem in found:
            raise DataError(f"Two files share one image id; keep one. Received: {found[file.stem]} and {file}")
        found[file.stem] = file
    return found


def _stem(value: object) -> str:
    name = PurePosixPath(str(value).replace("\\", "/")).name
    suffix = PurePosixPath(name).suffix.lower()
    return name[: -len(suffix)] if suffix in IMAGE_SUFFIXES else name


def _some(values: object, count: int = 5) -> str:
    listed = [str(v) for v in list(values)]  # type: ignore[call-overload]
    return ", ".join(listed[:count]) + (f" and {len(listed) - count} more" if len(listed) > count else "")
