"""Saving a Keras model to MLflow with what is needed to use it, and loading it again."""

import io
import json
import logging
import re
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import keras
import mlflow
import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray
from yaml import YAMLError

from melanoma.errors import ModelError
from melanoma.evaluation.decisions import Decisions, stored_decisions
from melanoma.models.model_files import UnsafeModel, changed_file, load_keras_file, sha256_of, stripped
from melanoma.tracking.store import downloaded

log = logging.getLogger("melanoma")

__all__ = [
    "FILES_TAG",
    "PACKAGE",
    "SavedModel",
    "checked_folder",
    "images_seen_by",
    "load_saved_model",
    "metrics_of_run",
    "model_address",
    "protocol_of",
    "registered_version",
    "save_model",
    "split_of",
]

FILES_TAG = "melanoma.files"  # of a registered version: SHA-256 of each file of its package
PACKAGE = "package"  # the name of a packaged model, and of the folder of its data
_MODEL_TAG = "melanoma.model.sha256"  # of a run


@dataclass(frozen=True)
class SavedModel:
    """A model from pixels to probabilities, and what it was saved with.

    Attributes:
        keras_model: from (n, image_size, image_size, 3) in 0 to 255 to (n, len(classes)).
        classes: class names in the order of the outputs.
        image_size: side of the input in pixels.
        resize: see `melanoma.data.decode.decode`.
        run_id: of the run that trained it, or None.
        max_megapixels: larger images were refused in training.
        decisions: operating points, prediction sets and abstention, fitted on validation.
        file: the Keras model as it was written.
    """

    keras_model: keras.Model
    classes: list[str]
    image_size: int
    resize: Literal["stretch", "crop", "pad"]
    run_id: str | None
    max_megapixels: float
    decisions: Decisions
    file: Path


def save_model(
    model: keras.Model, *, classes: list[str], image_size: int, resize: str, example: NDArray, metadata: dict[str, Any]
) -> str:
    """Log a model named `model` to the active run; returns its address `models:/<id>`.

    Args:
        model: from pixels to probabilities.
        classes: class names in the order of the outputs.
        image_size: side of the input in pixels.
        resize: how images are brought to that size.
        example: a few images, shape (n, image_size, image_size, 3), 0 to 255.
        metadata: further facts to keep with the model.
    """
    shape = (-1, image_size, image_size, 3)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), shape)]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(classes)))]),
    )
    packages = ("tensorflow", "keras", "numpy", "mlflow")
    # MLflow tries the example on the model, and Keras would draw a progress bar for each of two images.
    with redirect_stdout(io.StringIO()):
        info = mlflow.models.Model.log(
            artifact_path=None,
            name="model",
            flavor=SimpleNamespace(save_model=_save_into_folder),
            model=model,
            signature=signature,
            input_example=example.astype(np.float32),
            # Named here because MLflow would start a process with TensorFlow in it to find them out.
            pip_requirements=[f"{package}=={version(package)}" for package in packages],
            metadata={"classes": classes, "image_size": image_size, "resize": resize, **metadata},
        )
    return str(info.model_uri)


def _save_into_folder(*, model: keras.Model, path: str, **arguments: Any) -> None:
    """`mlflow.keras.save_model` writes the input example before it makes the folder for it."""
    Path(path).mkdir(parents=True, exist_ok=True)
    mlflow.keras.save_model(model, path, **arguments)
    # In the store, where someone who can change the model's files cannot change it too.
    mlflow.set_tag(_MODEL_TAG, sha256_of(Path(path))["data/model.keras"])


def model_address(model: str) -> str:
    """A model's address from what a user gives: an address, a folder, or a run's id."""
    if ":/" in model:
        return model
    if Path(model).expanduser().exists():
        return str(Path(model).expanduser())
    return f"runs:/{model}/model"


def registered_version(address: str) -> ModelVersion | None:
    """The version behind `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `models:/NAME/latest`; None for others.

    Raises:
        MlflowException: there is no such version.
    """
    found = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/([^/@]+))", address)
    if found is None:
        return None
    name, alias, version = found.groups()
    client = mlflow.MlflowClient()
    if version == "latest":
        versions = client.search_model_versions(f"name = '{name}'")
        version = max((int(one.version) for one in versions), default=0)
    return client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, str(version))


def checked_folder(address: str) -> Path:
    """A copy of the files of a saved model, as they were when it was trained or packaged, and nothing else.

    What is known of them is in the store's database: on the registered version, on a package, on the run.

    Raises:
        UnsafeModel: a file was changed since.
        MlflowException, OSError: there is no such model.
    """
    version = registered_version(address)
    folder = downloaded(address)
    try:
        info = Model.load(folder)
    except (AttributeError, TypeError, YAMLError) as error:
        raise UnsafeModel("its MLmodel cannot be read") from error
    known = _known_files(version, info)
    if known:
        # A link or compiled code beside the files would be used though it has no hash.
        stripped(folder, known)
        wrong = changed_file(folder, known)
        if wrong is not None:
            raise UnsafeModel(f"it was changed after it was packaged: {wrong}")
    elif (info.metadata or {}).get("packaged") and info.model_id is not None:
        raise UnsafeModel("the store does not know what was packaged")
    elif version is not None:
        log.warning("%s was not registered by `melanoma promote`: its files cannot be checked", address)
    file, expected = _keras_file(folder), None
    if info.run_id is not None:
        with suppress(MlflowException):  # the model may come from another store
            expected = mlflow.get_run(info.run_id).data.tags.get(_MODEL_TAG)
    found = sha256_of(file.parent).get(file.name)
    if expected not in (None, found):
        raise UnsafeModel(f"it was changed after it was trained: {file.name} has SHA-256 {found}, not {expected}")
    return folder


