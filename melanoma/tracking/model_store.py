"""The files of models in the store, and the hashes that verify them."""

import json
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
from mlflow.entities import LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from yaml import YAMLError

from melanoma.errors import ModelError
from melanoma.models.model_files import NOTE, UnsafeModel, changed_file, sha256_of, stripped
from melanoma.paths import user_path
from melanoma.tracking.logged_models import end_pending, models_of
from melanoma.tracking.names import Alias, Tag
from melanoma.tracking.registered import only_model
from melanoma.tracking.store import downloaded

__all__ = [
    "PACKAGE",
    "CheckedModel",
    "LoggedFiles",
    "checked_model",
    "log_model_files",
    "model_address",
    "registered_version",
]

log = logging.getLogger("melanoma")

PACKAGE = "package"  # the name of a packaged model, and of the folder of its data


@dataclass(frozen=True)
class LoggedFiles:
    """A logged model.

    Attributes:
        address: Address `models:/<id>`.
        model_id: ID of the MLflow model.
        files: SHA-256 of each file by path.
    """

    address: str
    model_id: str
    files: dict[str, str]

    @property
    def tags(self) -> dict[str, str]:
        """The hashes as tags, which the database stores separately from the artifact store."""
        return {Tag.FILES: json.dumps(self.files)}


@dataclass(frozen=True)
class CheckedModel:
    """A private copy of a model's files, unchanged since the model was logged and without additional files.

    Attributes:
        folder: Folder of the copy.
        info: Content of its MLmodel file.
        run_id: ID of the run that trained it, from the store or, for a folder, from its MLmodel file.
        version: Registered version; None if the address is not one of a version.
        known: Whether the store had the hashes of the files. If not, the files were not verified.
    """

    folder: Path
    info: Model
    run_id: str | None
    version: ModelVersion | None
    known: bool

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata that was saved with the model."""
        return self.info.metadata or {}


@dataclass(frozen=True)
class _Entry:
    """The database entry of a model, without its files."""

    address: str
    run_id: str | None
    version: ModelVersion | None
    tags: Mapping[str, str]


def log_model_files(name: str, save: Callable[..., None], run_id: str | None = None, **parts: Any) -> LoggedFiles:
    """Log a model to a run, and the SHA-256 of each of its files to the database.

    Args:
        name: Name of the model.
        save: Function that writes the files, called with `path` like `save_model` of an MLflow flavor.
        run_id: ID of the run; None for the active run.
        parts: Additional arguments of `mlflow.models.Model.log` and `save`.

    Raises:
        ModelError: If the stored files differ from the written ones.
    """
    written: dict[str, str] = {}

    def save_model(path: str, *, validate_serving_input: bool, **arguments: Any) -> None:  # noqa: ARG001 - MLflow's
        save(path=path, **arguments)
        written.update(sha256_of(Path(path)))

    flavor = SimpleNamespace(save_model=save_model)
    # MLflow would load the model again to try the example, and only warn; promotion tries it in a new process.
    trusting: dict[str, Any] = {"validate_serving_input": False}
    try:
        info = Model.log(artifact_path=None, name=name, flavor=flavor, run_id=run_id, **parts, **trusting)
    except BaseException:
        _end_interrupted(name, run_id)
        raise
    stored = sha256_of(downloaded(info.model_uri))
    written["MLmodel"] = stored["MLmodel"]  # MLflow changes it after `save`
    if stored != written:
        raise ModelError(f"The store returned other content than was written. Received: {info.model_uri}")
    logged = LoggedFiles(str(info.model_uri), str(info.model_id), written)
    mlflow.MlflowClient().set_logged_model_tags(logged.model_id, logged.tags)
    return logged


def _end_interrupted(name: str, run_id: str | None) -> None:
    """Mark a model whose logging was interrupted as failed; else it would stay pending for ever."""
    active = mlflow.active_run()
    run_id = run_id or (None if active is None else active.info.run_id)
    if run_id is None:
        return
    with suppress(MlflowException):  # the store may be the reason
        end_pending(models_of(run_id, name))


def model_address(model: str | None) -> str:
    """Return the address of a model, given as an address, a folder or a run ID; None for the only champion.

    Raises:
        ModelError: If `model` is None and there is not exactly one registered model.
    """
    if model is None:
        return f"models:/{only_model(None)}@{Alias.CHAMPION}"
    if ":/" in model:
        return model
    folder = user_path(model)
    return str(folder) if folder.exists() else f"runs:/{model}/model"


def registered_version(address: str) -> ModelVersion | None:
    """Return the version of `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `models:/NAME/latest`; None otherwise.

    Raises:
        MlflowException: If the version does not exist.
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


def checked_model(address: str) -> CheckedModel:
    """Copy the files of a saved model, and compare them with the hashes in the store's database.

    Args:
        address: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `models:/ID`, `runs:/ID/NAME`, or a folder.

    Raises:
        UnsafeModel: If a file was changed after logging, if the MLmodel file cannot be read, or if a package has no
            hashes in the store.
        MlflowException, OSError: If the model does not exist.
    """
    entry = _entry(address)
    folder = downloaded(address if entry is None else entry.address)
    known = {} if entry is None else json.loads(entry.tags.get(Tag.FILES, "{}"))
    if known:
        # Links or compiled code next to the files would be used although they have no hash.
        stripped(folder, known)
        wrong = changed_file(folder, known)
        if wrong is not None:
            raise UnsafeModel(f"it was changed after it was saved: {wrong}")
    if entry is not None and entry.version is None:
        (folder / NOTE).unlink(missing_ok=True)  # the file would identify the model as a registered version
    try:
        info = Model.load(folder)
    except (AttributeError, TypeError, YAMLError) as error:
        raise UnsafeModel("its MLmodel cannot be read") from error
    if entry is None:
        return CheckedModel(folder, info, info.run_id, None, False)
    if not known and (info.metadata or {}).get("packaged"):
        raise UnsafeModel("the store has no record of what was packaged")
    if not known:
        log.warning("The store has no hashes of the files of %s: they cannot be checked", address)
    return CheckedModel(folder, info, entry.run_id, entry.version, bool(known))


def _entry(address: str) -> _Entry | None:
    """Return the database entry of an address; None for a folder."""
    client, version = mlflow.MlflowClient(), registered_version(address)
    if version is not None:
        # Uses the version number, because the alias may move in the meantime.
        address, tags = f"models:/{version.name}/{version.version}", version.tags
        if Tag.FILES not in tags and version.model_id:  # registered by hand
            tags = client.get_logged_model(version.model_id).tags
        return _Entry(address, version.run_id or None, version, tags)
    if found := re.fullmatch(r"models:/(m-\w+)", address):
        logged = client.get_logged_model(found[1])
    elif found := re.fullmatch(r"runs:/(\w+)/([\w.-]+)", address):
        ready = [one for one in models_of(found[1], found[2]) if one.status == LoggedModelStatus.READY]
        if not ready:
            seeds = client.get_run(found[1]).data.tags.get(Tag.SEED_RUNS)
            if seeds is not None:
                raise MlflowException(f"The run has several seeds; give the run of one of them: {seeds}")
            raise MlflowException(f"The run has saved no model of this name: {address}")
        logged = max(ready, key=lambda one: one.creation_timestamp)
    elif re.match(r"(models|runs):", address):
        raise MlflowException("A model is models:/NAME@ALIAS, models:/NAME/VERSION, models:/ID or runs:/ID/NAME")
    else:
        return None
    return _Entry(logged.model_uri, logged.source_run_id, None, logged.tags)
