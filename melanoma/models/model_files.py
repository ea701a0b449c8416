"""Safe loading of untrusted model files.

Every packaged model contains a copy of this file, so it must not import other modules of this project.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

__all__ = ["CHECKSUMS", "NOTE", "UnsafeModel", "changed_file", "load_keras_file", "sha256_of", "stripped"]

CHECKSUMS = "checksums.json"
NOTE = "registered_model_meta"  # MLflow adds this file to models from the registry

_CARRY_CODE = ("Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "FlaxLayer", "JaxLayer")
_MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
_MAX_TEXT = 64 * 1024**2  # bytes
_MAX_WEIGHTS = 16 * 1024**3


class UnsafeModel(ValueError):
    """Raised if loading a model file could run code or read other files. The message names the cause."""


def load_keras_file(path: Path) -> keras.Model:
    """Load a saved Keras model after checking its file.

    Keras's safe mode is not a security boundary. Therefore layers that contain code are rejected before any layer is
    built.

    Raises:
        UnsafeModel: If the file has a Lambda, a TFSMLayer or another layer with code, at any depth, weights that link
            to other files, unexpected members, or an excessive size.
        ValueError, OSError, TypeError, KeyError: If the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive)
            for name in _class_names(json.loads(archive.read("config.json"))):
                if name.replace(">", ".").rsplit(".", 1)[-1] in _CARRY_CODE:
                    raise UnsafeModel(f"it has a {name} layer, which can run any code")
            with archive.open("model.weights.h5") as weights, h5py.File(weights, "r") as file:
                _check_links(file)
    except (zipfile.BadZipFile, NotImplementedError, RecursionError) as error:
        raise ValueError(f"it is not a .keras file ({error})") from error
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def sha256_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by relative path, except files that Python or MLflow added."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if "__pycache__" not in path.parts and path != folder / NOTE
    }


def changed_file(folder: Path, known: dict[str, str]) -> str | None:
    """Describe the first changed, missing or added file of a package, or return None if there is none.

    Args:
        folder: Folder of the package.
        known: Result of `sha256_of` for the original package, or for some of its folders. Added files are detected in
            these folders only.
    """
    found = sha256_of(folder)
    for name, expected in known.items():
        if found.get(name) != expected:
            return f"{name} has SHA-256 {found.get(name, 'none: it is missing')}, expected {expected}"
    folders = {name.split("/")[0] for name in known}
    strange = [name for name in found if name not in known and name.split("/")[0] in folders]
    strange = [name for name in strange if not name.endswith(f"/{CHECKSUMS}")]
    return f"{strange[0]} was added (SHA-256 {found[strange[0]]})" if strange else None


def stripped(folder: Path, known: dict[str, str]) -> None:
    """Remove from a copy of a package all files that are not part of it, such as compiled code and links."""
    for path in sorted(folder.rglob("*"), reverse=True):
        listed = path.relative_to(folder).as_posix() in known
        if path.is_symlink() or (path.is_file() and not listed and path != folder / NOTE):
            path.unlink()


def _check_members(archive: zipfile.ZipFile) -> None:
    sizes = {member.filename: member.file_size for member in archive.infolist()}
    if set(sizes) != _MEMBERS or len(sizes) != len(archive.infolist()):
        raise UnsafeModel(f"a .keras file holds {', '.join(sorted(_MEMBERS))}, this one {', '.join(sorted(sizes))}")
    texts = sizes["config.json"] + sizes["metadata.json"]
    if texts > _MAX_TEXT or sizes["model.weights.h5"] > _MAX_WEIGHTS:
        raise UnsafeModel(f"it unpacks to {sum(sizes.values()) / 1e6:.0f} MB")


def _class_names(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (str(node[key]) for key in ("class_name", "registered_name") if node.get(key))
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _class_names(child)


def _check_links(group: h5py.Group) -> None:
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise UnsafeModel(f"its weights have a {type(link).__name__} at {group.name}/{name}, not numbers")
        item = group[name]
        if isinstance(item, h5py.Group):
            _check_links(item)
        elif not isinstance(item, h5py.Dataset):
            raise UnsafeModel(f"its weights have a {type(item).__name__} at {item.name}, not numbers")
        elif item.external or item.is_virtual:
            raise UnsafeModel(f"its weights at {item.name} are in another file")
