"""Progress bar for long operations, shown only on a terminal."""

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

__all__ = ["track"]

T = TypeVar("T")


def track(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and show the progress and the remaining time, on a terminal or in a notebook.

    Args:
        items: Items to iterate over.
        title: Title of the progress bar.
        total: Number of items, if `items` has no length.
    """
    from melanoma.terminal import console, is_interactive

    if not is_interactive():
        yield from items
        return
    from rich.progress import track as rich_track

    if total is None and isinstance(items, Sized):
        total = len(items)
    yield from rich_track(items, title, total=total, console=console(), transient=True)
