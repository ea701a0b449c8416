"""Safe extraction of untrusted .zip archives."""

import hashlib
import lzma
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from melanoma.config.schema import ArchiveConfig
from melanoma.data.cache import cached_folder
from melanoma.data.progress import track
from melanoma.errors import DataError

__all__ = ["file_sha256", "unpack"]

_SMALL = 100e6  # bytes that any archive may unpack to


def unpack(archive: Path, caps: ArchiveConfig) -> Path:
    """Return the folder of an archive's files in the cache. An archive is extracted on first use of its content.

    Args:
        archive: A .zip file.
        caps: Limits for the number of files and bytes in the archive.

    Raises:
        DataError: If the file is not a zip, is damaged or encrypted, has a member that would be written outside the
            folder or is a link, or exceeds the limits.
    """
    try:
        opened = zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DataError(f"The archive is not a readable .zip ({error}). Received: {archive}") from error
    with opened:
        members = [m for m in opened.infolist() if not m.is_dir() and not _is_clutter(m.filename)]
        _check(members, archive, caps)

        def make(folder: Path) -> None:
            for member in track(members, f"Unpacking {archive.name}"):
                _extract(opened, member, folder, archive)

        return cached_folder("archives", file_sha256(archive)[:32], make)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(members: list[zipfile.ZipInfo], archive: Path, caps: ArchiveConfig) -> None:
    if len(members) > caps.max_files:
        raise DataError(
            f"The archive holds more files than data.archive.max_files={caps.max_files} allows; raise that if you "
            f"trust it. Received: {len(members)} files in {archive}"
        )
    size = sum(m.file_size for m in members)
    if size > caps.max_gigabytes * 1e9:
        raise DataError(
            f"The archive unpacks to more than data.archive.max_gigabytes={caps.max_gigabytes:g} allows; raise that if "
            f"you trust it. Received: {size / 1e9:.2f} GB in {archive}"
        )
    ratio = size / max(archive.stat().st_size, 1)
    if size > _SMALL and ratio > caps.max_ratio:
        raise DataError(
            f"The archive unpacks to more than data.archive.max_ratio={caps.max_ratio:g} times its size, as none of "
            f"photographs does; raise that if you trust it. Received: {size / 1e9:.2f} GB, {ratio:.0f} times {archive}"
        )
    seen: set[PurePosixPath] = set()
    for member in members:
        name = member.filename
        path = PurePosixPath(name.replace("\\", "/"))
        if not path.name:
            raise DataError(f"A member of the archive has no name; make the archive anew. Received: {archive}")
        if path in seen:
            raise DataError(
                f"The archive holds two files of one name; make it anew with one of them. Received: {name!r} in "
                f"{archive}"
            )
        seen.add(path)
        drive = len(path.parts) > 0 and path.parts[0].endswith(":")
        if path.is_absolute() or ".." in path.parts or drive or "\0" in name:
            raise DataError(f"A member of the archive would be written outside its folder; refused. Received: {name!r}")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise DataError(f"A member of the archive is a link or a device; refused. Received: {name!r}")
        if member.flag_bits & 0x1:
            raise DataError(f"The archive is encrypted; unpack it yourself and give the folder. Received: {archive}")


def _extract(opened: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, archive: Path) -> None:
    target = folder / PurePosixPath(member.filename.replace("\\", "/"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # zipfile stops reading at the declared size, so the limits also hold for the extracted bytes.
        with opened.open(member) as source, target.open("xb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError) as error:
        raise DataError(f"The archive is damaged at {member.filename!r} ({error}). Received: {archive}") from error
    except OSError as error:
        raise DataError(f"Unpacking failed at {member.filename!r} ({error}). Received: {archive}") from error


def _is_clutter(name: str) -> bool:
    return name.startswith("__MACOSX/") or PurePosixPath(name).name in (".DS_Store", "Thumbs.db")
