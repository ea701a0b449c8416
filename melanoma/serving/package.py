"""Packaging of a run's model for the registry: an MLflow pyfunc that takes images and does not need this project."""

import base64
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types import DataType, Schema
from mlflow.types.schema import AnyType, Array, ColSpec
from PIL import Image

import melanoma
from melanoma.data.cache import content_key
from melanoma.errors import ModelError
from melanoma.evaluation.out_of_distribution import DETECTOR, save_detector
from melanoma.models.model_files import CHECKSUMS, UnsafeModel, sha256_of
from melanoma.serving.classifier import LesionClassifier
from melanoma.terminal import stage
from melanoma.tracking.logged_models import models_of
from melanoma.tracking.model_store import PACKAGE, LoggedFiles, checked_model, log_model_files
from melanoma.tracking.models import SavedModel, load_saved_model
from melanoma.tracking.names import Artifact, Tag
from melanoma.tracking.records import NotRecorded, RunRecord

__all__ = ["load_classifier", "load_package", "save_package", "write_package"]

log = logging.getLogger("melanoma")

_CODE = (
    "serving/classifier.py",
    "data/decode.py",
    "evaluation/out_of_distribution.py",
    "evaluation/uncertain.py",
    "models/features.py",
    "models/model_files.py",
)
_NEEDS = ("tensorflow", "keras", "mlflow", "numpy", "pandas", "pillow", "h5py", "pyyaml")


@stage("Packaging the model")
def save_package(run_id: str) -> LoggedFiles:
    """Package the model of a finished run as a logged model `package` of the run, or return the existing package.

    Raises:
        ModelError: If the run has no model, or if the model was changed after logging.
        MlflowException: If the store refuses the package.
    """
    saved = load_saved_model(run_id)
    for one in models_of(run_id, PACKAGE):
        files = json.loads(one.tags.get(Tag.FILES, "{}"))
        if one.status == LoggedModelStatus.READY and files:
            try:
                checked_model(one.model_uri)
            except UnsafeModel as error:
                log.warning("A package of this run was changed and is not used: %s", error)
            else:
                return LoggedFiles(one.model_uri, one.model_id, files)
    with (
        _active(mlflow.get_run(run_id).info.experiment_id),
        tempfile.TemporaryDirectory(prefix="melanoma-package-") as folder,
    ):
        return log_model_files(PACKAGE, mlflow.pyfunc.save_model, run_id, **_parts(Path(folder), saved))


@contextmanager
def _active(experiment_id: str) -> Iterator[None]:
    """Let MLflow log models to an experiment, without passing it on to later processes."""
    variable = "MLFLOW_EXPERIMENT_ID"  # set by MLflow
    before = os.environ.get(variable)
    mlflow.set_experiment(experiment_id=experiment_id)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before


def load_package(folder: Path) -> LesionClassifier:
    """Load the classifier of a package from `checked_model`, without running the code inside the package."""
    return LesionClassifier.from_folder(folder / "data" / PACKAGE)


def load_classifier(model: str) -> LesionClassifier:
    """Load the classifier of a registered version or of a run's model.

    Args:
        model: Model to load (see `load_saved_model`).

    Raises:
        ModelError: If the model does not exist or was changed after logging.
    """
    saved = load_saved_model(model)
    if saved.file.parent.name == PACKAGE:
        return load_package(saved.file.parents[2])
    try:
        return LesionClassifier(saved.keras_model, _facts(saved), f"run {saved.run_id}", saved.detector)
    except ValueError as error:
        raise ModelError(f"The model is refused: {error}. Received: {model}") from error


def write_package(model: str, target: Path) -> None:
    """Write the package of a saved model to a new folder, without a change to the store.

    Args:
        model: Model to package (see `load_saved_model`).
        target: Folder to create.

    Raises:
        ModelError: If the model does not exist, if it was changed after logging, or if its run is not in the store.
    """
    with tempfile.TemporaryDirectory(prefix="melanoma-package-") as folder:
        mlflow.pyfunc.save_model(str(target), **_parts(Path(folder), load_saved_model(model)))


def _parts(folder: Path, saved: SavedModel) -> dict[str, Any]:
    """Write the parts of the package to a folder, and return the arguments of `mlflow.pyfunc.save_model`."""
    data = folder / PACKAGE
    data.mkdir()
    shutil.copyfile(saved.file, data / "model.keras")
    if saved.detector is not None:
        save_detector(saved.detector, data / DETECTOR)
    facts = _facts(saved)
    (data / "facts.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    try:
        card = RunRecord.read(saved.run_id).text(Artifact.MODEL_CARD)
    except NotRecorded:
        card = "This model has no card: its run did not record all that a card needs."
    (data / "model_card.md").write_text(card, encoding="utf-8")
    code = _copy_code(folder)
    checksums = {f"data/{PACKAGE}/{name}": digest for name, digest in sha256_of(data).items()}
    checksums |= {f"code/{code.name}/{name}": digest for name, digest in sha256_of(code).items()}
    (data / CHECKSUMS).write_text(json.dumps(checksums, indent=1), encoding="utf-8")
    example = _example(saved)
    answer = LesionClassifier(saved.keras_model, facts, "", saved.detector).predict(example)
    return {
        "loader_module": f"{code.name}.serving.classifier",
        "data_path": str(data),
        "code_paths": [str(code)],
        "signature": ModelSignature(Schema([ColSpec(AnyType(), "image")]), _outputs(answer)),
        "input_example": example,
        "pip_requirements": [f"{package}=={version(package)}" for package in _NEEDS],
        "metadata": {**facts, "packaged": True},
    }


def _facts(saved: SavedModel) -> dict[str, Any]:
    try:
        record = RunRecord.read(saved.run_id)
        binary_tasks, config = record.binary_tasks, record.config
    except NotRecorded as error:
        raise ModelError(
            "The run that trained the model is not in this store, so that its binary tasks are not known. "
            f"Received: run {saved.run_id}"
        ) from error
    return {
        "run_id": saved.run_id,
        "task": record.task,
        "protocol": str(record.protocol),
        "fingerprint": record.tags.get(Tag.FINGERPRINT, ""),
        "classes": saved.classes,
        "image_size": saved.image_size,
        "resize": saved.resize,
        "max_megapixels": saved.max_megapixels,
        "binary_tasks": binary_tasks,
        "calibration": config["evaluation"].get("calibration", "none"),
        **saved.decisions.metadata(),
    }


def _copy_code(folder: Path) -> Path:
    """Copy the package's code under a unique name, so that packages of several versions can be loaded together."""
    here, code = Path(melanoma.__file__).parent, folder / "code"
    for name in _CODE:
        target = code / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(here / name, target)
        (target.parent / "__init__.py").touch()
    (code / "__init__.py").touch()
    return code.rename(folder / f"lesion_classifier_{content_key(sha256_of(code))[:8]}")


def _example(saved: SavedModel) -> pd.DataFrame:
    """Return an image of the model's input example as a base64 PNG, which is lossless."""
    folder = str(saved.file.parents[1])
    pixels = np.asarray(Model.load(folder).load_input_example(folder))[0]
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return pd.DataFrame({"image": [base64.b64encode(file.getvalue()).decode()]})


def _outputs(answer: pd.DataFrame) -> Schema:
    kinds = {"b": DataType.boolean, "f": DataType.double}
    return Schema(
        [
            ColSpec(
                Array(DataType.string)
                if name == "prediction_set"
                else kinds.get(answer[name].dtype.kind, DataType.string),
                name,
            )
            for name in answer
        ]
    )
