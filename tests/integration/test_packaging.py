"""What is installed is what was locked, and a wheel holds the configs."""

import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lock():
    spec = importlib.util.spec_from_file_location("lock", ROOT / "tools" / "lock.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_conda_yaml_agrees_with_the_lock_file(lock):
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())
    pip = conda["dependencies"][-1]["pip"]
    assert pip == lock.pins(ROOT / "requirements" / "runtime.txt")
    assert (ROOT / "conda.yaml").read_text() == lock.conda_text()


def test_every_dependency_is_locked_with_a_hash(lock):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    for name in ("runtime.txt", "dev.txt", "gpu.txt"):
        text = (ROOT / "requirements" / name).read_text()
        pins = lock.pins(ROOT / "requirements" / name)
        entries = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
        assert len(entries) == len(pins) > 100
        assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
        assert wanted <= {canonicalize_name(Requirement(pin).name) for pin in pins}
        assert "://" not in text


def test_lock_files_agree_with_each_other(lock):
    # The conditions of a package may differ, as other packages need it elsewhere too.
    runtime, dev, gpu = (
        {pin.partition(";")[0].strip() for pin in lock.pins(ROOT / "requirements" / name)}
        for name in ("runtime.txt", "dev.txt", "gpu.txt")
    )
    assert runtime - dev == set()
    assert runtime - gpu == set()


def test_a_wheel_holds_configs_and_experiments(tmp_path: Path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "melanoma/conf/train.yaml",
        "melanoma/conf/model/m3.yaml",
        "melanoma/conf/experiment/README.md",
        "melanoma/py.typed",
    } <= names
    assert not any(name.startswith("tests/") for name in names)
