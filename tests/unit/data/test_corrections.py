"""Reviewed labels are applied as they were decided on, and to the images that were looked at."""

from hashlib import sha256
from pathlib import Path

import pytest

from melanoma.data.corrections import with_corrections
from melanoma.data.sources import Source, class_folders
from melanoma.errors import DataError


@pytest.fixture
def source(tmp_path: Path, cache: Path, write_image) -> Source:
    for number, name in enumerate(["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg"]):
        write_image(tmp_path / "set" / name, number)
    return class_folders(tmp_path / "set")


def table(folder: Path, *lines: str, header: str = "path,decision") -> Path:
    file = folder / "corrections.csv"
    file.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return file


def test_labels_change_images_are_left_out_and_others_stay(source: Source, tmp_path: Path):
    found = with_corrections(source, table(tmp_path, "a/1.jpg,b", "b/4.jpg,exclude", "a/2.jpg,"))
    assert dict(zip(found.table.path, found.table.label, strict=True)) == {
        "a/1.jpg": "b",
        "a/2.jpg": "a",
        "b/3.jpg": "b",
    }
    assert found.notes == ["data.corrections changed the labels of 1 images and excluded 1"]
    assert dict(zip(source.table.path, source.table.label, strict=True))["a/1.jpg"] == "a"


def test_the_image_must_be_the_one_that_was_decided_on(source: Source, tmp_path: Path):
    header = "path,sha256,label,decision"
    digest = sha256((source.root / "a/1.jpg").read_bytes()).hexdigest()
    assert with_corrections(source, table(tmp_path, f"a/1.jpg,{digest},a,b", header=header)).table.label[0] == "b"
    with pytest.raises(DataError, match="its content has changed"):
        with_corrections(source, table(tmp_path, f"a/1.jpg,{digest[::-1]},a,b", header=header))


@pytest.mark.parametrize(
    ("lines", "header", "message"),
    [
        (["a/9.jpg,b"], "path,decision", "no image a/9.jpg"),
        (["a/1.jpg,c"], "path,decision", "c, where the classes are a, b"),
        (["a/1.jpg,b", "a/1.jpg,exclude"], "path,decision", "on an image twice"),
        (["a/1.jpg,b"], "path,label", "needs the columns path and decision"),
    ],
)
def test_what_cannot_be_applied_is_refused(source: Source, tmp_path: Path, lines: list[str], header: str, message: str):
    with pytest.raises(DataError, match=message):
        with_corrections(source, table(tmp_path, *lines, header=header))


def test_a_table_that_is_not_there(source: Source, tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read"):
        with_corrections(source, tmp_path / "none.csv")


def test_a_decision_applies_to_all_copies_of_the_picture(source: Source, tmp_path: Path):
    (source.root / "b/copy of 1.jpg").write_bytes((source.root / "a/1.jpg").read_bytes())
    source = class_folders(source.root)
    found = with_corrections(source, table(tmp_path, "a/1.jpg,a"))
    assert dict(zip(found.table.path, found.table.label, strict=True))["b/copy of 1.jpg"] == "a"
    assert len(with_corrections(source, table(tmp_path, "a/1.jpg,exclude")).table) == 3
    with pytest.raises(DataError, match="different decisions"):
        with_corrections(source, table(tmp_path, "a/1.jpg,a", "b/copy of 1.jpg,b"))
