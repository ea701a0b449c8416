"""Progress bar for long operations, shown only on a terminal."""

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

__all__ = ["track"]

T = TypeVar("T")


def track(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and show the progress and the remaining time on standard error, if it is a terminal.

    Args:
        items: Items to iterate over.
        title: Title of the progress bar.
        total: Number of items, if `items` has no length.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.progress import track as rich_track

    from melanoma.terminal import console

    if total is None and isinstance(items, Sized):
        total = len(items)
    yield from rich_track(items, title, total=total, console=console(), transient=True)
