"""Folders and archives of class folders: what is found, under which label, in which part."""

import os
import socket
import unicodedata
import zipfile
from pathlib import Path

import pytest

from melanoma.config.schema import ArchiveConfig
from melanoma.data.cache import entries
from melanoma.data.sources import Source, class_folders, image_files, open_path, synthetic
from melanoma.errors import DataError


def opened(path: Path | str) -> Path:
    return open_path(str(path), ArchiveConfig(max_files=1000, max_gigabytes=0.1))


def listed(path: Path, classes: list[str] | int | None = None) -> Source:
    return class_folders(opened(path), classes=classes)


def zipped(folder: Path) -> Path:
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder))
    return archive


def triples(source: Source) -> set[tuple[str, str, str]]:
    return set(source.table[["path", "label", "part"]].itertuples(index=False, name=None))


LAYOUTS = {
    "flat": {"nevus": "", "melanoma": ""},
    "train and test": {f"{part}/{name}": part for part in ("train", "test") for name in ("nevus", "melanoma")},
    "letter case": {"TRAIN/nevus": "train", "TRAIN/melanoma": "train", "Test/nevus": "test", "Test/melanoma": "test"},
    "validation": {"train/nevus": "train", "train/melanoma": "train", "Validation/nevus": "validation"},
    "val": {"train/nevus": "train", "train/melanoma": "train", "val/melanoma": "validation"},
    "valid": {"Training/nevus": "train", "Training/melanoma": "train", "valid/nevus": "validation"},
    "wrapped flat": {"ISIC images/nevus": "", "ISIC images/melanoma": ""},
    "wrapped parts": {"set/Train/nevus": "train", "set/Train/melanoma": "train", "set/Test/nevus": "test"},
    "twice wrapped": {"a/b/nevus": "", "a/b/melanoma": ""},
    "folders in a class": {"nevus/clinic 1": "", "nevus/clinic 2": "", "melanoma": ""},
}


@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("folders", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_each_layout_gives_labels_and_delivered_parts(tmp_path, cache, write_folders, folders, as_zip):
    root = write_folders(tmp_path / "set", dict.fromkeys(folders, 2))
    source = listed(zipped(root) if as_zip else root)
    label = {folder: next(name for name in ("nevus", "melanoma") if name in folder) for folder in folders}
    assert triples(source) == {(f"{f}/{i:03d}.jpg", label[f], part) for f, part in folders.items() for i in range(2)}
    assert source.classes == ["melanoma", "nevus"]
    assert all((source.root / path).is_file() for path in source.table.path)


def test_spaces_and_unicode_in_names_are_kept(tmp_path, cache, write_folders):
    root = write_folders(tmp_path / "Bilder für Übung", {"basal cell carcinoma": 1, "黑色素瘤": 1})
    assert listed(root).classes == ["basal cell carcinoma", "黑色素瘤"]


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path, cache, write_folders):
    composed, decomposed = (unicodedata.normalize(form, "névus") for form in ("NFC", "NFD"))
    root = write_folders(tmp_path / "set", {f"train/{composed}": 1, "train/melanoma": 1, f"test/{decomposed}": 1})
    source = listed(root, classes=[decomposed, "melanoma"])
    assert source.classes == [composed, "melanoma"]
    assert list(source.table.label).count(composed) == 2


def test_images_are_told_by_suffix_in_any_case(tmp_path, cache, write_image):
    names = ["a.jpg", "b.JPG", "c.jpeg", "d.png", "e.PNG", "f.webp"]
    for i, name in enumerate(names):
        write_image(tmp_path / "set/x" / name, i)
    write_image(tmp_path / "set/y/a.jpg")
    (tmp_path / "set/x/notes.txt").write_text("not an image")
    found = listed(tmp_path / "set").table
    assert [Path(path).name for path in found.path[found.label == "x"]] == names


def test_folders_inside_class_folders_are_told(tmp_path, cache, write_image):
    for name in ("a/1.jpg", "b/2.jpg", "set/nevus/3.jpg", "set/melanoma/4.jpg"):
        write_image(tmp_path / "own" / name)
    source = class_folders(tmp_path / "own")
    assert source.classes == ["a", "b", "set"]
    assert source.notes == [
        "The class folder 'set' contains folders ('melanoma', 'nevus'), whose images count as this class; "
        "is data.path one level too high?"
    ]


def test_symbolic_links_are_not_followed(tmp_path, cache, write_folders):
    write_folders(tmp_path / "elsewhere", {"secret": 2})
    root = write_folders(tmp_path / "set", {"a": 1, "b": 1})
    (root / "linked class").symlink_to(tmp_path / "elsewhere/secret")
    (root / "a/linked folder").symlink_to(tmp_path / "elsewhere/secret")
    (root / "a/linked.jpg").symlink_to(tmp_path / "elsewhere/secret/000.jpg")
    assert triples(listed(root)) == {("a/000.jpg", "a", ""), ("b/000.jpg", "b", "")}


