"""Training callbacks: validation, NaN check, choice of the weights, progress report and profile."""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from melanoma.errors import TrainingError
from melanoma.evaluation.predict import probabilities_from_logits
from melanoma.terminal import console, is_interactive

__all__ = ["BatchEnds", "Keep", "Profile", "Ramp", "Report", "StopOnNaN", "TimeLimit", "Validate"]

log = logging.getLogger("melanoma")


class Validate(keras.callbacks.Callback):
    """Write the epoch's metrics to `logs` under their public names: train/loss, val/auc, ...

    Must be the first callback, so that the others read these names; only `SwapEMAWeights` precedes it.
    """

    def __init__(
        self, batches: tf.data.Dataset, measure: Callable[[NDArray], dict[str, float]], images: int, steps: int
    ):
        super().__init__()
        self.batches, self.measure, self.images, self.steps = batches, measure, images, steps

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the timer."""
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Predict the validation images and compute the metrics."""
        trained = time.perf_counter() - self.start
        learning_rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logits = self.model.predict(self.batches, verbose=0)
        if not np.isfinite(logits).all():
            raise TrainingError(
                "The model's predictions are no longer finite numbers; lower optimizer.learning_rate, set "
                "optimizer.clipnorm=1, or try training.precision=float32. Received: NaN or infinity for validation "
                f"images after epoch {epoch + 1}, at a learning rate of {learning_rate:.3g}"
            )
        measured = self.measure(probabilities_from_logits(logits))
        train = {"train/loss": float(logs["loss"]), "train/accuracy": float(logs["accuracy"])}
        logs.clear()
        logs.update(train)
        logs.update({f"val/{name}": value for name, value in measured.items()})
        logs["learning_rate"] = learning_rate
        # Fewer images in an epoch that is resumed in its middle.
        logs["images_per_second"] = self.images * self.params["steps"] / self.steps / trained
        logs["seconds_per_epoch"] = time.perf_counter() - self.start


class StopOnNaN(keras.callbacks.Callback):
    """Stop training if the loss is NaN or infinite."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Reset the epoch."""
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Store the epoch for the error message."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Check the running mean of the loss, in which a NaN persists."""
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
            raise TrainingError(
                "The loss is no longer a finite number; lower optimizer.learning_rate, set optimizer.clipnorm=1, or "
                f"try training.precision=float32. Received: loss={loss} in epoch {self.epoch + 1}, step {batch + 1}, "
                f"at a learning rate of {rate:.3g}"
            )


class Keep(keras.callbacks.Callback):
    """Store the weights of the epoch with the best monitor, or of the last epoch, as they were evaluated.

    All phases of a training share one instance, so that the best epoch is the best of all phases.
    """

    def __init__(self, monitor: str, mode: str, best: bool):
        super().__init__()
        self.monitor, self.sign, self.best = monitor, 1 if mode == "min" else -1, best
        self.value, self.epoch = math.nan, 0
        self.weights: list[NDArray] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Compare with the best epoch so far."""
        value = self.sign * logs[self.monitor]
        if not self.best or math.isnan(self.value) or value < self.value:
            self.value, self.epoch, self.weights = value, epoch, self.model.get_weights()


class TimeLimit(keras.callbacks.Callback):
    """Stop training before an epoch that would end after a time limit.

    All phases of a training share one instance, so that the limit is that of all phases.
    """

    def __init__(self, minutes: float, epochs: int, steps: int):
        super().__init__()
        self.minutes, self.epochs, self.steps, self.is_over = minutes, epochs, steps, False
        self.started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds that are used up."""
        return time.perf_counter() - self.started

    @seconds.setter
    def seconds(self, used: float) -> None:
        self.started = time.perf_counter() - used

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Start the timer after the first batch, which includes compiling."""
        if batch == 0:
            self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stop if another epoch as long as this one would take too long."""
        share = self.params["steps"] / self.steps  # below 1 in an epoch that is resumed in its middle
        if epoch + 1 < self.epochs and self.seconds + (time.perf_counter() - self.start) / share > self.minutes * 60:
            self.is_over = self.model.stop_training = True


