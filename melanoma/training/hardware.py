"""What the machine can do: precision, devices, determinism."""

import logging
from pathlib import Path

import keras
import tensorflow as tf

from melanoma.data.contents import available_cores

__all__ = ["device_name", "has_gpu", "prepare", "resolve_precision", "strategy_of"]

log = logging.getLogger("melanoma")


def prepare(seed: int, deterministic: bool) -> None:
    """Seed Python, NumPy and TensorFlow, ask for repeatable operations, and let GPU memory grow as needed."""
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            break  # the GPU is in use already in this process: it keeps its setting
    # Each network of a study compiles functions of its own, which TensorFlow takes for an accident.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


def strategy_of(name: str) -> tf.distribute.Strategy:
    """In whose scope a network is built and fitted, for `training.strategy`.

    `mirrored` divides each batch over this machine's GPUs, or its logical CPU devices where it has none, and sums the
    gradients: as if one device had seen the whole batch.
    """
    if name == "single":
        return tf.distribute.get_strategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    log.info("Each batch is divided over %d devices", len(devices))
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def device_name() -> str:
    """What a network is trained on, as `2 CPU cores`, or the names of the GPUs."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return f"{available_cores()} CPU cores"
    return ", ".join(str(tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")) for gpu in gpus)


def resolve_precision(precision: str) -> str:
    """The Keras dtype policy for `training.precision`: `auto` is bfloat16 where the hardware computes in it."""
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