def _known_files(version: ModelVersion | None, info: Model) -> dict[str, str]:
    if version is not None and FILES_TAG in version.tags:
        return dict(json.loads(version.tags[FILES_TAG]))
    if info.model_id is None or not (info.metadata or {}).get("packaged"):
        return {}
    return dict(json.loads(mlflow.get_logged_model(info.model_id).tags.get(FILES_TAG, "{}")))


def load_saved_model(model: str) -> SavedModel:
    """Load a model that `save_model` logged, or the one inside a package of the registry.

    Args:
        model: `models:/NAME@ALIAS`, `models:/ID`, `runs:/ID/model`, a run's id, or a folder.

    Raises:
        ModelError: it is not there, was not saved by this project, was changed since, or has layers that run arbitrary
            code.
    """
    try:
        folder = checked_folder(model_address(model))
        info = Model.load(folder)
        metadata = info.metadata or {}
        if not {"classes", "image_size"} <= set(metadata):
            raise ModelError(f"The model does not say which classes it knows; was it trained here? Received: {model}")
        if info.flavors.get("keras", {}).get("save_exported_model"):
            raise ModelError(f"The model was saved as exported code, which is not run. Received: {model}")
        loaded = load_keras_file(_keras_file(folder))
    except UnsafeModel as error:
        raise ModelError(f"The model is refused: {error}. Received: {model}") from error
    except (MlflowException, OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"There is no such model, or it cannot be loaded ({reason}). Received: {model}") from error
    return SavedModel(
        loaded,
        list(metadata["classes"]),
        int(metadata["image_size"]),
        metadata.get("resize", "stretch"),
        info.run_id,
        float(metadata.get("max_megapixels", 50.0)),
        stored_decisions(metadata),
        _keras_file(folder),
    )


def _keras_file(folder: Path) -> Path:
    inside = folder / "data" / PACKAGE / "model.keras"
    return inside if inside.is_file() else folder / "data" / "model.keras"


def images_seen_by(run_id: str | None, selected: bool = True) -> tuple[set[str], bool]:
    """SHA-256 of the images that a run, and those whose weights it began from, trained or tuned on.

    Args:
        run_id: of the run.
        selected: count test images that the run was selected on.

    Returns:
        They, and whether there may be others.

    Raises:
        ModelError: it is not known what the run itself has seen.
    """
    if run_id is None:
        log.warning("The model does not say which run trained it: images it has seen cannot be told from others.")
        return set(), True
    seen: set[str] = set()
    unknown, line = False, list[str]()
    while run_id not in line:
        try:
            table = split_of(run_id)
        except ModelError:
            if not line:
                raise
            return seen, True
        line.append(run_id)
        tags = mlflow.get_run(run_id).data.tags
        protocol = tags.get("melanoma.protocol", "")
        chose = ["train", "validation", *(["test"] if selected and "selected_on_test" in protocol else [])]
        used = table[table.part.isin(chose)]
        # An image that only its augmented copies stand for was seen too.
        seen |= set(table.sha256[(table.parent == "") & table.path.isin({*used.path, *used.parent})])
        unknown |= "pretraining_unknown" in protocol
        run_id = tags.get("melanoma.weights_run", run_id)
    return seen, unknown


def protocol_of(run_id: str | None) -> str:
    """The protocol of a run: `clean`, or the shortcuts it took; `clean` where it is not there any more."""
    try:
        return str(mlflow.get_run(run_id).data.tags.get("melanoma.protocol", "clean"))
    except MlflowException:
        return "clean"


def metrics_of_run(run_id: str) -> dict[str, float]:
    """The metrics that a run has logged; empty where the run is not there any more."""
    try:
        return dict(mlflow.get_run(run_id).data.metrics)
    except MlflowException:
        return {}


def split_of(run_id: str) -> pd.DataFrame:
    """The images of a run: `path`, `label`, `part`, `sha256` and more, all as text.

    Raises:
        ModelError: the run has none.
    """
    try:
        path = downloaded(f"runs:/{run_id}/data/split.csv")
    except (MlflowException, OSError) as error:
        raise ModelError(
            "The run that trained the model has no data/split.csv, so images it has seen cannot be left out; give "
            f"include_seen=true to evaluate all the same. Received: {run_id}"
        ) from error
    return pd.read_csv(path, keep_default_na=False, dtype=str)