class BatchEnds(keras.callbacks.Callback):
    """Store the time at which each training batch ends."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Store the time. Reading the loss waits for the end of the computation."""
        float(logs["loss"])
        self.times.append(time.perf_counter())


class Ramp(keras.callbacks.Callback):
    """Raise the learning rate with each batch, and store the loss of each batch until it diverges.

    Args:
        rates: Learning rate of each batch.
        diverged: Multiple of the lowest loss at which the training stops.
    """

    def __init__(self, rates: NDArray[np.floating], diverged: float):
        super().__init__()
        self.rates, self.diverged = rates, diverged
        self.losses: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Set the learning rate of this batch."""
        self.model.optimizer.learning_rate = float(self.rates[batch])

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Store the loss of this batch alone, for which the running mean is reset."""
        loss = float(logs["loss"])
        self.model.reset_metrics()
        if math.isfinite(loss):
            self.losses.append(loss)
        if not math.isfinite(loss) or loss > self.diverged * min(self.losses):
            self.model.stop_training = True


class Report(keras.callbacks.Callback):
    """Show a progress bar on a terminal, log one line per epoch, and pass each epoch's metrics to `on_epoch`."""

    def __init__(self, epochs: int, steps: int, on_epoch: Callable[[int, dict[str, float]], None]):
        super().__init__()
        self.epochs, self.steps, self.on_epoch = epochs, steps, on_epoch
        self.bar: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Show the progress bar on a terminal or in a notebook."""
        if self.bar is None and is_interactive():
            self.bar = _bar()
            self.task = self.bar.add_task("", total=self.epochs * self.steps, metrics="")
            self.bar.start()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Store the epoch for the progress bar."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Update the progress bar."""
        if self.bar is not None:
            text = f"loss {float(logs['loss']):.4f} accuracy {float(logs['accuracy']):.3f}"
            done = self.epoch * self.steps + batch + 1
            self.bar.update(
                self.task, completed=done, description=f"epoch {self.epoch + 1}/{self.epochs}", metrics=text
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log the metrics before the line of the epoch, so that printed metrics are stored even if a signal arrives."""
        self.on_epoch(epoch, {name: float(value) for name, value in logs.items()})
        minutes = (self.epochs - epoch - 1) * logs["seconds_per_epoch"] / 60
        log.info(
            "epoch %d/%d  train/loss %.4f  train/accuracy %.3f  val/loss %.4f  val/accuracy %.3f  val/auc %.3f  "
            "lr %.2e  %.1f s  %.0f images/s%s",
            epoch + 1, self.epochs, logs["train/loss"], logs["train/accuracy"], logs["val/loss"], logs["val/accuracy"],
            logs["val/auc"], logs["learning_rate"], logs["seconds_per_epoch"], logs["images_per_second"],
            f"  {minutes:.0f} min left" if minutes >= 1 else "",
        )  # fmt: skip

    def close(self) -> None:
        """Remove the progress bar; called also after an error."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class Profile(keras.callbacks.Callback):
    """Write a TensorFlow profile of steps 5 to 10 of the first epoch; of its second half if it is shorter."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder, self.running, self.done = folder, False, False

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Start the profile after the first steps, which are slower than the others."""
        if batch == min(5, self.params["steps"] // 2) and not self.done:
            tf.profiler.experimental.start(str(self.folder))
            self.running = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stop the profile after step 10."""
        if self.running and batch >= 10:
            self._stop()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stop the profile if the epoch is shorter than that."""
        if self.running:
            self._stop()

    def _stop(self) -> None:
        tf.profiler.experimental.stop()
        self.running, self.done = False, True


def _bar() -> Any:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[metrics]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console(),
        transient=True,
    )
