"""The classifier of a packaged model, which maps images to decisions.

Every packaged model contains a copy of this file and of the files that it imports relatively. A package therefore works
without an installation of this project, and keeps working when the project changes.
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
from ..evaluation.out_of_distribution import DETECTOR, OodDetector, load_detector
from ..evaluation.uncertain import Abstention, PredictionSets
from ..models.features import with_features
from ..models.model_files import CHECKSUMS, changed_file, load_keras_file

__all__ = ["MAX_SERVED", "LesionClassifier"]

MAX_SERVED = 256  # images per request
_BATCH = 64
_AT_ONCE = 4  # images of the maximum size per request
_DECODERS = min(
    os.cpu_count() or 1, 8
)  # images decoded concurrently over all requests; a large one takes hundreds of megabytes
_decoding = BoundedSemaphore(_DECODERS)
_EXPECTED = "expected a JPEG or PNG as base64{elsewhere}, or pixels of shape (height, width, 3) from 0 to 255"


class LesionClassifier:
    """A Keras model with preprocessing, thresholds and checks, which maps image files to decisions.

    Args:
        model: Model that maps pixels of shape (n, image_size, image_size, 3), 0 to 255, to probabilities of shape
            (n, classes).
        facts: Content of `facts.json` of a package: `classes`, `image_size`, `resize`, `max_megapixels`,
            `binary_tasks`, `operating_points`, `prediction_sets` and `abstention`.
        version: Version of the model, for the column `model_version`.
        detector: Out-of-distribution detector, if any.

    Raises:
        ValueError: If the detector does not fit the model.
    """

    def __init__(self, model: Any, facts: dict[str, Any], version: str, detector: OodDetector | None = None):
        size = int(facts["image_size"])
        self.model = model
        self.facts = facts
        self.classes = [str(name) for name in facts["classes"]]
        self.version = version
        self._size, self._resize = size, str(facts["resize"])
        self._max_pixels = float(facts["max_megapixels"]) * 1e6
        self._points = {str(name): float(threshold) for name, threshold in facts["operating_points"].items()}
        tasks = facts["binary_tasks"] if "binary_tasks" in facts else facts["views"]  # `views` before 2026-12
        self._tasks = {str(name): [str(label) for label in labels] for name, labels in tasks.items()}
        sets, abstention = facts["prediction_sets"], facts["abstention"]
        self._sets = PredictionSets(**sets) if sets else None
        self._abstention = Abstention(**abstention) if abstention else None
        self._detector = detector
        scored = model if detector is None else with_features(model)
        if scored is None:
            raise ValueError("The network has no feature maps for its out-of-distribution detector")
        # One graph for any number of images, so that no request waits for tracing.
        signature = [tf.TensorSpec((None, size, size, 3), tf.uint8)]
        self._graph = tf.function(lambda pixels: scored(pixels, training=False), input_signature=signature)
        self.outputs(np.zeros((1, size, size, 3), np.uint8))
        self._threads = ThreadPoolExecutor(_DECODERS)

    @classmethod
    def from_folder(cls, data: Path) -> "LesionClassifier":
        """Load the classifier of a package.

        Args:
            data: Folder of the package's data.

        Raises:
            MlflowException: DATA_LOSS, if a file was changed after it was written, or if the model could execute code.
        """
        package = data.parent.parent
        wrong = changed_file(package, json.loads((data / CHECKSUMS).read_text(encoding="utf-8")))
        if wrong is not None:
            raise MlflowException(f"The packaged model was changed after it was written: {wrong}", DATA_LOSS)
        facts = json.loads((data / "facts.json").read_text(encoding="utf-8"))
        try:
            model, detector = load_keras_file(data / "model.keras"), load_detector(data / DETECTOR)
        except ValueError as error:  # UnsafeModel is one
            raise MlflowException(f"The packaged model is refused: {error}", DATA_LOSS) from error
        return cls(model, facts, _version(package, facts), detector)

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Predict decisions for images.

        Args:
            data: Table with a column `image`: JPEG or PNG as bytes, as base64 or as a path (paths not when served), or
                pixels of shape (height, width, 3) or (height, width), 0 to 255.
            params: Ignored.

        Returns:
            A row for each image: `predicted` (for two classes by the operating point, otherwise the most probable
            class), `score` (its probability), `probability/<class>`, for each operating point `score/<task>` and
            `referred/<task>`, `prediction_set` (list of classes), `abstain`, `ood_score` and `out_of_distribution`
            (whether the image is unlike the training images, which is a score above 1), and `model_version`.

        Raises:
            MlflowException: BAD_REQUEST, with one sentence, if an image cannot be used.
        """
        images = _images(data)
        if _is_served():
            self._refuse_too_many_pixels(images)
        return pd.concat([self.decided(*self.outputs(pixels)) for pixels in self.decoded(images)], ignore_index=True)

    def outputs(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Return the probabilities and the out-of-distribution scores of images.

        Args:
            pixels: Shape (n, image_size, image_size, 3), 0 to 255.

        Returns:
            Probabilities of shape (n, classes), and scores of shape (n,), or None without a detector.
        """
        if self._detector is None:
            return np.asarray(self._graph(pixels), dtype=np.float64), None
        probabilities, *features = (np.asarray(one) for one in self._graph(pixels))
        return probabilities.astype(np.float64), self._detector.scores(features)

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the probabilities of `outputs`."""
        return self.outputs(pixels)[0]

    def get_raw_model(self) -> "LesionClassifier":
        """Return this classifier; MLflow's method of the same name calls it."""
        return self

    def decided(
        self, probabilities: NDArray[np.float64], ood_scores: NDArray[np.float64] | None = None
    ) -> pd.DataFrame:
        """Return the rows of `predict` for the results of `outputs`."""
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
        if ood_scores is not None:
            table |= {"ood_score": ood_scores, "out_of_distribution": ood_scores > 1}
        table["model_version"] = [self.version] * len(chosen)
        return pd.DataFrame(table)

    def pixels(self, image: Any) -> NDArray[np.uint8]:
        """Return the model input for an image, shape (image_size, image_size, 3).

        Raises:
            UnreadableImage: If the image cannot be used, with the reason.
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
        """Yield batches of pixels; the next batch is decoded while the current one is processed.

        Raises:
            MlflowException: BAD_REQUEST, with one sentence, if an image cannot be used.
        """
        if len(images) == 1:  # faster than in another thread
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
        """Refuse a request with too many pixels: even small files may take long to decode and block other requests."""
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
    """Load the classifier; MLflow calls this with the folder of the package's data."""
    return LesionClassifier.from_folder(Path(path))


def _version(package: Path, facts: dict[str, Any]) -> str:
    """Return the registered version from the file that MLflow adds to a model from the registry, or else the run ID."""
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
        images = images[0]  # MLflow passes the whole list of a request's `inputs` as one row
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
            raise UnreadableImage("its rows have different lengths") from error
    raise UnreadableImage(f"it is of type {type(image).__name__}")


def _from_text(image: str | Path) -> bytes | Path:
    if not _is_served():  # paths would let clients probe for files
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
    """Return whether this is MLflow's scoring server, which sets these variables; its requests are untrusted."""
    environment = os.environ
    return environment.get("_MLFLOW_IS_IN_SERVING_ENVIRONMENT") == "true" or "__pyfunc_model_path__" in environment
