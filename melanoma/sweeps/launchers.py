"""Launchers of trials: local, Ray and SLURM. Each yields a function that runs one trial."""

import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from melanoma.config.command_schema import LauncherConfig
from melanoma.data.contents import available_cores
from melanoma.errors import ConfigError
from melanoma.sweeps.processes import Forked, Job, TrialStarter, start_anew

__all__ = ["Job", "Outcome", "open_launcher"]

_TAIL = 20_000  # kept characters at the end of a trial's error output
_CONNECT_TIMEOUT = 10  # seconds for the connection to a cluster
_GRACE = 20  # seconds for a trial to end its run in the tracking store


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
        report, errors = Path(folder) / "failure.txt", Path(folder) / "errors.txt"
        try:
            process = start_anew(job, report, errors)
        except (OSError, subprocess.SubprocessError) as error:  # such as too little memory for another process
            return _not_started(error)
        return _wait(process, report, errors)


def _not_started(error: Exception) -> Outcome:
    return Outcome(1, f"The trial's process could not be started: {error}", lost=True)


def _wait(process: "subprocess.Popen[bytes] | Forked", report: Path, errors: Path) -> Outcome:
    try:
        code = process.wait()
    except BaseException:
        process.kill()
        raise
    message, output = (
        file.read_text(encoding="utf-8", errors="replace") if file.is_file() else "" for file in (report, errors)
    )
    return Outcome(code, output[-_TAIL:], message, lost=isinstance(process, Forked) and process.lost)


@contextmanager
def _local(settings: LauncherConfig, folder: Path) -> Iterator[Callable[[Job], Outcome]]:  # noqa: ARG001
    starter = TrialStarter(max(available_cores() // settings.workers, 1))
    processes: list[subprocess.Popen[bytes] | Forked] = []
    closed, starting = threading.Event(), threading.Lock()

    def run(job: Job) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="melanoma-trial-") as reports:
            report, errors = Path(reports) / "failure.txt", Path(reports) / "errors.txt"
            with starting:  # a process started after the end of the sweep would not be stopped
                if closed.is_set():
                    return Outcome(1, "The sweep was ended before this trial started.", lost=True)
                try:
                    started = starter.start(job, report, errors)
                except (OSError, subprocess.SubprocessError) as error:
                    return _not_started(error)
                processes.append(started)
            return _wait(started, report, errors)

    try:
        yield run
    finally:
        starter.give_up()
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
        starter.close()


@contextmanager
def _ray(settings: LauncherConfig, folder: Path) -> Iterator[Callable[[Job], Outcome]]:  # noqa: ARG001
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise ConfigError(
            ["Ray is not installed; pip install -e '.[ray]', or choose launcher=local. Received: launcher=ray"]
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
            ["submitit is not installed; pip install -e '.[slurm]', or choose launcher=local. "
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
