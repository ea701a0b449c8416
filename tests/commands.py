"""Commands in processes of their own, forked from one that has imported what is slow.

A command is a process as a user would start it, with its own memory, signals, environment and folder; only the seconds
that TensorFlow and MLflow take to import are spent once. `tests/integration/test_packaging.py` starts the installed
script itself.
"""

import atexit
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

__all__ = ["COMMAND", "Started", "forked", "run_melanoma"]

COMMAND = Path(sys.executable).parent / "melanoma"
_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(["tests.preloaded"])
_TIMEOUT = 600  # seconds


def run_melanoma(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """Run a command to its end; returns the finished process, with what it printed."""
    started = Started(*arguments, cwd=cwd, **environment)
    code = started.wait(_TIMEOUT)
    return subprocess.CompletedProcess(started.words, code, started.out, started.err)


class Started:
    """A command that runs; what it prints goes into files."""

    def __init__(self, *arguments: str, cwd: Path | None = None, **environment: str):
        self.words = [str(word) for word in arguments]
        self._folder = tempfile.TemporaryDirectory(prefix="melanoma-test-")
        self._files = [Path(self._folder.name) / name for name in ("out", "err")]
        for file in self._files:
            file.touch()
        folder = str(Path.cwd() if cwd is None else cwd)
        whole = {**os.environ, **environment}
        self._process = forked(_run, self.words, folder, whole, *map(str, self._files))
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def out(self) -> str:
        """What it has printed until now."""
        return self._files[0].read_text(encoding="utf-8", errors="replace")

    @property
    def err(self) -> str:
        """What it has printed to standard error until now."""
        return self._files[1].read_text(encoding="utf-8", errors="replace")

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until something holds; the command must not end before."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.alive, self.err
            assert time.monotonic() < end, self.err
            time.sleep(0.05)

    def send(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = 120) -> int:
        """Its exit code, once it has ended; of one that a signal has ended, the negative number of that."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self._process.kill()
            raise subprocess.TimeoutExpired(self.words, seconds, self.out, self.err)
        return self._process.exitcode


def forked(target: Callable[..., None], *arguments: object) -> BaseProcess:
    """A process that has begun to call a function of a module."""
    process = _FORKED.Process(target=target, args=arguments, daemon=False)
    process.start()
    return process


def _run(arguments: list[str], folder: str, environment: dict[str, str], out: str, err: str) -> None:
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    # A shell that runs the tests in the background has them, and so this process, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    from melanoma.cli import main

    if {"sweep", "-m", "--multirun"} & {*arguments}:
        _fork_trial_server()
    try:
        main(arguments)
    finally:
        atexit._run_exitfuncs()  # which a process of multiprocessing skips


class _TrialServer:
    """A forked server of trials, as `subprocess.Popen` would have it."""

    def __init__(self, pid: int, stdin: int, stdout: int):
        self.pid, self._code = pid, None
        self.stdin, self.stdout = os.fdopen(stdin, "w"), os.fdopen(stdout)

    def poll(self) -> int | None:
        if self._code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if ended else None
        return self._code

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.01)
        return self._code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _fork_trial_server() -> None:
    """Fork the server of a sweep's trials before there are threads, instead of an interpreter that imports all anew."""
    from melanoma.sweeps import processes, trial_server

    anew, (lines, to_server), (from_server, answers) = processes.start_server, os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        for descriptor, number in ((lines, 0), (answers, 1), (os.open(os.devnull, os.O_WRONLY), 2)):
            os.dup2(descriptor, number)
        for descriptor in (lines, to_server, from_server, answers):
            os.close(descriptor)
        first = b""
        while not first.endswith(b"\n") and (read := os.read(0, 1)):
            first += read
        if first:
            os.environ.update(json.loads(first))
            trial_server.serve()
        os._exit(0)
    os.close(lines)
    os.close(answers)
    server = _TrialServer(pid, to_server, from_server)

    def start(environment: Mapping[str, str]) -> _TrialServer:
        processes.start_server = anew  # for the next one, should this be killed
        server.stdin.write(json.dumps(dict(environment)) + "\n")
        server.stdin.flush()
        return server

    processes.start_server = start
