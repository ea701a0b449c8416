"""Data sources: the location, label and delivered part of each image.

A source is a function `source(path, *, classes, **options) -> Source` that `_target_` in a data config refers to. To
support another kind of data set, write such a function in your own package. `path` is None if `data.path` is null.
"""

import logging
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from melanoma.config.schema import ArchiveConfig
from melanoma.data.archive import unpack
from melanoma.data.cache import cached_folder, content_key
from melanoma.errors import DataError
from melanoma.paths import user_path

__all__ = ["IMAGE_SUFFIXES", "METADATA", "Source", "class_folders", "image_files", "open_path", "synthetic"]

log = logging.getLogger("melanoma")

# Formats other than JPEG and PNG are listed so that such files are quarantined instead of ignored.
IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".webp",
        ".heic",
        ".heif",
        ".avif",
        ".jp2",
        ".dcm",
    ]
)
METADATA = ("lesion", "patient", "age", "sex", "site", "skin_tone")
_PARTS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "validation", "valid": "validation", "validation": "validation",
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A data set as delivered.

    Attributes:
        root: Folder that `table.path` is relative to.
        table: One row per image with columns `path` (POSIX, relative), `label` (class name), `part` (delivered part:
            `train`, `validation`, `test` or empty), and any of `lesion`, `patient`, `age`, `sex`, `site`.
        classes: Class names in the order of the model's outputs.
        notes: Notes to log with the run, such as skipped files.
    """

    root: Path
    table: pd.DataFrame
    classes: list[str]
    notes: list[str] = field(default_factory=list)


def class_folders(path: Path | None, *, classes: list[str] | int | None = None) -> Source:
    """List the images in class folders, either directly in a folder or in its train/test[/validation] folders.

    Up to two folders that only wrap another folder are skipped.

    Args:
        path: Root folder. Symbolic links inside it are not followed.
        classes: Class names in the desired order, the number of classes, or None for the sorted folder names.

    Raises:
        DataError: If there are no class folders, a class has no images, or the classes differ from `classes`.
    """
    if path is None:
        raise DataError("data.path must be given: a folder or a .zip of class folders. Received: data.path=null")
    root = _below_wrappers(path)
    parts = {p.name: _PARTS[p.name.casefold()] for p in _subfolders(root) if p.name.casefold() in _PARTS}
    rows: list[tuple[str, str, str]] = []
    found: set[str] = set()
    nested: dict[str, set[str]] = {}
    for name, part in parts.items() if parts else [("", "")]:
        for folder in _subfolders(root / name):
            label = unicodedata.normalize("NFC", folder.name)
            if not _is_text(label):
                raise DataError(f"The name of a class folder must be UTF-8; rename it. Received: {str(folder)!a}")
            found.add(label)
            files = image_files(folder)
            rows += [(f.relative_to(path).as_posix(), label, part) for f in files]
            if inside := {f.relative_to(folder).parts[0] for f in files if f.parent != folder}:
                nested.setdefault(label, set()).update(inside)
    table = pd.DataFrame(rows, columns=["path", "label", "part"], dtype=object)
    if parts and "train" not in parts.values():
        raise DataError(
            "There is a test or validation folder but no train folder beside it; expected train/CLASS/*.jpg. "
            f"Received: {path} with {', '.join(sorted(parts))}"
        )
    names = ordered_classes(found, classes, path)
    empty = [name for name in names if name not in set(table.label)]
    if empty:
        raise DataError(
            f"No images for {_listed(empty)}: expected JPEG or PNG files in each class folder. Put images there or "
            f"remove the folder. Received: {path}"
        )
    notes = [
        f"The class folder '{label}' contains folders ({_listed(sorted(inside))}), whose images count as this class; "
        "is data.path one level too high?"
        for label, inside in nested.items()
    ]
    return Source(path, table.sort_values("path", ignore_index=True), names, notes)


def synthetic(path: Path | None, *, classes: list[str] | int | None = None, **options: Any) -> Source:
    """List synthetic images, which are written to the cache on first use. The options are those of `write_synthetic`.

    Raises:
        DataError: If `path` is given or the options are invalid.
    """
    from melanoma.data.synthetic import class_names, write_synthetic

    if path is not None:
        raise DataError(f"data=synthetic draws its own images; for yours use data=folder. Received: data.path={path}")
    names = class_names(classes) if isinstance(classes, int) else list(classes or class_names(2))
    key = content_key("synthetic-1", names, options)

    def make(folder: Path) -> None:
        try:
            write_synthetic(folder, classes=names, **options)
        except (TypeError, ValueError) as error:
            raise DataError(f"data.source: {error}") from error

    folder = cached_folder("synthetic", key, make)
    source = class_folders(folder, classes=names)
    metadata = pd.read_csv(folder / "metadata.csv").rename(columns={"image": "path"}).drop(columns="label")
    notes = ["The images are drawn, so that results say nothing about real lesions"]
    return Source(folder, source.table.merge(metadata, on="path", how="left"), names, notes)


def open_path(path: str, caps: ArchiveConfig, key: str = "data.path") -> Path:
    """Return the folder that `data.path` or another key refers to; for an archive, the folder of its extracted files.

    Raises:
        DataError: If the path does not exist, is neither a folder nor a .zip, or cannot be read.
    """
    where = user_path(path).absolute()
    try:
        if where.is_dir():
            os.listdir(where)
            return where
        if where.is_file():
            if where.suffix.lower() != ".zip":
                raise DataError(f"{key} must be a folder or a .zip. Received: {path}")
            return unpack(where, caps)
    except PermissionError as error:
        raise DataError(f"{key} cannot be read ({error.strerror}). Received: {path}") from error
    raise DataError(f"{key} does not exist; expected a folder of images or a .zip. Received: {path}")


def image_files(folder: Path) -> list[Path]:
    """Return the sorted files below a folder that have the suffix of an image, without links and hidden files.

    Files whose name is not UTF-8 are skipped with a warning, because tables and MLflow cannot store such names. So are
    pipes, devices and sockets.
    """
    found = []
    for home, folders, files in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(home, name)
            if path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".") and not path.is_symlink():
                if not path.is_file():
                    log.warning("Skipped what is no regular file: %s", ascii(str(path)))
                elif _is_text(str(path)):
                    found.append(path)
                else:
                    log.warning("Skipped a file whose name is not UTF-8; rename it: %s", ascii(str(path)))
    return sorted(found)


def ordered_classes(found: set[str], wanted: Sequence[str] | int | None, path: Path) -> list[str]:
    """Return the classes in the order of the model's outputs, checked against `data.classes`.

    Raises:
        DataError: If there are no classes, or they differ from `data.classes`.
    """
    if isinstance(wanted, int):
        if len(found) != wanted:
            raise DataError(
                f"data.classes asks for {wanted} classes and the data has {len(found)}. "
                f"Received: {', '.join(sorted(found)) or 'no class folders'} in {path}"
            )
        wanted = None
    if wanted is not None:
        names = [unicodedata.normalize("NFC", name) for name in wanted]
        if set(names) != found:
            raise DataError(
                "The classes in the data are not those of data.classes. Choose another data config, or give "
                f"data.classes=null to take them as they are. Missing: {_listed(sorted(set(names) - found))}; "
                f"not expected: {_listed(sorted(found - set(names)))}. Received: {path}"
            )
    else:
        names = sorted(found)
    if not names:
        raise DataError(
            "No classes found; expected one folder of images for each class, CLASS/*.jpg or train/CLASS/*.jpg, or a "
            f"table with a label for each image. Received: {path}"
        )
    return names


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _below_wrappers(path: Path) -> Path:
    """Skip folders that contain only one other folder, which are common in archives."""
    for _ in range(2):
        below = _subfolders(path)
        wraps = len(below) == 1 and below[0].name.casefold() not in _PARTS and _subfolders(below[0])
        if not wraps:
            return path
        path = below[0]
    return path


def _subfolders(path: Path) -> list[Path]:
    return sorted(
        Path(entry.path)
        for entry in os.scandir(path)
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith((".", "__MACOSX"))
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) if names else "none"
