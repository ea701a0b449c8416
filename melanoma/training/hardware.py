"""Hardware settings: precision, devices and determinism."""

import logging
from pathlib import Path

import keras
import tensorflow as tf

from melanoma.data.contents import available_cores

__all__ = ["device_name", "has_gpu", "prepare", "resolve_precision", "strategy_of"]

log = logging.getLogger("melanoma")


def prepare(seed: int, deterministic: bool) -> None:
    """Seed Python, NumPy and TensorFlow, enable deterministic operations if requested, and enable GPU memory growth."""
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            break  # the setting cannot change once this process uses the GPU
    # Each network compiles its own functions, about which TensorFlow warns as accidental retracing.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def has_gpu() -> bool:
    """Return whether a GPU is available to TensorFlow."""
    return bool(tf.config.list_physical_devices("GPU"))


def strategy_of(name: str) -> tf.distribute.Strategy:
    """Return the distribution strategy for `training.strategy`, in whose scope a network is built and trained.

    `mirrored` divides each batch over this machine's GPUs, or over its logical CPU devices if it has no GPU, and sums
    the gradients, which is equivalent to the whole batch on one device.
    """
    if name == "single":
        return tf.distribute.get_strategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    log.info("Each batch is divided over %d devices", len(devices))
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def device_name() -> str:
    """Return the training hardware: the names of the GPUs, or the number of CPU cores, such as `2 CPU cores`."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return f"{available_cores()} CPU cores"
    return ", ".join(str(tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")) for gpu in gpus)


def resolve_precision(precision: str) -> str:
    """Return the Keras dtype policy for `training.precision`; `auto` is bfloat16 if the hardware supports it."""
    if precision != "auto":
        return precision
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return "mixed_bfloat16" if capability >= (8, 0) else "float32"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return "float32"
    return "mixed_bfloat16" if {"avx512_bf16", "amx_bf16"} & set(flags) else "float32"
