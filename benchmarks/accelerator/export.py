"""Write the training step and both forms of the augmentation as HLO: `python -m benchmarks.accelerator.export`.

Runs on a CPU, with this project's own network. The folder then holds all that `benchmarks.accelerator.run` needs.
"""

import argparse
import gzip
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np
import tensorflow as tf

from benchmarks.accelerator.augmentation import FORMS
from melanoma.models.build import build_network
from melanoma.models.resnet_small import resnet_small

SIDE, CLASSES = 128, 7
RATE, DECAY, BETA_1, BETA_2, EPSILON = 1e-3, 0.004, 0.9, 0.999, 1e-7  # AdamW's defaults in Keras
Arrays = list[Any]


def adamw(weights: Arrays, gradients: Arrays, moments: Arrays) -> tuple[Arrays, Arrays]:
    """One step of AdamW; `moments` are the step number, the first moments and the second.

    Written out because Keras' optimizers have no form without variables under TensorFlow.
    """
    step, first, second = moments[0] + 1, moments[1 : 1 + len(weights)], moments[1 + len(weights) :]
    power = tf.cast(step, tf.float32)
    rate = RATE * tf.sqrt(1 - BETA_2**power) / (1 - BETA_1**power)
    first = [old + (new - old) * (1 - BETA_1) for old, new in zip(first, gradients, strict=True)]
    second = [old + (new * new - old) * (1 - BETA_2) for old, new in zip(second, gradients, strict=True)]
    changed = [
        weight - weight * (DECAY * RATE) - m * rate / (tf.sqrt(v) + EPSILON)
        for weight, m, v in zip(weights, first, second, strict=True)
    ]
    return changed, [step, *first, *second]


def training_step(tiny: bool) -> tuple[Callable[..., Arrays], Arrays, int]:
    """A step that maps its state, images and one-hot labels to the new state and the loss.

    Returns:
        The step, its first state, and the number of parameters of the network.
    """
    keras.utils.set_random_seed(0)
    builder = partial(resnet_small, widths=(4, 4), blocks=(1, 1)) if tiny else resnet_small
    network = build_network(builder, image_size=SIDE, classes=CLASSES, policy="mixed_bfloat16")
    loss_of = keras.losses.CategoricalCrossentropy(from_logits=True)
    trained = [np.asarray(variable.value) for variable in network.trainable_variables]
    others = [np.asarray(variable.value) for variable in network.non_trainable_variables]
    moments = [np.asarray(0, np.int64), *(np.zeros_like(array) for array in (*trained, *trained))]
    ends = len(trained), len(trained) + len(others)

    def step(*arguments: tf.Tensor) -> Arrays:
        weights, rest = list(arguments[: ends[0]]), list(arguments[ends[0] : ends[1]])
        *state, images, labels = arguments[ends[1] :]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits, rest = network.stateless_call(weights, rest, images, training=True)
            loss = loss_of(labels, logits)
        weights, state = adamw(weights, tape.gradient(loss, weights), state)
        return [*weights, *rest, *state, loss]

    return step, [*trained, *others, *moments], network.count_params()


def write(path: Path, function: Callable, arguments: Sequence[tf.TensorSpec]) -> dict[str, list]:
    """Lower a function to HLO; return the shapes and types of its arguments and results."""
    compiled = tf.function(function, jit_compile=True, input_signature=arguments)
    hlo = compiled.experimental_get_compiler_ir(*arguments)(stage="hlo_serialized")
    path.write_bytes(gzip.compress(hlo))
    results = tf.nest.flatten(compiled.get_concrete_function().structured_outputs)
    print(f"{path.name}: {len(hlo)} bytes of HLO", flush=True)
    sides = {"arguments": arguments, "results": results}
    return {side: [[list(one.shape), one.dtype.name] for one in specs] for side, specs in sides.items()}


def main() -> None:
    """Export for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write, such as build/accelerator")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--tiny", action="store_true", help="a tiny network, to try the scripts on a CPU")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    step, state, parameters = training_step(chosen.tiny)
    np.savez_compressed(chosen.folder / "state.npz", *state)
    modules = {}
    for batch in chosen.batches:
        images = tf.TensorSpec((batch, SIDE, SIDE, 3), tf.uint8)
        for name, form in FORMS.items():
            arguments = [images, tf.TensorSpec((2,), tf.int32)]
            modules[f"{name}_{batch}"] = write(chosen.folder / f"{name}_{batch}.hlo.gz", form, arguments)
        arguments = [tf.TensorSpec(array.shape, array.dtype) for array in state]
        arguments += [tf.TensorSpec(images.shape, tf.float32), tf.TensorSpec((batch, CLASSES), tf.float32)]
        modules[f"step_{batch}"] = write(chosen.folder / f"step_{batch}.hlo.gz", step, arguments)
    content = {
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "network": {"parameters": parameters, "arrays of the state": len(state)},
        "side": SIDE,
        "classes": CLASSES,
        "modules": modules,
    }
    (chosen.folder / "export.json").write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
