"""`melanoma COMMAND [arguments]`: looks the command up and imports it only then."""

import difflib
import importlib
import os
import select
import signal
import sys
from types import FrameType

from melanoma import __version__
from melanoma.errors import MelanomaError, RunKilled

__all__ = ["main"]

COMMANDS = {
    "train": "train a classifier, evaluate it and log all of it to MLflow",
    "sweep": "train many variants, in parallel and to be resumed, and rank them",
    "evaluate": "evaluate a saved model on any data source, into a run of its own",
    "compare": "metrics of runs side by side, with paired tests on the same images",
    "predict": "class probabilities for images, as a table and a CSV",
    "promote": "make the best run the champion of the model registry, if it deserves it",
    "rollback": "make the champion before the present one the champion again",
    "registry": "registered versions, their metrics, and the decisions on them",
    "serve": "answer requests with the champion, by MLflow's scoring server",
    "app": "a page to try the champion on images of your own",
    "export": "write a model as ONNX or LiteRT",
    "report": "the reference studies as published, re-created and measured: a table and a figure",
    "audit": "find duplicates, contradicting labels, leaks and damaged files in a data set",
    "cache": "list or clear what was derived from data",
}


_interrupted = False


def main(arguments: list[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    try:
        _run(list(sys.argv[1:] if arguments is None else arguments))
        if sys.stdout is not None:
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        # A library may have caught the interruption and failed of it.
        if _interrupted or isinstance(error, KeyboardInterrupt):
            _fail("Interrupted; what was logged is kept.", 130)
        if isinstance(error, MelanomaError):
            _fail(str(error), error.exit_code)
        if not isinstance(error, BrokenPipeError) or not _reader_has_left():
            raise
        sys.exit(128 + signal.SIGPIPE)
    except RunKilled:
        _fail("Ended by SIGTERM; what was logged is kept.", RunKilled.exit_code)


def _run(arguments: list[str]) -> None:
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h", "help"):
        _write(_help())
        if not arguments:
            sys.exit(2)
        return
    if name == "--version":
        _write(f"melanoma {__version__}")
        return
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        _fail(f"There is no such command.{hint} Commands: {', '.join(COMMANDS)}. Received: {name}", 2)
    signal.signal(signal.SIGTERM, _raise_killed)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _raise_interrupted)
    importlib.import_module(f"melanoma.commands.{name}").main(arguments[1:])


def _reader_has_left() -> bool:
    """Whether nobody reads our output any more (head, less); if so it goes nowhere from here on, without a word."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors are always told
    left = bool(poll.poll(0))
    if left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return left


def _raise_killed(_signal: int, _frame: FrameType | None) -> None:
    raise RunKilled


def _raise_interrupted(_signal: int, _frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


def _help() -> str:
    rows = "\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items())
    return (
        f"melanoma {__version__}: train, track, compare and promote skin-lesion classifiers.\n"
        "Research software, not a medical device.\n\n"
        f"Usage: melanoma COMMAND [group=choice] [key=value] ...\n\n{rows}\n\n"
        "`melanoma COMMAND --help` shows a command's configuration."
    )


def _write(text: str) -> None:
    if sys.stdout is not None:  # not closed by whoever started us
        sys.stdout.write(text + "\n")


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"melanoma: {message}\n")
    sys.exit(code)
