"""The same picture is recognised in another set, resized, mirrored and encoded anew."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from melanoma.auditing.across import copies_among
from melanoma.data.sources import class_folders
from melanoma.data.synthetic import write_synthetic
from melanoma.errors import DataError


def drawn(folder: Path, seed: int, images: int) -> Path:
    folder.mkdir()
    write_synthetic(folder, classes=["benign", "malignant"], images=images, size=96, seed=seed)
    return folder


def pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))


@pytest.fixture
def two_sets(tmp_path: Path) -> tuple[Path, Path, set[str], set[str]]:
    """A set, another with five of its images encoded anew and two as they are, and the paths of both in the first."""
    first, second = drawn(tmp_path / "first", 1, 40), drawn(tmp_path / "second", 2, 20)
    (second / "benign" / "more").mkdir()
    chosen = pictures(first)[::6]
    for number, path in enumerate(chosen[:5]):
        with Image.open(path) as image:
            smaller = ImageOps.mirror(image.convert("RGB")).resize((100, 100))
            smaller.save(second / "benign" / "more" / f"{number}.jpg", quality=85)
    for path in chosen[5:]:
        shutil.copy(path, second / "benign" / "more")
    names = [path.relative_to(first).as_posix() for path in chosen]
    return first, second, set(names[:5]), set(names[5:])


def test_copies_of_another_set_are_found_and_no_others(two_sets, audit):
    first, second, anew, same = two_sets
    own, others = audit(first).table, list(audit(second).table.sha256)
    for similarity, expected in ((0.75, anew | same), (None, same)):
        found, not_compared = copies_among(list(own.sha256), others, similarity=similarity)
        assert set(own.path[own.sha256.isin(found)]) == expected
        assert not_compared == 0


def test_what_no_audit_has_seen_is_compared_by_its_bytes(two_sets, audit, tmp_path, monkeypatch):
    first, second, _, same = two_sets
    own, theirs = audit(first).table, audit(second).table
    others = [*theirs.sha256, "0" * 64]
    found, not_compared = copies_among(list(own.sha256), others, similarity=0.75)
    assert not_compared == 1
    monkeypatch.setenv("MELANOMA_CACHE_DIR", str(tmp_path / "empty"))
    found, not_compared = copies_among(list(own.sha256), others, similarity=0.75)
    assert set(own.path[own.sha256.isin(found)]) == same
    assert not_compared == len({*own.sha256, *others})


def test_an_audit_finds_the_images_of_an_excluded_set(two_sets, audit):
    first, second, anew, same = two_sets
    found = audit(first, exclude=[str(second)])
    assert set(found.excluded.path) == anew | same
    assert found.counts()["excluded"] == 7
    assert set(found.report()["excluded"]) == anew | same
    assert set(audit(first, exclude=[str(second)], near_duplicates=False).excluded.path) == same
    assert audit(first).excluded.empty


def test_an_excluded_set_must_be_there_and_have_images(two_sets, audit, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"audit\.exclude does not exist"):
        audit(two_sets[0], exclude=[str(tmp_path / "gone")])
    with pytest.raises(DataError, match=r"audit\.exclude names a folder or an archive without images"):
        audit(two_sets[0], exclude=[str(tmp_path / "empty")])


def test_an_excluded_set_of_which_nothing_can_be_decoded_is_told(two_sets, audit, tmp_path, caplog):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no image")
    with caplog.at_level("WARNING", logger="melanoma"):
        assert audit(two_sets[0], exclude=[str(tmp_path / "broken")]).excluded.empty
    assert "1 images of audit.exclude cannot be decoded" in caplog.text


def test_relatives_of_an_excluded_image_go_with_it(two_sets, audit):
    source = class_folders(two_sets[0])
    lesions = [f"lesion {number // 2}" for number in range(len(source.table))]
    source = replace(source, table=source.table.assign(lesion=lesions))
    found = audit(source, exclude=[str(two_sets[1])])
    table = found.table
    own = set(table.lesion[table.path.isin(two_sets[2] | two_sets[3])])
    assert set(found.excluded.path) == set(table.path[table.lesion.isin(own)])
    assert len(found.excluded) > 7
