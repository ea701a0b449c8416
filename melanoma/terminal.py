"""Terminal output: the consoles and the log handlers."""

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

__all__ = ["console", "is_interactive", "log_to", "log_to_terminal", "out", "quiet_native_imports", "stage"]

_PATIENCE = 1.5  # seconds after which a stage is named if there is no terminal
_stages: list[str] = []  # the current stage is the last
_status: list[Any] = []  # the status line of the terminal, if any


@cache
def console() -> Console:
    """Return the console on standard error, shared by log lines and progress bars so that they do not overlap.

    In a notebook it draws with ipywidgets; where these are not installed, it prints plain lines.
    """
    found = _Output(stderr=True, soft_wrap=True, highlight=False)
    if found.is_jupyter and find_spec("ipywidgets") is None:
        return _Output(soft_wrap=True, highlight=False, force_jupyter=False, force_terminal=False)
    return found


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


def is_interactive() -> bool:
    """Return whether progress can be drawn: on a terminal or in a notebook."""
    return console().is_terminal or console().is_jupyter


@contextmanager
def stage(text: str) -> Iterator[None]:
    """Say what the command is doing: a status line on a terminal, otherwise a line if it takes longer than a moment."""
    if not is_interactive():
        timer = threading.Timer(_PATIENCE, _say, [text])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        return
    _stages.append(text)
    if not _status:
        _status.append(console().status(text))
        _status[0].start()
    _status[0].update(text)
    try:
        yield
    finally:
        _stages.pop()
        if _stages:
            _status[0].update(_stages[-1])
        else:
            _status.pop().stop()


def _say(text: str) -> None:
    console().print(f"{text} ...", markup=False)


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
    # Our own messages, such as the name of the stage, go to where the others are kept from.
    with os.fdopen(os.dup(kept), "w", encoding="utf-8") as own:
        try:
            os.dup2(null, 2)
            if console().stderr and not console().is_jupyter:
                console().file = own
            with stage("Loading TensorFlow and MLflow"):
                yield
        finally:
            console().file = None  # type: ignore[assignment]  # again what sys.stderr is at the time
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
