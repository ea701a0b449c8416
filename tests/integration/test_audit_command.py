"""`melanoma audit` as a user runs it, and what it finds in the real sets."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.commands import run_melanoma

PLANTED = (
    "data.source.images=120", "data.source.size=64", "data.source.test_share=0.2", "data.source.duplicates=6",
    "data.source.near_duplicates=5", "data.source.conflicts=4", "data.source.leaks=3", "data.source.unreadable=2",
)  # fmt: skip


def audit(output: Path, *arguments: str) -> dict:
    done = run_melanoma("audit", *arguments, f"audit.output={output}")
    assert done.returncode == 0, done.stderr
    return json.loads((output / "audit.json").read_text())


def test_the_report_of_planted_faults(tmp_path: Path):
    report = audit(tmp_path / "report", *PLANTED)
    assert report["images"] == 120 + 6 + 5 + 4 + 3 + 2
    sizes = {
        name: len(report[name]) for name in ("unreadable", "near_duplicate_groups", "label_conflicts", "split_leaks")
    }
    assert sizes == {"unreadable": 2, "near_duplicate_groups": 5, "label_conflicts": 4, "split_leaks": 3}
    assert len(report["exact_duplicate_groups"]) == 6 + 4 + 3
    assert set(report["classes"]) == {"benign", "malignant"}
    page = (tmp_path / "report" / "audit.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 2 * (6 + 5 + 4 + 3)


def test_the_exit_code_says_that_something_was_found(tmp_path: Path):
    done = run_melanoma("audit", *PLANTED, "audit.fail_on=split_leaks,label_conflicts", f"audit.output={tmp_path}")
    assert done.returncode == 3
    assert "label_conflicts: 4" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "audit.html").is_file()
    done = run_melanoma("audit", *PLANTED[:2], "audit.fail_on=any", f"audit.output={tmp_path}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audit.fail_on=leaks"], "audit.fail_on names findings"),
        (["audit.similarity=0.1"], "audit.similarity must be from 0.5 to 1"),
        (["audit.output=/proc/nowhere", "data.source.images=20"], "cannot be written"),
        (["data=folder", "data.path=/nowhere"], "does not exist"),
        (["audit.conflict=drop"], "Did you mean 'audit.conflicts'"),
    ],
)
def test_bad_input_is_one_message(arguments: list[str], message: str):
    done = run_melanoma("audit", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def isic9_audit(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    output = tmp_path_factory.mktemp("isic9")
    table = f"data.metadata.path={real_data / 'HAM10000_metadata.csv'}"
    return audit(output, "data=isic9", f"data.path={real_data / 'isic9.zip'}", table)


@pytest.mark.real
def test_isic9_is_damaged_as_it_is_known_to_be(isic9_audit: dict, real_data: Path):
    """Counted apart from the project's own code: equal bytes by name, metadata by join."""
    with zipfile.ZipFile(real_data / "isic9.zip") as archive:
        infos = [info for info in archive.infolist() if info.filename.lower().endswith(".jpg")]
        files = pd.DataFrame([(i.filename, i.CRC, i.file_size) for i in infos], columns=["path", "crc", "size"])
    files["part"], files["label"], files["stem"] = zip(
        *((p.split("/")[-3], p.split("/")[-2], Path(p).stem) for p in files.path), strict=True
    )
    equal = files.groupby(["crc", "size"])
    assert isic9_audit["images"] == len(files) == 2359
    assert len(isic9_audit["exact_duplicate_groups"]) == int((equal.path.size() > 1).sum()) == 159
    conflicting = {frozenset(rows.path) for _, rows in equal if rows.label.nunique() > 1}
    leaking = {frozenset(rows.path) for _, rows in equal if rows.part.nunique() > 1}
    assert all(any(group <= set(found) for found in isic9_audit["label_conflicts"]) for group in conflicting)
    assert all(any(group <= set(found) for found in isic9_audit["split_leaks"]) for group in leaking)
    lesions = files.merge(pd.read_csv(real_data / "HAM10000_metadata.csv"), left_on="stem", right_on="image_id")
    leaking_lesions = int((lesions.groupby("lesion_id").part.nunique() > 1).sum())
    assert len(isic9_audit["group_leaks"]) == leaking_lesions == 38
    filed_wrongly = lesions[(lesions.dx == "akiec") & (lesions.label == "nevus")]
    assert set(filed_wrongly.path) == set(isic9_audit["metadata_disagreements"])


@pytest.mark.real
def test_isic9_is_found_damaged_again_after_every_image_is_encoded_anew(
    isic9_audit: dict, real_data: Path, tmp_path: Path
):
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(real_data / "isic9.zip") as archive:
        archive.extractall(tmp_path / "old")
    new_name = {}
    for number, file in enumerate(sorted((tmp_path / "old").rglob("*.jpg"))):
        folder = tmp_path / "new" / file.parent.parent.name / file.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"image_{rng.integers(10**9)}_{number}.jpg"
        with Image.open(file) as image:
            image.convert("RGB").save(target, quality=int(rng.integers(70, 96)))
        new_name[os.fspath(file.relative_to(tmp_path / "old"))] = os.fspath(target.relative_to(tmp_path / "new"))
    again = audit(tmp_path / "report", "data=isic9", f"data.path={tmp_path / 'new'}")
    for finding in ("label_conflicts", "split_leaks"):
        expected = {frozenset(new_name[path] for path in group) for group in isic9_audit[finding]}
        assert {frozenset(group) for group in again[finding]} == expected
