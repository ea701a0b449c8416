"""Signs of life of a run, which tell one that is running from one whose process died without ending it."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import psutil

from melanoma.tracking.names import Tag

__all__ = ["INTERVAL", "heartbeat", "owner", "process_alive", "signs_of_life"]

INTERVAL = 60.0  # seconds


def signs_of_life() -> dict[str, str]:
    """Return the tags that name this process and the present time."""
    return {Tag.OWNER: owner(), Tag.HEARTBEAT: _now()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def heartbeat(run_id: str) -> Iterator[None]:
    """Set the tag of the heartbeat once a minute, in a thread, within the context.

    A store that cannot be reached for a while is tried again at the next beat.
    """
    stopped, client = threading.Event(), mlflow.MlflowClient()

    def beat() -> None:
        while not stopped.wait(INTERVAL):
            with suppress(Exception):
                client.set_tag(run_id, Tag.HEARTBEAT, _now())

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        stopped.set()


def owner() -> str:
    """Return the identity of this process for `process_alive`, as host:process:start."""
    return f"{_machine()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def process_alive(owner: str, last_sign: float, patience: float) -> bool:
    """Return whether a process may still be running.

    Args:
        owner: Result of `owner` in that process.
        last_sign: Time of its last sign of life, in seconds since 1970.
        patience: Seconds without a sign of life after which a process on another machine counts as dead.
    """
    host, _, process = owner.partition(":")
    if host == _machine():
        number, _, started = process.partition(":")
        try:
            found = psutil.Process(int(number))
            return f"{found.create_time():.0f}" == started and found.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, ValueError):
            return False
    return time.time() - last_sign < patience


def _machine() -> str:
    """Return the host and, if available, the PID namespace, because containers may share a host name."""
    try:
        return f"{socket.gethostname()}/{Path('/proc/self/ns/pid').readlink()}".replace(":", "")
    except OSError:
        return socket.gethostname()
