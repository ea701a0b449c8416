"""A progress bar for long work on a terminal, silence elsewhere."""

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

__all__ = ["Progress", "SilentProgress", "TerminalProgress"]

T = TypeVar("T")


class Progress(Protocol):
    """Anything that can show how far an iteration is."""

    def track(self, items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
        """Yield the items, showing how many are done."""


class SilentProgress:
    """Shows nothing: for tests, notebooks and worker processes."""

    def track(self, items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
        """Yield the items."""
        del title, total
        yield from items


class TerminalProgress:
    """A Rich bar on standard error, with the time left, if that is a terminal and the work is not tiny."""

    def track(self, items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
        """Yield the items, showing how many are done."""
        if not sys.stderr.isatty():
            yield from items
            return
        from rich.console import Console
        from rich.progress import track

        if total is None and isinstance(items, Sized):
            total = len(items)
        yield from track(items, title, total=total, console=Console(stderr=True), transient=True)
