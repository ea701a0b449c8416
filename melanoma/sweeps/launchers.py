"""Where trials run: on this machine, on a Ray cluster, or as SLURM jobs. Each gives a function that runs one trial."""

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

_TAIL = 20_000  # characters of a trial's error output that are kept
_CONNECT_TIMEOUT = 10  # seconds for a cluster to answer
_GRACE = 20  # seconds a trial has to end its run in the tracking store
_PARENT_DIED = 1  # PR_SET_PDEATHSIG
_LIBC = ctypes.CDLL(None)  # before any fork: loading it in a child could wait for a lock for ever
_THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


@dataclass(frozen=True)
class Job:
    """One trial as a process: its command, the folder it starts in, and what it adds to the environment."""

    command: list[str]
    folder: str
    environment: dict[str, str]

    def with_threads(self, threads: int) -> "Job":
        """The same with a number of threads, so that parallel trials share the cores."""
        return replace(self, environment={**dict.fromkeys(_THREADS, str(threads)), **self.environment})


@dataclass(frozen=True)
class Outcome:
    """How a trial's process ended.

    Attributes:
        code: exit code, negative for a signal.
        output: the end of its error output.
        message: of the expected failure that ended it; empty for any other end.
        lost: the launcher failed rather than the process: a worker died, or a job was cancelled.
    """

    code: int
    output: str
    message: str = ""
    lost: bool = False


@contextmanager
def open_launcher(settings: LauncherConfig, folder: Path) -> Iterator[Callable[[Job], Outcome]]:
    """A function that runs a trial and waits for it, to be called from several threads; all ends with the block.

    Args:
        settings: of the launcher.
        folder: for the logs of SLURM jobs.

    Raises:
        ConfigError: the launcher is not installed, or its cluster cannot be reached.
    """
    using = {"local": _local, "ray": _ray, "slurm": _slurm}[settings.name]
    with using(settings, folder) as run:
        yield run


def run_process(job: Job) -> Outcome:
    """Run a trial as a process of its own that dies with this one."""
    with tempfile.TemporaryDirectory(prefix="melanoma-trial-") as folder:
        report = Path(folder) / "failure.txt"
        started = _start(job, report)
        return started if isinstance(started, Outcome) else _wait(started, report)


def _start(job: Job, report: Path) -> subprocess.Popen[str] | Outcome:
    """Start a trial that will write the message of an expected failure to `report`."""
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
    except (OSError, subprocess.SubprocessError) as error:  # no memory for another process, and the like
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
            with starting:  # a process that starts after the sweep has ended would go on
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
    asked: dict[str, Any] = {"num_cpus": settings.cpus or 1, "num_gpus": settings.gpus or 0, "max_retries": 0}
    if settings.memory_gb:
        asked["memory"] = int(settings.memory_gb * 1e9)
    task = ray.remote(**asked)(run_process)

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
    """Ray itself would retry for minutes."""
    at = urlsplit(address if address is not None and "://" in address else f"ray://{address or ''}")
    try:
        if at.hostname is None or at.port is None:
            return  # auto, local
        socket.create_connection((at.hostname, at.port), timeout=_CONNECT_TIMEOUT).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            [f"The Ray cluster cannot be reached; start it, or give launcher.address=null for one on this machine "
             f"({error}). Received: launcher.address={address}"]
        ) from error  # fmt: skip


def _refuse_too_much(settings: LauncherConfig, nodes: list[dict[str, Any]]) -> None:
    """A trial that requests more than any node has would never start."""
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
    asked = {
        "timeout_min": settings.minutes, "cpus_per_task": settings.cpus, "gpus_per_node": settings.gpus or None,
        "mem_gb": settings.memory_gb, "slurm_partition": settings.partition, "name": "melanoma",
    }  # fmt: skip
    executor.update_parameters(**{name: value for name, value in asked.items() if value is not None})
    jobs: list[Any] = []
    closed = threading.Event()

    def run(job: Job) -> Outcome:
        submitted = executor.submit(run_process, job)
        jobs.append(submitted)
        if closed.is_set():  # the sweep was ended while this one was being submitted
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
    """A sweep that is killed takes its trials along; on resume they are begun again."""
    _LIBC.prctl(_PARENT_DIED, signal.SIGTERM)
    if os.getppid() != parent:  # it died before it could be watched
        os._exit(1)
