"""The command line `melanoma COMMAND [arguments]`: the table of commands and their dispatch."""

import difflib
import gc
import importlib
import os
import select
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from melanoma import __version__
from melanoma.errors import FAILURE_FILE_VARIABLE, MelanomaError, RunKilled

__all__ = ["COMMANDS", "Command", "main"]

_MODEL = {"model": "saved_model"}
_RUN_OR_MODEL = {"run": "saved_model", **_MODEL}  # an error names the last


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        help: One line for the list of commands.
        run: Function to call, as `module:function`. With a `schema`, it receives the configuration, the overrides and
            the folder for the run's files; with `on_store`, the typed settings and the URI of the store. Without a
            `schema`, it receives the arguments after the command.
        schema: Configuration class, as `module:class`; None if the command parses its own arguments.
        checks: Function that finds contradictions between keys, as `module:function`.
        on_store: Whether the command works on an existing tracking store.
        rename: Maps keys on the command line to keys of the configuration.
        switches: Maps flags on the command line to overrides.
    """

    help: str
    run: str
    schema: str | None = None
    checks: str | None = None
    on_store: bool = False
    rename: Mapping[str, str] = field(default_factory=dict)
    switches: Mapping[str, str] = field(default_factory=dict)


COMMANDS = {
    "train": Command(
        "train a classifier, evaluate it and log all of it to MLflow",
        "melanoma.commands.train:main",
    ),
    "sweep": Command(
        "train many variants, in parallel and resumable, and rank them",
        "melanoma.commands.sweep:main",
    ),
    "plan": Command(
        "how wide intervals will be, and which gates and comparisons the test images allow",
        "melanoma.workflows.plan:plan",
        "melanoma.config.command_schema:PlanConfig",
        "melanoma.workflows.checks:plan_faults",
    ),
    "evaluate": Command(
        "evaluate a saved model on any data source, and log it as a new run",
        "melanoma.workflows.evaluate:evaluate_saved",
        "melanoma.config.command_schema:EvaluateConfig",
        "melanoma.workflows.checks:evaluate_faults",
        rename=_MODEL,
    ),
    "compare": Command(
        "metrics of runs side by side, with paired tests on the same images",
        "melanoma.commands.compare:main",
    ),
    "readers": Command(
        "compare a model with human readers of its test images",
        "melanoma.commands.readers:main",
    ),
    "runs": Command(
        "what is running, dead or interrupted, and how it is resumed",
        "melanoma.commands.runs:main",
    ),
    "replay": Command(
        "make a run again from its record, and compare all its numbers",
        "melanoma.commands.replay:main",
    ),
    "predict": Command(
        "decisions and class probabilities for images, as a table and a CSV",
        "melanoma.workflows.predict:predict",
        "melanoma.config.command_schema:PredictConfig",
        rename=_RUN_OR_MODEL,
    ),
    "promote": Command(
        "make the best run the champion of the model registry, if it passes the gates",
        "melanoma.registry.promote:promote",
        "melanoma.config.command_schema:PromoteConfig",
        "melanoma.workflows.checks:promote_faults",
        on_store=True,
        switches={"--dry-run": "dry_run=true"},
    ),
    "rollback": Command(
        "make the previous champion the champion again",
        "melanoma.registry.history:rollback",
        "melanoma.config.command_schema:RollbackConfig",
        on_store=True,
    ),
    "registry": Command(
        "registered versions, their metrics, and the decisions on them",
        "melanoma.registry.history:show_registry",
        "melanoma.config.command_schema:RollbackConfig",
        on_store=True,
    ),
    "serve": Command(
        "serve the champion over HTTP, with MLflow's scoring server",
        "melanoma.serving.serve:serve",
        "melanoma.config.command_schema:ServeConfig",
        on_store=True,
        rename=_RUN_OR_MODEL,
    ),
    "app": Command(
        "a page to try the champion on your own images",
        "melanoma.serving.app:show_app",
        "melanoma.config.command_schema:ServeConfig",
        on_store=True,
        rename=_RUN_OR_MODEL,
    ),
    "export": Command(
        "write a model as ONNX or LiteRT",
        "melanoma.serving.export:export_model",
        "melanoma.config.command_schema:ExportConfig",
        on_store=True,
        rename=_RUN_OR_MODEL,
    ),
    "report": Command(
        "a page about all runs of an experiment, or the table of the reference experiments",
        "melanoma.commands.report:main",
    ),
    "audit": Command(
        "find duplicates, contradicting labels, leaks and damaged files in a data set",
        "melanoma.workflows.audit:audit_data",
        "melanoma.config.command_schema:AuditCommandConfig",
        "melanoma.workflows.checks:audit_faults",
    ),
    "cache": Command(
        "list, check or clear the cache of decoded images, audits and augmented files",
        "melanoma.commands.cache:main",
    ),
    "completion": Command(
        "print a script that completes commands and keys in your shell",
        "melanoma.commands.completion:main",
    ),
}


_interrupted = False


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its exit code."""
    # With Python's default of 700 objects, garbage collection takes a tenth of the time of a short training.
    gc.set_threshold(50_000, 20, 50)
    if sys.platform == "win32":
        _fail("melanoma runs on Linux and macOS. On Windows, install it in WSL 2 (wsl --install). Received: win32", 2)
    try:
        _run_and_flush(list(sys.argv[1:] if arguments is None else arguments))
    except (Exception, KeyboardInterrupt) as error:
        # A library may have caught the interruption and raised another error because of it.
        if _interrupted or isinstance(error, KeyboardInterrupt):
            _fail("Interrupted; what was logged is kept.", 130)
        if isinstance(error, MelanomaError):
            _fail(str(error), error.exit_code)
        if not isinstance(error, BrokenPipeError) or not _reader_has_left():
            raise
        sys.exit(128 + signal.SIGPIPE)
    except RunKilled:
        _fail("Ended by SIGTERM; what was logged is kept.", RunKilled.exit_code)