def test_pipes_and_sockets_are_skipped_with_a_line(tmp_path, cache, write_folders, caplog):
    root = write_folders(tmp_path / "set", {"a": 2, "b": 2})
    os.mkfifo(root / "a/pipe.jpg")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(root / "b/socket.png"))
        found = class_folders(root)
    assert len(found.table) == 4
    for name in ("pipe.jpg", "socket.png"):
        assert any(f"no regular file: '{root}" in line and name in line for line in caplog.messages)


def test_hidden_files_and_what_macos_adds_are_ignored(tmp_path, cache, write_folders):
    clutter = {"__MACOSX/a": 1, ".thumbnails/a": 1, "a/.cache": 1}
    root = write_folders(tmp_path / "set", {"a": 1, "b": 1, **clutter})
    (root / "a/._000.jpg").write_bytes(b"resource fork")
    assert triples(listed(root)) == {("a/000.jpg", "a", ""), ("b/000.jpg", "b", "")}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"a": 2, "b": 0}, r"No images for 'b'.*Received: .*set"),
        ({"": 3}, r"No classes found.*Received: .*set"),
        ({"Test/a": 1, "Test/b": 1}, r"no train folder.*Received: .*set with Test"),
        ({"val/a": 1, "test/b": 1}, r"no train folder.*Received: .*set with test, val"),
    ],
    ids=["class without images", "no class folders", "test alone", "no train"],
)
def test_unusable_folders_are_refused_and_named(tmp_path, cache, write_folders, folders, message):
    with pytest.raises(DataError, match=message):
        listed(write_folders(tmp_path / "set", folders))


def test_a_single_class_is_enough_to_evaluate_on(tmp_path, cache, write_folders):
    assert listed(write_folders(tmp_path / "set", {"a": 2})).classes == ["a"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere", None, "does not exist.*Received: .*nowhere"),
        ("set.tar", b"x", r"a folder or a \.zip.*Received: .*set\.tar"),
        ("set.zip", b"not a zip at all", r"not a readable \.zip.*Received: .*set\.zip"),
        ("set.ZIP", b"", r"not a readable \.zip.*Received: .*set\.ZIP"),
    ],
)
def test_unusable_paths_are_refused_and_named(tmp_path, cache, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        opened(tmp_path / name)


def refusal(path: Path) -> str:
    try:
        return f"opened {opened(path)}"
    except DataError as error:
        return str(error)


@pytest.mark.parametrize("name", ["folder", "set.zip", "folder/below"])
def test_a_path_that_may_not_be_read_is_named(public_path, unprivileged, monkeypatch, name):
    monkeypatch.setenv("MELANOMA_CACHE_DIR", str(public_path))
    (public_path / "folder/below").mkdir(parents=True)
    (public_path / "set.zip").touch()
    for locked in ("folder", "set.zip"):
        (public_path / locked).chmod(0)
    message = unprivileged(refusal, public_path / name)
    (public_path / "folder").chmod(0o755)  # so that it can be removed
    assert "cannot be read" in message
    assert message.endswith(str(public_path / name))


def test_a_list_of_classes_fixes_their_order(tmp_path, cache, write_folders):
    root = write_folders(tmp_path / "set", {"a": 1, "b": 1, "c": 1})
    assert listed(root, ["c", "a", "b"]).classes == ["c", "a", "b"]
    assert listed(root, 3).classes == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a", "nevus", "d"], "Missing: 'd', 'nevus'; not expected: 'b', 'c'"),
        (["a", "b"], "Missing: none; not expected: 'c'"),
        (4, "asks for 4 classes and the data has 3. Received: a, b, c"),
    ],
)
def test_other_classes_than_wanted_are_listed(tmp_path, cache, write_folders, classes, message):
    root = write_folders(tmp_path / "set", {"a": 1, "b": 1, "c": 1})
    with pytest.raises(DataError, match=message):
        listed(root, classes)


def test_synthetic_images_come_with_their_metadata(cache):
    source = synthetic(None, classes=["x", "y"], images=12, size=32, test_share=0.3)
    assert source.classes == ["x", "y"]
    assert set(source.table.part) == {"train", "test"}
    assert source.table[["lesion", "patient", "age", "sex", "site"]].notna().all(axis=None)
    assert source.root.is_relative_to(cache)


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        (Path("/data"), {"images": 12}, "draws its own images.*data.path=/data"),
        (None, {"images": 12, "leaks": 1}, "leaks=1"),
        (None, {"images": 12, "colour": "red"}, "colour"),
    ],
)
def test_synthetic_refuses_what_does_not_fit(cache, path, arguments, message):
    with pytest.raises(DataError, match=message):
        synthetic(path, **arguments)
    assert entries() == []


def test_a_file_whose_name_is_not_utf_8_is_passed_over_and_told(tmp_path, caplog):
    for name in ("a/1.jpg", "a/\udcff.jpg", "b/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with caplog.at_level("WARNING", "melanoma"):
        assert [file.name for file in image_files(tmp_path)] == ["1.jpg", "1.jpg"]
    assert "not UTF-8" in caplog.text
    assert "udcff.jpg" in caplog.text


def test_a_class_folder_whose_name_is_not_utf_8_is_refused(tmp_path):
    for name in ("a", "\udcff"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    with pytest.raises(DataError, match="must be UTF-8; rename it"):
        class_folders(tmp_path)
