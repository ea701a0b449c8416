"""The model that others call: from images, as they come, to decisions.

A copy of this file, and of those it imports relatively, is inside every packaged model, so that a package works where
this project is not installed, and goes on working when the project has changed.
"""

import base64
import binascii
import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
import yaml
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, DATA_LOSS
from numpy.typing import NDArray
from PIL import Image

from ..data.decode import FORMATS, UnreadableImage, decode, resized
from ..evaluation.uncertain import Abstention, PredictionSets
from ..models.model_files import CHECKSUMS, UnsafeModel, changed_file, load_keras_file

__all__ = ["MAX_SERVED", "LesionClassifier"]

MAX_SERVED = 256  # images of one request
_BATCH = 64
_AT_ONCE = 4  # of the largest images that are allowed, in one request
_DECODERS = min(os.cpu_count() or 1, 8)  # images decoded at once, whoever asks: a large one takes hundreds of megabytes
_decoding = BoundedSemaphore(_DECODERS)
_EXPECTED = "expected a JPEG or PNG as base64{elsewhere}, or pixels of shape (height, width, 3) from 0 to 255"


class LesionClassifier:
    """A Keras model with all that stands between an image file and a decision.

    Args:
        model: from pixels of shape (n, image_size, image_size, 3), 0 to 255, to probabilities of shape (n, classes).
        facts: as `facts.json` of a package holds them: `classes`, `image_size`, `resize`, `max_megapixels`,
            `operating_points`, `prediction_sets` and `abstention`.
        version: what it calls itself in its answers.
    """

    def __init__(self, model: Any, facts: dict[str, Any], version: str):
        size = int(facts["image_size"])
        self.model = model
        self.facts = facts
        self.classes = [str(name) for name in facts["classes"]]
        self.version = version
        self._size, self._resize = size, str(facts["resize"])
        self._max_pixels = float(facts["max_megapixels"]) * 1e6
        self._points = {str(name): float(threshold) for name, threshold in facts["operating_points"].items()}
        tasks = facts["binary_tasks"] if "binary_tasks" in facts else facts["views"]  # so before 2026-12
        self._tasks = {str(name): [str(label) for label in labels] for name, labels in tasks.items()}
        sets, abstention = facts["prediction_sets"], facts["abstention"]
        self._sets = PredictionSets(**sets) if sets else None
        self._abstention = Abstention(**abstention) if abstention else None
        # One graph for any number of images, so that no request waits for a compilation.
        signature = [tf.TensorSpec((None, size, size, 3), tf.uint8)]
        self._graph = tf.function(lambda pixels: model(pixels, training=False), input_signature=signature)
        self._graph(np.zeros((1, size, size, 3), np.uint8))
        self._threads = ThreadPoolExecutor(_DECODERS)

    @classmethod
    def from_folder(cls, data: Path) -> "LesionClassifier":
        """The classifier of a package.

        Args:
            data: the folder of the package's data.

        Raises:
            MlflowException: DATA_LOSS, where a file was changed since it was written, or the model could run code.
        """
        package = data.parent.parent
        wrong = changed_file(package, json.loads((data / CHECKSUMS).read_text(encoding="utf-8")))
        if wrong is not None:
            raise MlflowException(f"The packaged model was changed after it was written: {wrong}", DATA_LOSS)
        facts = json.loads((data / "facts.json").read_text(encoding="utf-8"))
        try:
            model = load_keras_file(data / "model.keras")
        except UnsafeModel as error:
            raise MlflowException(f"The packaged model is refused: {error}", DATA_LOSS) from error
        return cls(model, facts, _version(package, facts))

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Decisions for images.

        Args:
            data: a column `image`: JPEG or PNG as bytes, as base64 or as a path (not where it is served), or pixels of
                shape (height, width, 3) or (height, width), 0 to 255.
            params: none are known.

        Returns:
            A row for each image: `predicted` (of two classes by the operating point, else the most probable), `score`
            (its probability), `probability/<class>`, for each operating point `score/<task>` and
            `referred/<task>`, `prediction_set` (list of classes), `abstain`, and `model_version`.

        Raises:
            MlflowException: BAD_REQUEST, with one sentence, where an image cannot be used.
        """
        images = _images(data)
        if _is_served():
            self._refuse_too_many_pixels(images)
        return self.decided(np.concatenate([self.probabilities(pixels) for pixels in self.decoded(images)]))

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Probabilities of shape (n, classes) for pixels of shape (n, image_size, image_size, 3), 0 to 255."""
        return np.asarray(self._graph(pixels), dtype=np.float64)

    def get_raw_model(self) -> "LesionClassifier":
        """MLflow calls this from its method of the same name."""
        return self

    def decided(self, probabilities: NDArray[np.float64]) -> pd.DataFrame:
        """The rows of `predict` for probabilities of shape (n, classes)."""
        chosen = probabilities.argmax(axis=1)
        scores = {task: probabilities[:, self._positive(task)].sum(axis=1) for task in self._points}
        referred = {task: score >= self._points[task] for task, score in scores.items()}
        if len(self.classes) == 2 and self.classes[1] in referred:
            chosen = referred[self.classes[1]].astype(int)
        table = {"predicted": [self.classes[i] for i in chosen], "score": probabilities[np.arange(len(chosen)), chosen]}
        table |= {f"probability/{label}": probabilities[:, i] for i, label in enumerate(self.classes)}
        for task, score in scores.items():
            table |= {f"score/{task}": score, f"referred/{task}": referred[task]}
        if self._sets is not None:
            members = self._sets.members(probabilities)
            table["prediction_set"] = [[self.classes[i] for i in np.flatnonzero(row)] for row in members]
        if self._abstention is not None:
            table["abstain"] = self._abstention.abstained(probabilities)
        table["model_version"] = [self.version] * len(chosen)
        return pd.DataFrame(table)

    def pixels(self, image: Any) -> NDArray[np.uint8]:
        """What the model sees of an image, shape (image_size, image_size, 3).

        Raises:
            UnreadableImage: with the reason.
        """
        content = _content(image)
        with _decoding:
            if isinstance(content, np.ndarray):
                return resized(_picture(content, self._max_pixels), self._size, self._resize)
            return decode(content, size=self._size, resize=self._resize, max_pixels=self._max_pixels)

    def _positive(self, task: str) -> list[int]:
        labels = self._tasks.get(task, [task])
        return [i for i, label in enumerate(self.classes) if label in labels]

    def decoded(self, images: list[Any]) -> Iterator[NDArray[np.uint8]]:
        """Batches of pixels, the next one in the making while one is looked at.

        Raises:
            MlflowException: BAD_REQUEST, with one sentence, where an image cannot be used.
        """
        if len(images) == 1:  # in another thread it would take longer
            yield self._usable(0, images[0])[None]
            return
        coming: list[Future] = []
        part: list[Future] = []
        try:
            for start in range(0, len(images), _BATCH):
                numbers = range(start, min(start + _BATCH, len(images)))
                part = [self._threads.submit(self._usable, i, images[i]) for i in numbers]
                if coming:
                    yield np.stack([future.result() for future in coming])
                coming = part
            yield np.stack([future.result() for future in coming])
        finally:
            for future in (*coming, *part):
                future.cancel()

    def _refuse_too_many_pixels(self, images: list[Any]) -> None:
        """Files of a few bytes may hold more pixels than can be decoded while others wait."""
        total = 0
        for image in images:
            with suppress(UnreadableImage, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                content = _content(image)
                if isinstance(content, bytes):
                    width, height = Image.open(io.BytesIO(content), formats=FORMATS).size
                    total += width * height
        if total > _AT_ONCE * self._max_pixels:
            raise MlflowException(
                f"The images of a request may have {_AT_ONCE * self._max_pixels / 1e6:.0f} megapixels together; send "
                f"fewer at once. Received: {total / 1e6:.0f} megapixels",
                BAD_REQUEST,
            )

    def _usable(self, i: int, image: Any) -> NDArray[np.uint8]:
        try:
            return self.pixels(image)
        except UnreadableImage as error:
            expected = _EXPECTED.format(elsewhere="" if _is_served() else ", bytes or a path")
            raise MlflowException(f"Image {i + 1} cannot be used: {error}; {expected}.", BAD_REQUEST) from error


def _load_pyfunc(path: str) -> LesionClassifier:
    """Called by MLflow with the folder of a package's data."""
    return LesionClassifier.from_folder(Path(path))


def _version(package: Path, facts: dict[str, Any]) -> str:
    """MLflow leaves a note beside a model that it takes from the registry."""
    note = package / "registered_model_meta"
    found = yaml.safe_load(note.read_text(encoding="utf-8")) if note.is_file() else {}
    name = found.get("model_name")
    return f"{name}/{found['model_version']}" if name else f"run {facts['run_id']}"


def _images(data: pd.DataFrame) -> list[Any]:
    if "image" not in data:
        names = ", ".join(map(str, data.columns))
        raise MlflowException(f"A column `image` is expected. Received: {names}", BAD_REQUEST)
    images = list(data["image"])
    if len(images) == 1 and isinstance(images[0], list) and images[0] and isinstance(images[0][0], str | bytes):
        images = images[0]  # MLflow gives the whole list of a request's `inputs` as one row
    if not images:
        raise MlflowException("There are no images; give one or more. Received: 0 images", BAD_REQUEST)
    if _is_served() and len(images) > MAX_SERVED:
        raise MlflowException(
            f"At most {MAX_SERVED} images are taken at once; send more requests. Received: {len(images)} images",
            BAD_REQUEST,
        )
    return images


def _content(image: Any) -> bytes | Path | NDArray:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Path | str):
        return _from_text(image)
    if isinstance(image, np.ndarray | list | tuple):
        try:
            return np.asarray(image)
        except ValueError as error:
            raise UnreadableImage("its rows are not of one length") from error
    raise UnreadableImage(f"it is of type {type(image).__name__}")


