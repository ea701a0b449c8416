"""Launchers of trials: local, Ray and SLURM. Each yields a function that runs one trial."""

import ctypes
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from melanoma.config.command_schema import LauncherConfig
from melanoma.data.contents import available_cores
from melanoma.errors import FAILURE_FILE_VARIABLE, ConfigError

__all__ = ["Job", "Outcome", "open_launcher"]

_TAIL = 20_000  # kept characters at the end of a trial's error output
_CONNECT_TIMEOUT = 10  # seconds for the connection to a cluster
_GRACE = 20  # seconds for a trial to end its run in the tracking store
_PARENT_DIED = 1  # PR_SET_PDEATHSIG
_LIBC = ctypes.CDLL(None)  # loaded before any fork: in a child process this could deadlock
_THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


@dataclass(frozen=True)
class Job:
    """A trial as a process: its command, its working folder, and its additional environment variables."""

    command: list[str]
    folder: str
    environment: dict[str, str]

    def with_threads(self, threads: int) -> "Job":
        """Return a copy with a limited number of threads, so that parallel trials share the cores."""
        return replace(self, environment={**dict.fromkeys(_THREADS, str(threads)), **self.environment})


@dataclass(frozen=True)
class Outcome:
    """How a trial's process ended.

    Attributes:
        code: Exit code; negative for a signal.
        output: End of the error output.
        message: Message of the expected error that ended the process; empty otherwise.
        lost: Whether the launcher failed and not the trial, such as when a worker died or a job was cancelled.
    """

    code: int
    output: str
    message: str = ""
    lost: bool = False


@contextmanager
def open_launcher(settings: LauncherConfig, folder: Path) -> Iterator[Callable[[Job], Outcome]]:
    """Yield a function that runs a trial and waits for it; all trials end when the context exits.

    The function can be called from several threads.

    Args:
        settings: Settings of the launcher.
        folder: Folder for the logs of SLURM jobs.

    Raises:
        ConfigError: If the launcher is not installed, if its cluster cannot be reached, or if no node has the requested
            resources.
    """
    using = {"local": _local, "ray": _ray, "slurm": _slurm}[settings.name]
    with using(settings, folder) as run:
        yield run


def run_process(job: Job) -> Outcome:
    """Run a trial as a child process that ends with this process."""
    with tempfile.TemporaryDirectory(prefix="melanoma-trial-") as folder:
        report = Path(folder) / "failure.txt"
        started = _start(job, report)
        return started if isinstance(started, Outcome) else _wait(started, report)


def _start(job: Job, report: Path) -> subprocess.Popen[str] | Outcome:
    """Start a trial that writes the message of an expected error to `report`."""
    try:
        return subprocess.Popen(
            job.command,
            cwd=job.folder,
            env={**os.environ, **job.environment, FAILURE_FILE_VARIABLE: str(report)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            preexec_fn=partial(_die_with, os.getpid()) if sys.platform == "linux" else None,
        )
    except (OSError, subprocess.SubprocessError) as error:  # such as too little memory for another process
        return Outcome(1, f"The trial's process could not be started: {error}", lost=True)


def _wait(process: subprocess.Popen[str], report: Path) -> Outcome:
    try:
        _, output = process.communicate()
    except BaseException:
        process.kill()
        raise
    message = report.read_text(encoding="utf-8", errors="replace") if report.is_file() else ""
    return Outcome(process.returncode, output[-_TAIL:], message)


@contextmanager
def _local(settings: LauncherConfig, folder: Path) -> Iterator[Callable[[Job], Outcome]]:  # noqa: ARG001
    threads = max(available_cores() // settings.workers, 1)
    processes: list[subprocess.Popen[str]] = []
    closed, starting = threading.Event(), threading.Lock()

    def run(job: Job) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="melanoma-trial-") as reports:
            report = Path(reports) / "failure.txt"
            with starting:  # a process started after the end of the sweep would not be stopped
                if closed.is_set():
                    return Outcome(1, "The sweep was ended before this trial started.", lost=True)
                started = _start(job.with_threads(threads), report)
                if isinstance(started, Outcome):
                    return started
                processes.append(started)
            return _wait(started, report)

    try:
        yield run
    finally:
        with starting:
            closed.set()
        under_way = [process for process in processes if process.poll() is None]
        for process in under_way:
            process.send_signal(signal.SIGTERM)
        for process in under_way:
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def _ray(settings: LauncherConfig, folder: Path) -> Iterator[Callable[[Job], Outcome]]:  # noqa: ARG001
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise ConfigError(
            ["Ray is not installed; pip install 'melanoma[ray]', or choose launcher=local. Received: launcher=ray"]
        ) from error
    _refuse_unreachable(settings.address)
    try:
        ray.init(address=settings.address, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            [f"The Ray cluster cannot be reached ({reason}). Received: launcher.address={settings.address}"]
        ) from error
    _refuse_too_much(settings, ray.nodes())
    resources: dict[str, Any] = {"num_cpus": settings.cpus or 1, "num_gpus": settings.gpus or 0, "max_retries": 0}
    if settings.memory_gb:
        resources["memory"] = int(settings.memory_gb * 1e9)
    task = ray.remote(**resources)(run_process)

    def run(job: Job) -> Outcome:
        try:
            return ray.get(task.remote(job.with_threads(settings.cpus or 1)))
        except RayError as error:
            return Outcome(1, f"Ray: {error}"[-_TAIL:], lost=True)

    try:
        yield run
    finally:
        ray.shutdown()


def _refuse_unreachable(address: str | None) -> None:
    """Refuse an address without a listening server; Ray itself would retry for minutes."""
    at = urlsplit(address if address is not None and "://" in address else f"ray://{address or ''}")
    try:
        if at.hostname is None or at.port is None:
            return  # auto, local
        socket.create_connection((at.hostname, at.port), timeout=_CONNECT_TIMEOUT).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            [f"The Ray cluster cannot be reached; start it, or give launcher.address=null to start one on this machine "
             f"({error}). Received: launcher.address={address}"]
        ) from error  # fmt: skip


