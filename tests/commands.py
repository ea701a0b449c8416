"""Commands in processes of their own, forked from one that has imported what is slow.

A command is a process as a user would start it, with its own memory, signals, environment and folder; only the seconds
that TensorFlow and MLflow take to import are spent once. `tests/integration/test_packaging.py` starts the installed
script itself.
"""

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path

__all__ = ["COMMAND", "run_melanoma", "start_melanoma"]

COMMAND = Path(sys.executable).parent / "melanoma"
_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(["tests.preloaded"])
_TIMEOUT = 600  # seconds


def run_melanoma(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """Run a command to its end; returns the finished process, with what it printed."""
    words = [str(word) for word in arguments]
    with tempfile.TemporaryDirectory(prefix="melanoma-test-") as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = start_melanoma(*words, cwd=cwd, out=out, err=err, **environment)
        process.join(_TIMEOUT)
        said = [file.read_text(encoding="utf-8", errors="replace") for file in (out, err)]
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(words, _TIMEOUT, *said)
    return subprocess.CompletedProcess(words, process.exitcode, *said)


def start_melanoma(*arguments: str, cwd: Path | None, out: Path, err: Path, **environment: str) -> BaseProcess:
    """Start a command; its output goes into files."""
    out.touch()
    err.touch()
    folder = str(Path.cwd() if cwd is None else cwd)
    whole = {**os.environ, **environment}
    process = _FORKED.Process(target=_run, args=(list(arguments), folder, whole, str(out), str(err)), daemon=False)
    process.start()
    return process


def _run(arguments: list[str], folder: str, environment: dict[str, str], out: str, err: str) -> None:
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    from melanoma.cli import main

    try:
        main(arguments)
    finally:
        atexit._run_exitfuncs()  # which a process of multiprocessing skips
