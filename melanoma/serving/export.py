"""Export of a model to the formats of other runtimes, with a check against the predictions of the Keras model."""

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma.config.command_schema import ExportConfig
from melanoma.data.cache import write_atomically, write_errors
from melanoma.errors import ModelError
from melanoma.paths import user_path
from melanoma.serving.classifier import LesionClassifier
from melanoma.serving.package import load_package
from melanoma.serving.server import package_folder
from melanoma.terminal import out, quiet_native_imports

__all__ = ["convert", "export_model", "runner"]

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]

_SUFFIX = {"onnx": ".onnx", "litert": ".tflite"}
_NEEDS = {"onnx": ("onnx", "onnxruntime", "tf2onnx"), "litert": ("ai_edge_litert",)}
_TOLERANCE = 1e-5
_TRIED = 8  # images


def export_model(settings: ExportConfig, uri: str) -> Path:  # noqa: ARG001
    """Export a model to ONNX or LiteRT, with a JSON file next to it that describes its input and its decisions.

    Args:
        settings: The model (see `load_saved_model`; None for the only champion), the format, and the output file. If
            the output file is None, it is named after the model, in the current folder.
        uri: URI of the MLflow store.

    Raises:
        ModelError: If the model does not exist or cannot be converted, or if the probabilities differ.
        DataError: If the file cannot be written.
    """
    kind, output = settings.format, settings.output
    missing = [name for name in _NEEDS[kind] if find_spec(name) is None]
    if missing:
        raise ModelError(f"This format needs {', '.join(missing)}: pip install -e '.[export]'. Received: {kind}")
    if output is not None and Path(output).suffix != _SUFFIX[kind]:
        raise ModelError(f"A file of this format is called *{_SUFFIX[kind]}. Received: output={output}")
    with package_folder(settings.saved_model) as folder:
        classifier = load_package(folder)
    name = classifier.version.replace("/", "-").replace(" ", "-")
    target = user_path(output or f"{name}{_SUFFIX[kind]}")
    content, difference = convert(classifier, kind)
    facts = {**classifier.facts, "version": classifier.version, "input": _feed(classifier), "output": "probabilities"}
    with write_errors("file", f"output={target}"):
        write_atomically(target, content)
        write_atomically(target.with_suffix(".json"), json.dumps(facts, indent=1))
    shown = (
        f"{classifier.version} as {kind}, {len(content) / 1e6:.1f} MB, probabilities within {difference:.1g} of Keras"
    )
    out().print(shown, markup=False)
    out().print(f"Written to {target} and {target.with_suffix('.json').name}", soft_wrap=True, markup=False)
    return target


def convert(classifier: LesionClassifier, kind: str) -> tuple[bytes, float]:
    """Convert a model to another format.

    Returns:
        The converted model, and the maximum absolute difference between its probabilities and those of the Keras model
        on random images.

    Raises:
        ModelError: If the model cannot be converted, or if the probabilities differ by more than 1e-5.
    """
    size = classifier.facts["image_size"]
    pixels = np.random.default_rng(0).integers(0, 256, (_TRIED, size, size, 3)).astype(np.float32)
    expected = classifier.probabilities(pixels.astype(np.uint8))
    with tempfile.TemporaryDirectory(prefix="melanoma-export-") as folder:
        file = Path(folder) / f"model{_SUFFIX[kind]}"
        try:
            with _quietly():
                classifier.model.export(str(file), format=kind, verbose=False)
                predict = runner(file)
        except Exception as error:  # the errors of the converters have no common class
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(
                f"The model cannot be written in this format ({reason[:300]}). Received: {kind}"
            ) from error
        difference = max(float(np.abs(predict(part) - expected[: len(part)]).max()) for part in (pixels, pixels[:1]))
        if not difference <= _TOLERANCE:
            raise ModelError(f"The model in this format predicts other probabilities (by {difference:.2g}): {kind}")
        return file.read_bytes(), difference


def runner(file: Path) -> Predict:
    """Return a function that predicts with ONNX Runtime or LiteRT.

    It maps pixels of shape (n, size, size, 3), 0 to 255, to probabilities.
    """
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda pixels: session.run(None, {name: pixels})[0]
    return _litert(file)


def _litert(file: Path) -> Predict:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=os.cpu_count())
    input_index = interpreter.get_input_details()[0]["index"]
    output_index = interpreter.get_output_details()[0]["index"]

    def predict(pixels: NDArray[np.float32]) -> Any:
        if tuple(interpreter.get_input_details()[0]["shape"]) != pixels.shape:
            interpreter.resize_tensor_input(input_index, pixels.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(input_index, pixels)
        interpreter.invoke()
        return interpreter.get_tensor(output_index)

    interpreter.allocate_tensors()
    return predict


def _feed(classifier: LesionClassifier) -> str:
    facts = classifier.facts
    shape = f"(n, {facts['image_size']}, {facts['image_size']}, 3)"
    return f"float32 of shape {shape}: RGB from 0 to 255, bilinear with antialiasing, resize {facts['resize']}"


def _quietly() -> Any:
    """Suppress the output of the converters to standard error, and their warnings."""
    warnings.simplefilter("ignore")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return quiet_native_imports()
