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

_PATIENCE = 15  # seconds for the batch, or for a tracking server that does not answer; Kubernetes waits for 30


@contextmanager
def asked_to_end() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGTERM arrived within the context.

    A second SIGTERM, or 15 seconds, raise `RunKilled`. In a thread that is not the main one, signals stay as they are.
    """
    asked = threading.Event()

    def note(_signal: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise RunKilled
        asked.set()
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
        log.warning("SIGTERM: the training ends after this batch, with a checkpoint")

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise RunKilled

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, note),
        signal.SIGALRM: signal.signal(signal.SIGALRM, give_up),
    }
    try:
        yield asked.is_set
        if asked.is_set():  # after the last batch
            raise RunKilled
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
