"""A progress bar for long work on a terminal, silence elsewhere."""

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

__all__ = ["track"]

T = TypeVar("T")


def track(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Yield the items; on standard error, if it is a terminal, a bar shows how many are done and the time left.

    Args:
        items: to go through.
        title: of the bar.
        total: how many there are, where the items do not know.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.progress import track as rich_track

    from melanoma.terminal import console

    if total is None and isinstance(items, Sized):
        total = len(items)
    yield from rich_track(items, title, total=total, console=console(), transient=True)
