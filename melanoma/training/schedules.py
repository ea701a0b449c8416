"""Learning-rate schedules. Each returns the learning rate for the optimizer and the required callbacks.

A schedule is a function of `learning_rate`, `epochs`, `steps_per_epoch`, `monitor` and `mode`. It is set as `_target_`
in `conf/schedule`.
"""

from typing import Any

import keras

__all__ = ["constant", "cosine", "plateau"]

Schedule = tuple[Any, list[keras.callbacks.Callback]]


def constant(*, learning_rate: float, **_: Any) -> Schedule:
    """Use a constant learning rate."""
    return learning_rate, []


def cosine(
    *,
    learning_rate: float,
    epochs: int,
    steps_per_epoch: int,
    warmup_epochs: float = 1.0,
    final_fraction: float = 0.01,
    **_: Any,
) -> Schedule:
    """Warm up linearly over `warmup_epochs`, then decay by a cosine to `final_fraction` of the learning rate.

    The warm-up is limited to half of the training.
    """
    total = epochs * steps_per_epoch
    warmup = min(round(warmup_epochs * steps_per_epoch), total // 2)
    decay = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=learning_rate / max(warmup, 1) if warmup else learning_rate,
        decay_steps=max(total - warmup, 1),
        alpha=final_fraction,
        warmup_target=learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    return decay, []


def plateau(
    *, learning_rate: float, monitor: str, mode: str, factor: float = 0.3, patience: int = 3, **_: Any
) -> Schedule:
    """Multiply the learning rate by `factor` after `patience` epochs without improvement of `monitor`."""
    callback = keras.callbacks.ReduceLROnPlateau(monitor=monitor, mode=mode, factor=factor, patience=patience)
    return learning_rate, [callback]
