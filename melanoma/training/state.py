"""The state of a training: taken after epochs and batches, and put back when an interrupted training goes on."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from melanoma.errors import ModelError, RunKilled
from melanoma.training.callbacks import Keep, TimeLimit
from melanoma.training.checkpoint import Checkpoints, State
from melanoma.training.grace import asked_to_end

__all__ = ["Saving", "Snapshots", "Stateful", "put_back", "saving_to"]


@dataclass(frozen=True)
class Saving:
    """How the states of a training are saved.

    Attributes:
        save: Function that saves a state.
        minutes: Minutes between two states within an epoch; None for none.
        asked: Function that tells whether the training has to end after this batch.
    """

    save: Callable[[State], None]
    minutes: float | None
    asked: Callable[[], bool]


@contextmanager
def saving_to(checkpoints: Checkpoints, minutes: float | None) -> Iterator[Saving]:
    """Yield how states are saved to checkpoints; within the context, SIGTERM lets the training end after a batch."""
    with asked_to_end() as asked:
        yield Saving(checkpoints.save, minutes, asked)


class Stateful(NamedTuple):
    """All that has a state beside the network and its optimizer.

    Attributes:
        keep: The kept weights.
        limit: The time limit, if any.
        callbacks: Callbacks with a state, which Keras resets at the beginning of `fit`.
        metrics: Metrics that are accumulated over an epoch.
        history: Metrics of each epoch so far.
    """

    keep: Keep
    limit: TimeLimit | None
    callbacks: Sequence[keras.callbacks.Callback]
    metrics: Sequence[keras.metrics.Metric]
    history: list[dict[str, float]]


class Snapshots(keras.callbacks.Callback):
    """Save the state after each epoch, and put back that of an interrupted training. Must be the last callback.

    An epoch that is resumed in its middle is a call of `fit` of its own, because it has fewer steps.

    Args:
        saving: How states are saved.
        stateful: What has a state.
        phase: Number of the phase.
        steps: Number of batches of a whole epoch.
        start: State to put back; None for a new phase.
    """

    def __init__(self, saving: Saving, stateful: Stateful, *, phase: int, steps: int, start: State | None):
        super().__init__()
        self.saving, self.stateful, self.phase, self.steps = saving, stateful, phase, steps
        self.start, self.begun = start, 0 if start is None else start.step
        self.next: State | None = None  # where the rest of the phase starts, after an epoch resumed in its middle
        self.saved = time.monotonic()

    def on_train_begin(self, logs: Any = None) -> None:
        """Put back the state of the callbacks."""
        if self.start is None:
            return
        callbacks, saved = self.stateful.callbacks, self.start.callbacks
        if len(callbacks) != len(saved):
            raise ModelError(
                "The checkpoint is of another learning-rate schedule; train anew. Received: the state of "
                f"{len(saved)} callbacks instead of {len(callbacks)}"
            )
        for callback, values in zip(callbacks, saved, strict=True):
            vars(callback).update(values)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Put back the metrics of an epoch that is resumed in its middle."""
        self.epoch = epoch
        if self.start is not None and self.begun:
            put_back(_variables(self.stateful.metrics), self.start.arrays["metrics"])

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Save the state if it is time, or if the training has to end."""
        step, asked = self.begun + batch + 1, self.saving.asked()
        if step < self.steps and (asked or self._is_due()):
            self._save(self._state(self.epoch, step))
            if asked:
                raise RunKilled

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save the state."""
        state = self._state(epoch + 1, 0)
        self._save(state)
        if self.saving.asked():
            raise RunKilled
        if self.begun and not state.over and epoch + 1 < self.params["epochs"]:
            self.next, self.model.stop_training = state, True

    def _is_due(self) -> bool:
        return self.saving.minutes is not None and time.monotonic() - self.saved > self.saving.minutes * 60

    def _save(self, state: State) -> None:
        self.saving.save(state)
        self.saved = time.monotonic()

    def _state(self, epoch: int, step: int) -> State:
        keep, limit, callbacks, metrics, history = self.stateful
        return State(
            phase=self.phase,
            epoch=epoch,
            step=step,
            over=not step and bool(self.model.stop_training),
            limit_reached=limit is not None and limit.is_over,
            seconds=0.0 if limit is None else limit.seconds,
            kept_value=keep.value,
            kept_epoch=keep.epoch,
            history=list(history),
            callbacks=[_scalars(callback) for callback in callbacks],
            arrays={
                "network": _values(self.model.variables),
                "optimizer": _values(self.model.optimizer.variables),
                "metrics": _values(_variables(metrics)) if step else [],
                "kept": keep.weights,
            },
        )


def put_back(variables: Sequence[keras.Variable], values: Sequence[NDArray]) -> None:
    """Assign values to variables.

    Raises:
        ModelError: If they are of another network.
    """
    shapes, saved = [tuple(one.shape) for one in variables], [one.shape for one in values]
    if shapes != saved:
        raise ModelError(
            "The checkpoint is of another network or optimizer; train anew. Received: a checkpoint of "
            f"{sum(map(math.prod, saved)):,} values for {sum(map(math.prod, shapes)):,}"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _variables(metrics: Sequence[keras.metrics.Metric]) -> list[keras.Variable]:
    return [variable for metric in metrics for variable in metric.variables]


def _values(variables: Sequence[keras.Variable]) -> list[NDArray]:
    # Copies, because the memory of a variable on the CPU is shared with its array.
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _scalars(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """Return the counters and switches of a callback of Keras or of a user."""
    values = {name: value.item() if isinstance(value, np.generic) else value for name, value in vars(callback).items()}
    return {name: value for name, value in values.items() if isinstance(value, bool | int | float | str | None)}
