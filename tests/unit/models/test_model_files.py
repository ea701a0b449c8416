"""Model files that were tampered with."""

import json
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from melanoma.models.model_files import CHECKSUMS, UnsafeModel, changed_file, load_keras_file, sha256_of, stripped


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def rewritten(file: Path, **changes) -> Path:
    """The same file with members changed; None takes one away."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, change in changes.items():
        member = {"config": "config.json", "weights": "model.weights.h5"}.get(name, name)
        members[member] = change(members.get(member, b""))
    target = file.with_name("changed.keras")
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target


def with_h5(change):
    def changed(content: bytes) -> bytes:
        file = Path("weights.h5")
        file.write_bytes(content)
        with h5py.File(file, "a") as opened:
            change(opened)
        return file.read_bytes()

    return changed


def test_a_model_of_keras_is_loaded(saved: Path):
    assert load_keras_file(saved).output_shape == (None, 2)


@pytest.mark.parametrize(
    "name", ["Lambda", "TFSMLayer", "keras.layers.TFSMLayer", "keras>Lambda", "TorchModuleWrapper", "__lambda__"]
)
@pytest.mark.parametrize("deep", [False, True], ids=["plain", "inside another layer"])
def test_layers_that_carry_code_are_refused_before_anything_is_built(saved: Path, name: str, deep: bool):
    def planted(content: bytes) -> bytes:
        config = json.loads(content)
        layer = {"module": "keras.layers", "class_name": name, "config": {"filepath": "/nowhere"}}
        config["config"]["layers"][1] = {"class_name": "TimeDistributed", "config": {"layer": layer}} if deep else layer
        return json.dumps(config).encode()

    with pytest.raises(UnsafeModel, match=name):
        load_keras_file(rewritten(saved, config=planted))


def test_weights_that_point_to_another_file_are_refused(saved: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def external(opened: h5py.File) -> None:
        opened["stolen"] = h5py.ExternalLink("/etc/passwd", "/")

    def virtual(opened: h5py.File) -> None:
        layout = h5py.VirtualLayout((2,), "f4")
        layout[:] = h5py.VirtualSource("/tmp/other.h5", "data", (2,))
        opened.create_virtual_dataset("stolen", layout)

    def stored_elsewhere(opened: h5py.File) -> None:
        opened.create_dataset("stolen", (2,), "f4", external=[("/etc/hostname", 0, 8)])

    def named_type(opened: h5py.File) -> None:
        opened["stolen"] = np.dtype("f4")

    changes = {
        external: "ExternalLink", virtual: "another file", stored_elsewhere: "another file",
        named_type: "a Datatype at",
    }  # fmt: skip
    for change, words in changes.items():
        with pytest.raises(UnsafeModel, match=words):
            load_keras_file(rewritten(saved, weights=with_h5(change)))


def test_other_members_are_refused(saved: Path):
    with pytest.raises(UnsafeModel, match=r"assets/evil\.py"):
        load_keras_file(rewritten(saved, **{"assets/evil.py": lambda _: b"import os"}))


def test_only_what_was_written_stays_in_a_copy(tmp_path: Path):
    code = tmp_path / "code"
    (code / "__pycache__").mkdir(parents=True)
    (code / "model.py").write_text("1")
    known = sha256_of(tmp_path)
    (code / "__pycache__/model.cpython-311.pyc").write_bytes(b"planted")
    (code / "numpy.py").write_text("planted")
    (tmp_path / "elsewhere").mkdir()
    (code / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "registered_model_meta").write_text("MLflow's note")
    (code / "registered_model_meta").write_text("planted")
    stripped(tmp_path, known)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if not path.is_dir()}
    assert left == {"code/model.py", "registered_model_meta"}
    assert changed_file(tmp_path, known) is None


@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
def test_what_unpacks_to_very_much_is_not_unpacked(saved: Path, name: str):
    with zipfile.ZipFile(saved.with_name("bomb.keras"), "w", zipfile.ZIP_DEFLATED) as bomb:
        for member in ("config.json", "metadata.json", "model.weights.h5"):
            bomb.writestr(member, b" " * (65 * 1024**2 if member == name else 1))
    with pytest.raises(UnsafeModel, match="it unpacks to 68 MB"):
        load_keras_file(saved.with_name("bomb.keras"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x89HDF\r\n"])
def test_other_files_are_no_models(tmp_path: Path, content: bytes):
    (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(ValueError, match="not a \\.keras file"):
        load_keras_file(tmp_path / "model.keras")


def test_a_changed_file_is_named_with_its_hash(tmp_path: Path):
    (tmp_path / "data").mkdir()
    for name, content in {"MLmodel": "a", "data/model.keras": "b", f"data/{CHECKSUMS}": "c"}.items():
        (tmp_path / name).write_text(content)
    known = sha256_of(tmp_path)
    assert changed_file(tmp_path, known) is None
    (tmp_path / "registered_model_meta").write_text("MLflow's note")
    assert changed_file(tmp_path, known) is None
    (tmp_path / "data/model.keras").write_text("B")
    found = sha256_of(tmp_path)["data/model.keras"]
    assert changed_file(tmp_path, known) == (
        f"data/model.keras has SHA-256 {found}, expected {known['data/model.keras']}"
    )
    (tmp_path / "data/model.keras").unlink()
    assert "it is missing" in str(changed_file(tmp_path, known))
    (tmp_path / "data/model.keras").write_text("b")
    (tmp_path / "data/sitecustomize.py").write_text("import os")
    assert str(changed_file(tmp_path, known)).startswith("data/sitecustomize.py was added (SHA-256 ")
