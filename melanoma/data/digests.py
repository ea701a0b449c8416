"""SHA-256 of image files, cached by path, size and modification time, so that unchanged files are read only once."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from melanoma.data.archive import file_sha256
from melanoma.data.cache import cache_errors, content_key, write_atomically
from melanoma.data.contents import available_cores
from melanoma.data.decode import refused, unusable
from melanoma.data.progress import track
from melanoma.paths import cache_dir

__all__ = ["data_fingerprint", "file_digests", "unread_reasons"]


def file_digests(root: Path, paths: list[str]) -> list[str | None]:
    """Return the hexadecimal SHA-256 of each file below `root`, or None for a file that cannot be read.

    A file that is not opened at all is one of these; see `melanoma.data.decode.unusable`.
    """
    memo_file = cache_dir() / "digests" / f"{content_key(str(root.resolve()))}.json"
    memo = _remembered(memo_file)

    def digest(path: str) -> tuple[str, list[int | str] | None]:
        try:
            status = (root / path).stat()
            if refused(status) is not None:
                return path, None
            known = memo.get(path)
            if known and known[:2] == [status.st_size, status.st_mtime_ns] and os.access(root / path, os.R_OK):
                return path, known
            return path, [status.st_size, status.st_mtime_ns, file_sha256(root / path)]
        except OSError:
            return path, None

    with ThreadPoolExecutor(available_cores()) as pool:
        found = dict(track(pool.map(digest, paths), "Reading images", len(paths)))
    kept = {path: entry for path, entry in found.items() if entry is not None}
    if any(memo.get(path) != entry for path, entry in kept.items()):
        with cache_errors():
            files = {**memo, **kept}
            write_atomically(memo_file, json.dumps({"checksum": content_key(files), "files": files}))
    return [None if (entry := found[path]) is None else str(entry[2]) for path in paths]


def unread_reasons(root: Path, table: pd.DataFrame) -> pd.Series:
    """Return why each file without a `sha256` was not read, by the index of the table."""
    unread = table.path[table.sha256.isna()]
    return unread.map(lambda path: unusable(root / path) or "no permission to read it, or deleted").astype(object)


def data_fingerprint(table: pd.DataFrame) -> str:
    """Compute a fingerprint of a data set from the content, label and delivered part of each image, in any order.

    File names are ignored, so that a data set with renamed files has the same fingerprint.
    """
    rows = sorted(f"{row.sha256}\t{row.label}\t{row.part}" for row in table.itertuples())
    return content_key("data-1", rows)


def _remembered(memo_file: Path) -> dict[str, list[int | str]]:
    """Return the sizes, times and SHA-256 of files; empty if the memo is damaged or of an older version."""
    try:
        memo = json.loads(memo_file.read_text(encoding="utf-8"))
        files = dict(memo["files"])
        return files if memo["checksum"] == content_key(files) else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}
