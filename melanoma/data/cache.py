"""Cache of derived data, keyed by content and shared between processes.

Layout: `<cache>/<kind>/<key>/`. An entry is created in a temporary folder and then renamed, so that an entry is either
complete or absent. A lock per key ensures that one process creates an entry while the others wait.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from melanoma.errors import DataError
from melanoma.paths import cache_dir

__all__ = [
    "CacheEntry",
    "cached_folder",
    "check_writable",
    "clear",
    "content_key",
    "entries",
    "write_atomically",
    "write_errors",
]

KINDS = ("archives", "augmentor", "decoded", "digests", "inspected", "near_duplicates", "synthetic")


@dataclass(frozen=True)
class CacheEntry:
    """A cache entry with its kind, key, size in bytes, time of last use (UTC) and path."""

    kind: str
    key: str
    bytes: int
    last_used: datetime
    path: Path


def content_key(*parts: Any) -> str:
    """Return a key of 32 hexadecimal digits for any JSON-serializable values, the same on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


def cached_folder(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """Return the folder of an entry, after creating it with `make(temporary_folder)` if it does not exist.

    If `make` raises an exception, the temporary folder is removed. The temporary folder of a killed process is removed
    when the same entry is created the next time.
    """
    home = cache_dir() / kind
    final = home / key
    if not final.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / f".{key}.lock"):
            if not final.is_dir():
                for orphan in home.glob(f".{key}.*.tmp"):
                    shutil.rmtree(orphan, ignore_errors=True)
                temporary = Path(tempfile.mkdtemp(prefix=f".{key}.", suffix=".tmp", dir=home))
                try:
                    make(temporary)
                    temporary.chmod(0o755)
                    temporary.rename(final)
                except BaseException:
                    shutil.rmtree(temporary, ignore_errors=True)
                    raise
    os.utime(final)
    return final


def write_atomically(path: Path, content: str | bytes) -> None:
    r"""Write a file atomically: readers see either the old or the new content.

    Characters that UTF-8 cannot encode, as in some file names, are written as escapes such as `\udcff`, which JSON can
    read. Devices and pipes are written in place. For a symbolic link, its target is replaced.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    if _is_special(path):
        path.write_bytes(data)
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def check_writable(path: Path) -> None:
    """Create the folder of a file and check that `write_atomically` can write the file, before long work starts.

    Raises:
        OSError: If the file cannot be written.
    """
    if _is_special(path):
        return
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    folder = path.resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def write_errors(what: str, received: str) -> Iterator[None]:
    """Convert an OSError while writing a result to a DataError.

    Raises:
        DataError: If the block raises an OSError.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"The {what} cannot be written ({error.strerror}). Received: {received}") from error


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def entries() -> list[CacheEntry]:
    """Return all complete entries, largest first."""
    found, cache = [], cache_dir()
    for kind in KINDS:
        for path in sorted((cache / kind).glob("*")):
            if path.name.startswith("."):
                continue
            files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
            used = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            found.append(CacheEntry(kind, path.stem, sum(f.stat().st_size for f in files), used, path))
    return sorted(found, key=lambda entry: -entry.bytes)


def clear(kind: str | None = None) -> list[CacheEntry]:
    """Remove all entries, or those of one kind, with the leftovers of killed processes, and return the removed entries.

    A run that has an entry open can still read it. The disk space is freed when the run ends.
    """
    removed = [entry for entry in entries() if kind in (None, entry.kind)]
    for name in KINDS if kind is None else (kind,):
        shutil.rmtree(cache_dir() / name, ignore_errors=True)
    return removed