def _from_text(image: str | Path) -> bytes | Path:
    if not _is_served():  # a client could else find out which files there are
        with suppress(OSError, ValueError, RuntimeError):
            path = Path(image).expanduser()
            if path.is_file():
                return path
    if isinstance(image, str):
        text = image.split(",", 1)[1] if image.startswith("data:") and "," in image else image
        with suppress(binascii.Error, ValueError):
            return base64.b64decode(text, validate=True)
    raise UnreadableImage("it is not base64" if _is_served() else "it is neither base64 nor the path of a file")


def _picture(pixels: NDArray, max_pixels: float) -> Image.Image:
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise UnreadableImage(f"it has shape {pixels.shape}")
    if pixels.shape[0] * pixels.shape[1] > max_pixels:
        raise UnreadableImage(f"more pixels than allowed ({pixels.shape[1]}x{pixels.shape[0]})")
    if pixels.dtype.kind not in "uif":
        raise UnreadableImage(f"its values are of type {pixels.dtype}")
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 255):
        raise UnreadableImage("its values are not from 0 to 255")
    if pixels.dtype.kind == "f" and 0 < pixels.max() <= 1:
        raise UnreadableImage("its values are from 0 to 1")
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def _is_served() -> bool:
    """Whether this is MLflow's scoring server, which sets these: requests are untrusted then."""
    environment = os.environ
    return environment.get("_MLFLOW_IS_IN_SERVING_ENVIRONMENT") == "true" or "__pyfunc_model_path__" in environment
