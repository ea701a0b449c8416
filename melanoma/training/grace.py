"""The grace period after SIGTERM, as of SLURM or Kubernetes: a training may finish its batch and write a checkpoint."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from melanoma.errors import RunKilled

__all__ = ["asked_to_end"]

log = logging.getLogger("melanoma")


@contextmanager
def asked_to_end() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGTERM arrived within the context; a second SIGTERM raises `RunKilled`.

    In another thread than the main one, signals are left as they are.
    """
    asked = threading.Event()

    def note(_signal: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise RunKilled
        asked.set()
        log.warning("SIGTERM: the training ends after this batch, with a checkpoint")

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
