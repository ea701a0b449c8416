"""Something done once for each content of a data set's files, in threads."""

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
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0))


def by_content(files: Sequence[Path], digests: Sequence[str]) -> dict[str, Path]:
    """The first file of each SHA-256, in the order of these."""
    first = dict(zip(reversed(digests), reversed(files), strict=True))
    return {digest: first[digest] for digest in sorted(first)}


def read_each(
    files: Mapping[str, Path], read: Callable[[Path], T], title: str
) -> Iterator[tuple[str, T | UnreadableImage]]:
    """Read each content; memory is that of a few hundred results.

    Args:
        files: see `by_content`.
        read: of one file; raises `UnreadableImage`.
        title: of the progress bar.

    Yields:
        SHA-256, and what was read or why it cannot be.

    Raises:
        DataError: the machine failed to read one, which tells nothing of the image, so that nothing is kept of it.
    """

    def attempt(digest: str) -> T | UnreadableImage:
        try:
            return read(files[digest])
        except ReadFault as error:
            raise DataError(f"An image could not be read this time ({error}). Received: {files[digest]}") from error
        except UnreadableImage as error:
            return error

    unique = list(files)
    chunks = [unique[i : i + _CHUNK] for i in range(0, len(unique), _CHUNK)]
    with ThreadPoolExecutor(available_cores()) as pool:
        for chunk in track(chunks, title):
            yield from zip(chunk, pool.map(attempt, chunk), strict=True)
