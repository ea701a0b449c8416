"""Multi-threaded processing of image files, once for each distinct content."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from melanoma.data.decode import ReadFault, UnreadableImage
from melanoma.data.progress import track
from melanoma.errors import DataError

__all__ = ["available_cores", "by_content", "read_each"]

_CHUNK = 256
T = TypeVar("T")


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    return os.cpu_count() or 1 if affinity is None else len(affinity(0))


def by_content(files: Sequence[Path], digests: Sequence[str]) -> dict[str, Path]:
    """Return the first file of each SHA-256, sorted by SHA-256."""
    first = dict(zip(reversed(digests), reversed(files), strict=True))
    return {digest: first[digest] for digest in sorted(first)}


def read_each(
    files: Mapping[str, Path], read: Callable[[Path], T], title: str
) -> Iterator[tuple[str, T | UnreadableImage]]:
    """Read each distinct content. At most a few hundred results are in memory at a time.

    Args:
        files: One file for each SHA-256; see `by_content`.
        read: Function that reads one file. It raises `UnreadableImage` if the image cannot be read.
        title: Title of the progress bar.

    Yields:
        The SHA-256, and the result or the `UnreadableImage` exception.

    Raises:
        DataError: If the machine failed to read a file. The cause is not the image, so no result is stored for it.
    """

    def attempt(digest: str) -> T | UnreadableImage:
        try:
            return read(files[digest])
        except ReadFault as error:
            raise DataError(f"An image could not be read ({error}). Received: {files[digest]}") from error
        except UnreadableImage as error:
            return error

    unique = list(files)
    chunks = [unique[i : i + _CHUNK] for i in range(0, len(unique), _CHUNK)]
    with ThreadPoolExecutor(available_cores()) as pool:
        for chunk in track(chunks, title):
            yield from zip(chunk, pool.map(attempt, chunk), strict=True)
