"""`python -m melanoma.sweeps.trial_server`: imports what is slow, and forks a process for each trial.

Each line on standard input is a trial as JSON. Each line on standard output says that the server is ready, that a trial
has started with a process ID, that it could not be started, or that it has ended with an exit code. No trial runs in
the server itself, so that a trial that crashes, leaks memory or is killed affects no other. The server ends with its
standard input.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["die_with_parent", "serve"]

_PARENT_DIED = 1  # PR_SET_PDEATHSIG
_LIBC = ctypes.CDLL(None)  # loaded before any fork: in a child process this could deadlock


def serve() -> None:
    """Start trials until standard input is closed."""
    interrupt = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep ends its trials
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is not an answer

    def say(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    _import_slow_modules()
    woken, wake = os.pipe()
    say(ready=True)
    running: dict[int, int] = {}
    for lines in _lines_and_ends(woken, wake):
        for line in lines:
            job = json.loads(line)
            try:
                pid = _fork(job, interrupt, (answers.fileno(), woken, wake))
            except OSError as error:  # such as too little memory for another process
                say(number=job["number"], failed=str(error))
                continue
            running[pid] = job["number"]
            say(number=job["number"], pid=pid)
        for pid, code in _ended(len(running)):
            say(number=running.pop(pid), code=code)


def _lines_and_ends(woken: int, wake: int) -> Iterator[list[bytes]]:
    """Yield the lines that have arrived, and none if a trial has ended, until standard input is closed."""
    for descriptor in (woken, wake):
        os.set_blocking(descriptor, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # else it does not wake the loop
    signal.set_wakeup_fd(wake)
    rest = b""
    while True:
        readable, _, _ = select.select([0, woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
        if 0 in readable:
            read = os.read(0, 65536)
            if not read:
                return  # the trials end with their parent
            *lines, rest = (rest + read).split(b"\n")
            yield lines
        yield []


def _ended(most: int) -> Iterator[tuple[int, int]]:
    """Yield the process ID and the exit code of each trial that has ended."""
    for _ in range(most):
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def die_with_parent(parent: int) -> None:
    """Send SIGTERM to this process when its parent process dies; exit if it is dead already."""
    _LIBC.prctl(_PARENT_DIED, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def _import_slow_modules() -> None:
    from melanoma.terminal import quiet_native_imports

    with quiet_native_imports():
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

        import melanoma.workflows.nested
        import melanoma.workflows.train  # noqa: F401
        from melanoma.tracking.source import installed_packages
    installed_packages()  # the same for all trials
    gc.collect()
    gc.freeze()  # so that the trials share this memory


def _fork(job: dict[str, Any], interrupt: Any, of_server: Sequence[int]) -> int:
    """Fork a trial, and return its process ID. It closes the descriptors that only the server uses."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        die_with_parent(parent)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, interrupt)
        null, errors = os.open(os.devnull, os.O_RDWR), os.open(job["errors"], os.O_WRONLY | os.O_APPEND)
        for descriptor, number in ((null, 0), (null, 1), (errors, 2)):
            os.dup2(descriptor, number)
        for descriptor in of_server:
            os.close(descriptor)
        os.chdir(job["folder"])
        os.environ.clear()
        os.environ.update(job["environment"])
        code = _run(job["arguments"])
    finally:
        os._exit(code)


def _run(arguments: list[str]) -> int:
    """Run a command of melanoma, and return its exit code."""
    import traceback

    # By its name, as a new interpreter would start it: the command line is above this package.
    main = importlib.import_module("melanoma.cli").main
    code: Any = 0
    try:
        main(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        atexit._run_exitfuncs()
        sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    serve()
