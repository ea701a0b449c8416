"""Processes of trials on this machine: forked from a server that has imported what is slow, or started anew."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from melanoma.errors import FAILURE_FILE_VARIABLE
from melanoma.sweeps.trial_server import die_with_parent

__all__ = ["THREADS", "Forked", "Job", "TrialServer", "TrialStarter", "start_anew", "start_server"]

_MELANOMA = [sys.executable, "-m", "melanoma"]
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


@dataclass(frozen=True)
class Job:
    """A trial as a process: its command, its working folder, and its additional environment variables."""

    command: list[str]
    folder: str
    environment: dict[str, str]

    @property
    def is_melanoma(self) -> bool:
        """Whether it is a command of this program, which can be forked."""
        return self.command[:3] == _MELANOMA

    def with_threads(self, threads: int) -> "Job":
        """Return a copy with a limited number of threads, so that parallel trials share the cores."""
        return replace(self, environment={**dict.fromkeys(THREADS, str(threads)), **self.environment})

    def whole_environment(self, report: Path) -> dict[str, str]:
        """Return the environment of the process, with the file for the message of an expected error."""
        return {**os.environ, **self.environment, FAILURE_FILE_VARIABLE: str(report)}


def start_anew(job: Job, report: Path, errors: Path) -> subprocess.Popen[bytes]:
    """Start a trial in a new interpreter; its error output goes to the file `errors`."""
    with errors.open("ab") as sink:
        return subprocess.Popen(
            job.command,
            cwd=job.folder,
            env=job.whole_environment(report),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=sink,
            preexec_fn=partial(die_with_parent, os.getpid()) if sys.platform == "linux" else None,
        )


def start_server(environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start the process that forks trials, with additional environment variables."""
    return subprocess.Popen(
        [sys.executable, "-m", "melanoma.sweeps.trial_server"],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


class Forked:
    """A trial that a server has forked, with the interface of a process of `subprocess`."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.started = threading.Event()
        self.lost = False  # whether the server ended, and not the trial itself
        self.refused: str | None = None  # why it could not be forked
        self._code: int | None = None
        self._ended = threading.Event()

    def begin(self, pid: int) -> None:
        """Note that the trial has started."""
        self.pid = pid
        self.started.set()

    def poll(self) -> int | None:
        """Return the exit code, or None if the trial is running."""
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the trial, and return its exit code."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("trial", timeout or 0)
        return int(self._code or 0)

    def send_signal(self, number: int) -> None:
        """Send a signal, if the trial is running."""
        if self.pid is not None and self._code is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the trial at once."""
        self.send_signal(signal.SIGKILL)

    def end(self, code: int) -> None:
        """Note that the trial has ended."""
        self._code = code
        self._ended.set()
        self.started.set()


class TrialServer:
    """A server that forks trials. If it ends unexpectedly, its trials count as killed.

    It ends, and its trials with it, when this process ends and so closes its standard input.
    """

    def __init__(self, environment: Mapping[str, str]):
        self._process = start_server(environment)
        self._trials: list[Forked] = []
        self._over = False
        self._ready, self._lock = threading.Event(), threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, job: Job, report: Path, errors: Path) -> Forked:
        """Fork a trial, and return it once it has a process ID.

        Raises:
            OSError: If the server has ended.
        """
        self._ready.wait()
        errors.touch()
        trial = Forked()
        with self._lock:
            if self._process.stdin is None or self.has_ended:
                raise OSError("the process that starts trials has ended")
            line = {
                "number": len(self._trials),
                "arguments": job.command[len(_MELANOMA) :],
                "folder": job.folder,
                "environment": job.whole_environment(report),
                "errors": str(errors),
            }
            self._trials.append(trial)
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()
        trial.started.wait()
        if trial.refused is not None:
            raise OSError(trial.refused)
        return trial

    @property
    def has_ended(self) -> bool:
        """Whether the server has ended."""
        return self._over or self._process.poll() is not None

    @property
    def is_ready(self) -> bool:
        """Whether the server has imported what is slow."""
        return self._ready.is_set()

    def close(self) -> None:
        """End the server, and with it trials that are still running."""
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            message = json.loads(line)
            if "failed" in message:
                self._trials[message["number"]].refused = message["failed"]
                self._trials[message["number"]].end(1)
            elif "pid" in message:
                self._trials[message["number"]].begin(message["pid"])
            elif "code" in message:
                self._trials[message["number"]].end(message["code"])
            else:
                self._ready.set()
        with self._lock:
            self._over = True  # no answer comes any more, even if the process is not yet known to have ended
            for trial in self._trials:
                if trial.poll() is None:
                    trial.lost = True
                    trial.end(-signal.SIGKILL)
        self._ready.set()


class TrialStarter:
    """Starts trials: from a server, which starts with the first of them, or each in a new interpreter."""

    def __init__(self, threads: int):
        self._threads = threads
        self._server: TrialServer | None = None
        self._closed = False

    def start(self, job: Job, report: Path, errors: Path) -> "subprocess.Popen[bytes] | Forked":
        """Start a trial; the arguments are those of `start_anew`.

        Raises:
            OSError, subprocess.SubprocessError: If the process cannot be started.
        """
        job = job.with_threads(self._threads)
        # Forking is safe where nothing but imports has happened, but for libraries of macOS.
        if not job.is_melanoma or sys.platform != "linux":
            return start_anew(job, report, errors)
        if self._server is None or self._server.has_ended:
            self._server = TrialServer(dict.fromkeys(THREADS, str(self._threads)))
        if self._closed:  # since this trial began to start
            self._server.close()
        try:
            return self._server.start(job, report, errors)
        except OSError:
            if self._closed:
                raise
            return start_anew(job, report, errors)  # which shows why the server could not start it

    def give_up(self) -> None:
        """End a server that is still importing, so that nobody waits for it."""
        self._closed = True
        if self._server is not None and not self._server.is_ready:
            self._server.close()

    def close(self) -> None:
        """End the server, if it was started."""
        self._closed = True
        if self._server is not None:
            self._server.close()