def _refuse_too_much(settings: LauncherConfig, nodes: list[dict[str, Any]]) -> None:
    """Refuse a trial that requests more than any node has, because it would never start."""
    wanted = {"CPU": settings.cpus or 1, "GPU": settings.gpus or 0, "memory": (settings.memory_gb or 0) * 1e9}
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in alive):
        largest = {name: max((node.get(name, 0) for node in alive), default=0) for name in wanted}
        raise ConfigError(
            [f"No node of the Ray cluster has the resources that a trial requests; the largest are "
             f"{largest['CPU']:g} cpus, {largest['GPU']:g} gpus and {largest['memory'] / 1e9:.1f} GB. "
             f"Received: launcher.cpus={wanted['CPU']} launcher.gpus={wanted['GPU']} "
             f"launcher.memory_gb={settings.memory_gb or 0}"]
        )  # fmt: skip


@contextmanager
def _slurm(settings: LauncherConfig, folder: Path) -> Iterator[Callable[[Job], Outcome]]:
    try:
        import submitit
        from submitit.core.utils import UncompletedJobError
    except ImportError as error:
        raise ConfigError(
            ["submitit is not installed; pip install 'melanoma[slurm]', or choose launcher=local. "
             "Received: launcher=slurm"]
        ) from error  # fmt: skip
    if settings.cluster is None and shutil.which("srun") is None:
        raise ConfigError(
            ["SLURM is not on this machine (no srun); start the sweep on a submit node, or test it with "
             "launcher.cluster=local. Received: launcher=slurm"]
        )  # fmt: skip
    try:
        executor = submitit.AutoExecutor(folder=folder / "slurm", cluster=settings.cluster)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            [f"SLURM cannot be used ({str(error).splitlines()[0]}). Received: launcher.cluster={settings.cluster}"]
        ) from error
    resources = {
        "timeout_min": settings.minutes, "cpus_per_task": settings.cpus, "gpus_per_node": settings.gpus or None,
        "mem_gb": settings.memory_gb, "slurm_partition": settings.partition, "name": "melanoma",
    }  # fmt: skip
    executor.update_parameters(**{name: value for name, value in resources.items() if value is not None})
    jobs: list[Any] = []
    closed = threading.Event()

    def run(job: Job) -> Outcome:
        submitted = executor.submit(run_process, job)
        jobs.append(submitted)
        if closed.is_set():  # the sweep ended during the submission of this job
            submitted.cancel()
        try:
            return submitted.result()
        except (UncompletedJobError, submitit.core.utils.FailedJobError) as error:
            return Outcome(1, f"SLURM: {error}"[-_TAIL:], lost=True)

    try:
        yield run
    finally:
        closed.set()
        for job in jobs:
            if not job.done():
                job.cancel()


def _die_with(parent: int) -> None:
    """End this trial when the process of the sweep dies; the trial runs again on resume."""
    _LIBC.prctl(_PARENT_DIED, signal.SIGTERM)
    if os.getppid() != parent:  # the parent died before `prctl` took effect
        os._exit(1)
