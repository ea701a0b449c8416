"""Saving and loading of a Keras model with MLflow, together with the metadata for its use."""

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import keras
import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray

from melanoma.errors import ModelError
from melanoma.evaluation.decisions import Decisions, decisions_from_metadata
from melanoma.evaluation.out_of_distribution import DETECTOR, OodDetector, load_detector, save_detector
from melanoma.models.model_files import UnsafeModel, load_keras_file
from melanoma.terminal import stage
from melanoma.tracking.model_store import PACKAGE, checked_model, log_model_files, model_address

__all__ = [
    "SavedModel",
    "load_saved_model",
    "save_model",
]


@dataclass(frozen=True)
class SavedModel:
    """A model that maps pixels to probabilities, and its metadata.

    Attributes:
        keras_model: Model that maps pixels of shape (n, image_size, image_size, 3), 0 to 255, to probabilities of shape
            (n, len(classes)).
        classes: Class names in the order of the outputs.
        image_size: Side of the input in pixels.
        resize: Resize method (see `melanoma.data.decode.decode`).
        run_id: ID of the run that trained it, or None.
        max_megapixels: Maximum size of the training images; larger ones were refused.
        decisions: Operating points, prediction sets and abstention, fitted on validation.
        detector: Out-of-distribution detector; None for a model that was saved without it.
        file: File of the Keras model.
    """

    keras_model: keras.Model
    classes: list[str]
    image_size: int
    resize: Literal["stretch", "crop", "pad"]
    run_id: str | None
    max_megapixels: float
    decisions: Decisions
    detector: OodDetector | None
    file: Path


def _registered() -> str:
    """Return the names of the registered models, for an error message."""
    try:
        names = [one.name for one in mlflow.search_registered_models()]
    except MlflowException:  # such as a server that cannot be reached
        return ""
    return f" Registered: {', '.join(names)}." if names else ""


@stage("Saving the model")
def save_model(
    model: keras.Model,
    *,
    classes: list[str],
    image_size: int,
    resize: str,
    example: NDArray,
    detector: OodDetector | None = None,
    metadata: dict[str, Any],
) -> str:
    """Log a model under the name `model` to the active run, and return its address `models:/<id>`.

    Args:
        model: Model that maps pixels to probabilities.
        classes: Class names in the order of the outputs.
        image_size: Side of the input in pixels.
        resize: Resize method (see `melanoma.data.decode.decode`).
        example: Example images, shape (n, image_size, image_size, 3), 0 to 255.
        detector: Out-of-distribution detector, if any.
        metadata: Additional metadata of the model.
    """
    shape = (-1, image_size, image_size, 3)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), shape)]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(classes)))]),
    )
    packages = ("tensorflow", "keras", "numpy", "mlflow")
    # MLflow predicts on the example, and Keras would print progress bars.
    with redirect_stdout(io.StringIO()):
        logged = log_model_files(
            "model",
            _save_into_folder,
            model=model,
            detector=detector,
            signature=signature,
            input_example=example.astype(np.float32),
            # Given here because MLflow would start a process with TensorFlow to infer them.
            pip_requirements=[f"{package}=={version(package)}" for package in packages],
            metadata={"classes": classes, "image_size": image_size, "resize": resize, **metadata},
        )
    return logged.address


def _save_into_folder(*, model: keras.Model, detector: OodDetector | None, path: str, **arguments: Any) -> None:
    """Save a model; the folder must exist because `mlflow.keras.save_model` writes the input example before it."""
    Path(path).mkdir(parents=True, exist_ok=True)
    mlflow.keras.save_model(model, path, **arguments)
    if detector is not None:
        save_detector(detector, _keras_file(Path(path)).with_name(DETECTOR))


@stage("Loading the model")
def load_saved_model(model: str) -> SavedModel:
    """Load a model that was logged by `save_model`, or the model of a package in the registry.

    Args:
        model: `models:/NAME@ALIAS`, `models:/ID`, `runs:/ID/model`, a run ID, or a folder.

    Raises:
        ModelError: If the model does not exist, was not saved by this project, was changed after logging, or has layers
            that run arbitrary code.
    """
    try:
        checked = checked_model(model_address(model))
        folder, metadata = checked.folder, checked.metadata
        if not {"classes", "image_size"} <= set(metadata):
            raise ModelError(
                f"The saved model does not record its classes, as a model that melanoma saved does. Received: {model}"
            )
        if checked.info.flavors.get("keras", {}).get("save_exported_model"):
            raise ModelError(f"The model was saved as exported code, which is not run. Received: {model}")
        file = _keras_file(folder)
        loaded, detector = load_keras_file(file), load_detector(file.with_name(DETECTOR))
    except UnsafeModel as error:
        raise ModelError(f"The model is refused: {error}. Received: {model}") from error
    except (MlflowException, OSError, ValueError, TypeError, KeyError) as error:
        reason = f"There is no such model, or it cannot be loaded ({str(error).splitlines()[0]})"
        raise ModelError(f"{reason}.{_registered()} Received: {model}") from error
    return SavedModel(
        loaded,
        list(metadata["classes"]),
        int(metadata["image_size"]),
        metadata.get("resize", "stretch"),
        checked.run_id,
        float(metadata.get("max_megapixels", 50.0)),
        decisions_from_metadata(metadata),
        detector,
        file,
    )


def _keras_file(folder: Path) -> Path:
    inside = folder / "data" / PACKAGE / "model.keras"
    return inside if inside.is_file() else folder / "data" / "model.keras"
