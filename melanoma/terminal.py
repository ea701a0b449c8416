"""Terminal output: the consoles and the log handlers."""

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
    """Return the console on standard error, shared by log lines and progress bars so that they do not overlap."""
    return _Output(stderr=True, soft_wrap=True, highlight=False)


@cache
def out() -> Console:
    """Return the console on standard output, for results; 120 columns wide if standard output is not a terminal."""
    if sys.stdout is None:  # closed by the parent process
        return _Output(file=open(os.devnull, "w"))  # noqa: PTH123
    return _Output(highlight=False, width=None if sys.stdout.isatty() else 120)


def log_to(folder: Path, name: str) -> Path:
    """Send the project's log to the terminal and to `<folder>/<name>.log`, and return the path of that file."""
    log_to_terminal()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.log"
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("melanoma").addHandler(file)
    return path


def log_to_terminal() -> None:
    """Send the project's log to the terminal only."""
    logger = logging.getLogger("melanoma")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_ConsoleHandler())


@contextmanager
def quiet_native_imports() -> Iterator[None]:
    """Suppress what native libraries write directly to standard error during import.

    TensorFlow prints its first messages before it reads its log level. Import errors are still raised. Nothing is
    suppressed if `TF_CPP_MIN_LOG_LEVEL` is 0 or 1.
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
    """Console on standard output or error. If its reader (head, less) exits, the command continues."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


class _ConsoleHandler(logging.Handler):
    """Handler that writes log lines, unwrapped, to the console of the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else None
        console().print(self.format(record), style=style, markup=False)
