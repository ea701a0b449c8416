"""The cache of what is derived from data: keyed by content, written whole, shared by processes.

Layout: `<cache>/<kind>/<key>/`, made in a temporary folder beside it and renamed into place, so that an
entry either is complete or is not there. A lock per key lets one process make it while others wait.
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
    """One derived thing: its kind, key, size in bytes and time of last use (UTC)."""

    kind: str
    key: str
    bytes: int
    last_used: datetime
    path: Path


def content_key(*parts: Any) -> str:
    """A key of 32 hexadecimal digits for anything JSON can write, the same on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


def cached_folder(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder of an entry, made by `make(temporary_folder)` if it is not there yet.

    If `make` raises, nothing is left behind. A process that was killed leaves a temporary folder, which the
    next one to make the same entry removes.
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
    r"""Write a file so that readers see the old or the new content, never a part.

    What UTF-8 cannot write, as in some file names, is written as `\udcff`, which JSON reads back. A device or a pipe is
    written to and stays what it is; of a link, the file that it leads to is replaced.
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
    """Make the folder of a file that `write_atomically` will write after long work, and see that it can be written.

    Raises:
        OSError: it cannot.
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
    """Turn an OSError of writing a result into one message.

    Raises:
        DataError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"The {what} cannot be written ({error.strerror}). Received: {received}") from error


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def entries() -> list[CacheEntry]:
    """All complete entries, largest first."""
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
    """Remove all entries, or those of one kind, with what killed processes left; returns what was removed.

    A run that has an entry open keeps reading it: the files vanish when it ends.
    """
    removed = [entry for entry in entries() if kind in (None, entry.kind)]
    for name in KINDS if kind is None else (kind,):
        shutil.rmtree(cache_dir() / name, ignore_errors=True)
    return removed