def _run_and_flush(arguments: list[str]) -> None:
    """Run a command, and write what it printed while a broken pipe can still be told."""
    try:
        _run(arguments)
    except SystemExit:  # as Hydra ends after its help
        _flush()
        raise
    _flush()


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


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
    command = COMMANDS[name]
    if command.schema is None:
        _load(command.run)(arguments[1:])
    else:
        _launch(name, command, [command.switches.get(word, word) for word in arguments[1:]])


def _launch(name: str, command: Command, arguments: list[str]) -> None:
    """Check the configuration before importing the modules that run the command."""
    from melanoma.config.launch import launch

    schema = _load(str(command.schema))

    def task(config: Any, overrides: list[str], folder: Path) -> object:
        if command.on_store:
            return _run_on_store(command, schema, config)
        return _load(command.run)(config, overrides, folder)

    checks = None if command.checks is None else _load(command.checks)
    launch(name, schema, task, arguments, checks=checks, rename=command.rename)


def _run_on_store(command: Command, schema: type, config: Any) -> object:
    from melanoma.config.launch import typed
    from melanoma.terminal import log_to_terminal, quiet_native_imports
    from melanoma.tracking.store import open_store, store_errors

    log_to_terminal()
    settings: Any = typed(schema, config)
    uri = open_store(settings.tracking.uri)
    with quiet_native_imports():
        run = _load(command.run)
    with store_errors():
        return run(settings, uri)


def _load(address: str) -> Any:
    module, _, name = address.partition(":")
    return getattr(importlib.import_module(module), name)


def _reader_has_left() -> bool:
    """Return whether the reader of standard output (head, less) has exited; if so, discard further output."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors are always reported
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
    rows = "\n".join(f"  {name:<10} {command.help}" for name, command in COMMANDS.items())
    return (
        f"melanoma {__version__}: train, track, compare and promote skin-lesion classifiers.\n"
        "Research software, not a medical device.\n\n"
        f"Usage: melanoma COMMAND [group=choice] [key=value] ...\n\n{rows}\n\n"
        "`melanoma COMMAND --help` shows a command's configuration."
    )


def _write(text: str) -> None:
    if sys.stdout is not None:  # None if the parent process closed it
        sys.stdout.write(text + "\n")


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"melanoma: {message}\n")
    report = os.environ.get(FAILURE_FILE_VARIABLE)
    if report:  # the sweep that started this trial reads it
        Path(report).write_text(message, encoding="utf-8", errors="replace")
    sys.exit(code)
