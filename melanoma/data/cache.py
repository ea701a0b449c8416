"""Cache of derived data, keyed by content and shared between processes.

Layout: `<cache>/<kind>/<key>/`. An entry is created in a temporary folder and then renamed, so that an entry is either
complete or absent. A lock per key ensures that one process creates an entry while the others wait. An entry lists its
files with their sizes and checksums; it is created anew if they changed.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from melanoma.errors import DataError
from melanoma.paths import cache_dir

__all__ = [
    "CHECKPOINTS",
    "CHECKSUMS",
    "NO_SPACE",
    "CacheEntry",
    "cache_errors",
    "cached_folder",
    "check_writable",
    "clear",
    "content_key",
    "damaged_file",
    "entries",
    "remove_leftovers",
    "write_atomically",
    "write_errors",
    "write_folder",
]

log = logging.getLogger("melanoma")

CHECKSUMS = ".checksums.json"  # bytes and CRC-32 of each file, by its path in an entry
_COMPARED = 64 * 1024**2  # bytes of a file at the top of an entry, up to which its content is compared at each use
_CHUNK = 1024**2
# Errors of a disk that is full or read-only. The third is that of a limit of the process.
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}

KINDS = ("archives", "augmentor", "checkpoints", "decoded", "digests", "inspected", "near_duplicates", "synthetic")
CHECKPOINTS = "checkpoints"  # which cannot be made again, and are cleared by their name only


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
    """Return the folder of an entry, after creating it with `make(temporary_folder)` if it is absent or damaged.

    If `make` raises an exception, the temporary folder is removed. The temporary folder of a killed process is removed
    when the same entry is created the next time.

    Raises:
        DataError: If the disk of the cache is full or read-only.
    """
    home = cache_dir() / kind
    final = home / key
    with cache_errors():
        if not final.is_dir() or damaged_file(final) is not None:
            _create(final, make)
        with suppress(OSError):  # of a cache that others filled, or an entry that was just cleared
            os.utime(final)
    return final


def _create(final: Path, make: Callable[[Path], None]) -> None:
    home, key = final.parent, final.name
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / f".{key}.lock"):
        if final.is_dir():
            damage = damaged_file(final)
            if damage is None:
                return  # another process was faster
            log.warning("A part of the cache is damaged and is made anew: %s in %s", damage, final)
            # Moved first, so that no other process sees a part of it. It is removed as an orphan.
            final.rename(home / f".{key}.damaged.tmp")
        for orphan in home.glob(f".{key}.*.tmp"):
            shutil.rmtree(orphan, ignore_errors=True)
        write_folder(final, make)


def write_folder(final: Path, make: Callable[[Path], None], *, durable: bool = False) -> None:
    """Create a folder by `make(temporary_folder)`, with checksums of its files; it appears whole or not at all.

    Args:
        final: The folder, which does not exist, but its parent does.
        make: Function that writes the files.
        durable: Whether to wait until all is on the disk, so that it also survives a power cut.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent))
    try:
        make(temporary)
        files = {path.relative_to(temporary).as_posix(): _facts(path) for path in _files(temporary)}
        (temporary / CHECKSUMS).write_text(json.dumps(files), encoding="utf-8")
        temporary.chmod(0o755)
        if durable:
            for path in (*_files(temporary), temporary):
                _sync(path)
        temporary.rename(final)
        if durable:
            _sync(final.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def cache_errors() -> Iterator[None]:
    """Convert the error of a disk that is full, or of a cache that may not be written, to a DataError.

    Raises:
        DataError: If the block raises such an OSError.
    """
    try:
        yield
    except OSError as error:
        of_cache = str(error.filename or "").startswith(str(cache_dir()))
        if error.errno not in NO_SPACE and not (of_cache and isinstance(error, PermissionError)):
            raise
        raise DataError(
            f"The cache cannot be written ({error.strerror}). Make space, as by `melanoma cache clear`, or name a "
            f"folder on another disk by MELANOMA_CACHE_DIR; what was complete is kept. Received: {cache_dir()}"
        ) from error


def damaged_file(entry: Path, *, thoroughly: bool = False) -> str | None:
    """Describe the first file of an entry that was changed since it was made; None if there is none.

    An entry of an older version has no checksums and is not compared.

    Args:
        entry: Folder of the entry.
        thoroughly: Whether to compare the content of all files. If not, only sizes are compared, and the content of
            files of up to 64 MiB at the top of the entry.
    """
    try:
        known = dict(json.loads((entry / CHECKSUMS).read_text(encoding="utf-8")))
        for name, (size, checksum) in known.items():
            path = entry / name
            compared = thoroughly or (path.parent == entry and size <= _COMPARED)
            if path.stat().st_size != size or (compared and _checksum(path) != checksum):
                return str(name)
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        # Another process may just have moved the whole entry away, to make it anew.
        return None if missing == CHECKSUMS and entry.is_dir() else missing
    except (ValueError, TypeError):
        return CHECKSUMS
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _facts(path: Path) -> tuple[int, int]:
    return path.stat().st_size, _checksum(path)


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            value = zlib.crc32(block, value)
    return value


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


def clear(
    kind: str | None = None, *, unused_days: float | None = None, keep_gigabytes: float | None = None
) -> list[CacheEntry]:
    """Remove entries, and return the removed ones.

    A run that has an entry open can still read it. The disk space is freed when the run ends. Without limits, the
    leftovers of killed processes are removed, too.

    Args:
        kind: Only entries of this kind; None for all kinds but checkpoints of interrupted runs.
        unused_days: Only entries that were not used in these days.
        keep_gigabytes: Only the entries that were not used for longest, so that at most this size stays.
    """
    kinds = [name for name in KINDS if name == kind or (kind is None and name != CHECKPOINTS)]
    removed = [entry for entry in entries() if entry.kind in kinds]
    if unused_days is None and keep_gigabytes is None:
        for name in kinds:
            shutil.rmtree(cache_dir() / name, ignore_errors=True)
        return removed
    if unused_days is not None:
        before = datetime.now(UTC) - timedelta(days=unused_days)
        removed = [entry for entry in removed if entry.last_used < before]
    if keep_gigabytes is not None:
        newest = sorted(removed, key=lambda entry: entry.last_used, reverse=True)
        sizes = accumulate(entry.bytes for entry in newest)
        removed = [entry for entry, size in zip(newest, sizes, strict=True) if size > keep_gigabytes * 1e9]
    for entry in removed:
        if entry.path.is_dir():
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            entry.path.unlink(missing_ok=True)
    return removed


def remove_leftovers() -> int:
    """Remove the temporary folders of killed processes, and return their number. Those of living ones are locked."""
    removed = 0
    for orphan in cache_dir().glob("*/.*.tmp"):
        key = orphan.name.removeprefix(".").rsplit(".", 2)[0]
        with suppress(Timeout, OSError), FileLock(orphan.parent / f".{key}.lock", timeout=0):
            if orphan.is_dir():
                shutil.rmtree(orphan)
                removed += 1
    return removed
