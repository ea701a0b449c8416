"""The report's two files: one that programs read, one that people look at."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from melanoma.auditing import report
from melanoma.auditing.names import FINDINGS
from melanoma.auditing.report import headlines, write_report
from melanoma.data.sources import synthetic
from melanoma.errors import DataError

FAULTS = {"duplicates": 3, "near_duplicates": 5, "conflicts": 3, "leaks": 3, "unreadable": 2}
GROUPS = ["exact_duplicate_groups", "near_duplicate_groups", "label_conflicts", "split_leaks", "group_leaks"]


@pytest.fixture
def faulty(audit):
    return audit(synthetic(None, images=80, size=96, test_share=0.3, **FAULTS))


def test_the_report_for_programs_names_every_finding_and_file(tmp_path, faulty):
    page = write_report(faulty, "mine", tmp_path / "new/report")
    assert page == tmp_path / "new/report/audit.html"
    found = json.loads((tmp_path / "new/report/audit.json").read_text(encoding="utf-8"))
    assert {"images", "classes", "counts", "files", *FINDINGS} <= set(found)
    names = {path.relative_to(faulty.root).as_posix() for path in faulty.root.rglob("lesion_*")}
    for finding in GROUPS:
        assert found["counts"][finding] == len(found[finding]) > 0
        assert {name for group in found[finding] for name in group} <= names & set(found["files"])
    for finding in ("unreadable", "odd", "metadata_disagreements"):
        assert found["counts"][finding] == len(found[finding])
        assert set(found[finding]) <= names & set(found["files"])
    assert (found["images"], sum(found["classes"].values())) == (96, 94)
    assert {found["files"][name]["reason"] for name in found["unreadable"]} >= {"empty file"}
    assert set(found["parts"]) == {"train", "test"}
    first = found["label_conflicts"][0]
    assert len({found["files"][name]["label"] for name in first}) == 2


def test_the_report_for_people_shows_pictures(tmp_path, faulty):
    text = write_report(faulty, "mine", tmp_path).read_text(encoding="utf-8")
    assert 'src="data:image/jpeg;base64,' in text
    assert "Audit of mine" in text
    for line in headlines(faulty):
        assert line.replace("'", "&#39;") in text
    assert "<h1>Audit of &lt;b&gt;" in write_report(faulty, "<b>", tmp_path).read_text(encoding="utf-8")


def test_names_are_text_in_the_page_and_never_markup(tmp_path, audit):
    hostile = '<script>alert("1")<&script>'
    for i in range(6):
        pixels = np.random.default_rng(i // 2).integers(0, 256, (80, 80, 3), dtype=np.uint8)
        folder = tmp_path / "set" / (hostile if i % 2 else "a")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"<img src=x onerror=alert({i})>.png")
    (tmp_path / "set/a/<b>.jpg").touch()
    found = audit(tmp_path / "set", near_duplicates=False)
    assert len(found.groups["label_conflicts"]) == 3
    text = write_report(found, "<i>mine</i>", tmp_path).read_text(encoding="utf-8")
    for markup in ("<script>alert", "<img src=x", "<b>.jpg", "<i>mine"):
        assert markup not in text
    assert text.count("<script") == 1  # that of the page
    assert "&lt;script&gt;alert(&#34;1&#34;)" in text


def test_all_conflicts_have_pictures_and_all_other_clusters_are_listed(tmp_path, audit, monkeypatch):
    monkeypatch.setattr(report, "_PICTURED", 2)
    for i in range(10):
        pixels = np.random.default_rng(i // 2).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        folder = tmp_path / "set" / ("b" if i % 2 and i < 4 else "a")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "set/b/other.png").write_bytes((tmp_path / "set/a/0.png").read_bytes())
    found = audit(tmp_path / "set", near_duplicates=False)
    assert (len(found.groups["label_conflicts"]), len(found.groups["exact_duplicate_groups"])) == (2, 5)
    text = write_report(found, "mine", tmp_path).read_text(encoding="utf-8")
    _, conflicts, copies = re.split(r"<summary>[\w ]+\(", text)
    assert conflicts.count("<img") == 5
    assert (copies.count('<div class="cluster '), copies.count("<img")) == (5, 5)


def test_headlines_tell_leaks_conflicts_and_copies(faulty):
    lines = headlines(faulty)
    tests = int((faulty.table.part == "test").sum())
    assert lines[0] == f"3 of the {tests} test images are also in training."
    assert any(line.startswith("6 images ") and "in 3 clusters" in line for line in lines)
    assert any(line.startswith("14 of the 94 images are copies of others") for line in lines)


def test_there_are_no_headlines_for_a_sound_set(audit, tmp_path):
    sound = audit(synthetic(None, images=40, size=96, test_share=0.3))
    assert headlines(sound) == []
    text = write_report(sound, "sound", tmp_path).read_text(encoding="utf-8")
    assert "No copies, contradicting labels or leaks were found." in text


def test_pictures_that_are_gone_are_left_out(tmp_path, audit):
    source = synthetic(None, images=40, size=64, duplicates=2)
    found = audit(source)
    for path in source.table.path:
        (source.root / path).unlink()
    assert "data:image" not in write_report(found, "gone", tmp_path).read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_is_named(tmp_path, faulty):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written.*Received: audit\.output=.*file/report"):
        write_report(faulty, "mine", tmp_path / "file/report")
