"""What a person sees: one console, log lines, tables."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from rich.console import Console

__all__ = ["console", "log_to", "log_to_terminal", "out", "quiet_native_imports"]


@cache
def console() -> Console:
    """Standard error, shared by log lines and progress bars so that they do not overwrite each other."""
    return _Output(stderr=True, soft_wrap=True, highlight=False)


@cache
def out() -> Console:
    """Standard output, for results. Wide where it is a file, so that a table's cells are not cut."""
    if sys.stdout is None:  # closed by whoever started us
        return _Output(file=open(os.devnull, "w"))  # noqa: PTH123
    return _Output(highlight=False, width=None if sys.stdout.isatty() else 120)


def log_to(folder: Path, name: str) -> Path:
    """Send the project's log to the terminal and to `<folder>/<name>.log`; returns that file."""
    log_to_terminal()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.log"
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("melanoma").addHandler(file)
    return path


def log_to_terminal() -> None:
    """Send the project's log to the terminal, and nowhere else."""
    logger = logging.getLogger("melanoma")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_ConsoleHandler())


@contextmanager
def quiet_native_imports() -> Iterator[None]:
    """Silence what native libraries write straight to standard error while they are imported.

    TensorFlow's greeting comes before its log level is read. A failing import still raises. Where the user set a log
    level, nothing is silenced.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") in ("0", "1"):
        yield
        return
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


class _Output(Console):
    """Standard output or error; when its reader (head, less) leaves, the command goes on to its end."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


class _ConsoleHandler(logging.Handler):
    """Log lines on the console that progress bars are on, unwrapped."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else None
        console().print(self.format(record), style=style, markup=False)
