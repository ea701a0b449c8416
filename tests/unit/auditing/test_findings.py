"""What is planted in a drawn data set is found: all of it, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from melanoma.data.sources import class_folders, synthetic
from melanoma.data.synthetic import class_names, write_synthetic

FAULTS = {"duplicates": 6, "near_duplicates": 10, "conflicts": 5, "leaks": 5, "unreadable": 4}


def planted(folder: Path, seed: int, classes: int = 2) -> tuple[Path, dict]:
    folder.mkdir()
    write_synthetic(
        folder, classes=class_names(classes), images=110, size=128, seed=seed, test_share=0.3, imbalance=2, **FAULTS
    )
    return folder, json.loads((folder / "truth.json").read_text())


def as_sets(groups: list[list[str]]) -> set[frozenset[str]]:
    assert len({frozenset(group) for group in groups}) == len(groups)
    return {frozenset(group) for group in groups}


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_all_that_was_planted_is_found_and_nothing_else(tmp_path, audit, seed):
    folder, truth = planted(tmp_path / "set", seed)
    found = audit(folder)
    copies = truth["exact_duplicates"] + truth["label_conflicts"] + truth["split_leaks"]
    assert as_sets(found.groups["exact_duplicate_groups"]) == as_sets(copies)
    assert as_sets(found.groups["label_conflicts"]) == as_sets(truth["label_conflicts"])
    assert as_sets(found.groups["split_leaks"]) == as_sets(truth["split_leaks"])
    near = [entry["images"] for entry in truth["near_duplicates"]]
    assert as_sets(found.groups["near_duplicate_groups"]) == as_sets(near)
    assert set(found.unreadable.path) == {entry["image"] for entry in truth["unreadable"]}
    assert found.images == 110 + sum(FAULTS.values())
    assert len(found.table) + len(found.unreadable) == found.images
    assert set(found.leaked("test").path) == {pair[0] for pair in truth["split_leaks"]}


def test_conflicts_and_leaks_are_found_in_files_encoded_anew(tmp_path, audit):
    folder, truth = planted(tmp_path / "set", 1)
    unreadable = {entry["image"] for entry in truth["unreadable"]}
    names = {}
    for i, path in enumerate(sorted([*folder.rglob("*.jpg"), *folder.rglob("*.png")])):
        old = path.relative_to(folder).as_posix()
        if old not in unreadable:
            names[old] = f"{Path(old).parent.as_posix()}/other_{i:04d}.jpg"
            target = tmp_path / "again" / names[old]
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as image:
                image.save(target, quality=80 + i % 16)
    found = audit(tmp_path / "again")
    for finding in ("label_conflicts", "split_leaks"):
        assert as_sets(found.groups[finding]) == as_sets([[names[old] for old in pair] for pair in truth[finding]])
    assert found.unreadable.empty


def test_the_same_set_gives_the_same_report(tmp_path, audit):
    folder, _ = planted(tmp_path / "set", 2)
    assert audit(folder).report() == audit(folder).report()


def test_lesions_and_patients_in_two_parts_are_found(audit):
    source = synthetic(None, images=60, size=64, test_share=0.3, leaks=2)
    truth = json.loads((source.root / "truth.json").read_text())
    groups = audit(source).groups["group_leaks"]
    for pair in truth["split_leaks"]:
        assert sum(set(pair) <= set(group) for group in groups) == 2  # of the same lesion, and of the same patient
    sound = synthetic(None, images=60, size=64, test_share=0.3)
    assert audit(sound).groups["group_leaks"] == []
    train, test = (sound.table.index[sound.table.part == part] for part in ("train", "test"))
    lesions = sound.table.lesion.copy()
    lesions[[train[0], test[0], test[1]]] = "shared"
    lesions[[train[1], test[2]]] = np.nan
    [group] = audit(replace(sound, table=sound.table.assign(lesion=lesions))).groups["group_leaks"]
    assert group == sorted(sound.table.path[[train[0], test[0], test[1]]])


def test_labels_that_the_metadata_contradicts_are_found(audit):
    source = synthetic(None, images=30, size=96)
    says = source.table.label.map(lambda label: (label,))
    says[0], says[1], says[2] = (), ("benign", "malignant"), ("melanoma",)
    says[29] = ("benign",)
    found = audit(replace(source, table=source.table.assign(metadata_label=says)))
    assert list(found.disagreements.path) == list(source.table.path[[2, 29]])
    assert found.counts()["metadata_disagreements"] == 2
    assert found.report()["files"][source.table.path[2]]["metadata_label"] == "melanoma"


def test_nothing_is_found_in_a_sound_set(audit):
    counts = audit(synthetic(None, images=40, size=96, test_share=0.3)).counts()
    assert counts.pop("images") == 40
    assert set(counts.values()) == {0}


def test_near_duplicates_are_not_looked_for_unless_asked(tmp_path, audit):
    folder, truth = planted(tmp_path / "set", 0)
    found = audit(folder, near_duplicates=False)
    assert found.groups["near_duplicate_groups"] == []
    assert len(found.groups["label_conflicts"]) == len(truth["label_conflicts"])


def test_odd_files_are_listed_with_all_their_reasons(tmp_path, audit):
    folder = tmp_path / "set"
    for i in range(12):
        noise = np.random.default_rng(i).integers(0, 256, (100, 110, 3), dtype=np.uint8)
        (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(folder / "ab"[i % 2] / f"{i:02d}.png")
    noise = np.random.default_rng(99).integers(0, 256, (2000, 2000), dtype=np.uint8)
    pale = Image.fromarray((noise[:100, :100] // 5 + 200).astype(np.uint8)).convert("RGB")
    odd = {
        "blank.png": (Image.new("RGB", (100, 100), (128, 128, 128)), {}, "is blank"),
        "bright.png": (pale, {}, "is very bright"),
        "dark.png": (Image.fromarray(noise[:100, :100] // 5).convert("RGB"), {}, "is very dark"),
        "grey.png": (Image.fromarray(noise[:100, :100]), {}, "is grey"),
        "cmyk.jpg": (Image.fromarray(noise[:100, 100:200]).convert("CMYK"), {}, "is stored as CMYK"),
        "long.png": (Image.fromarray(noise[:40, :110]).convert("RGB"), {}, "is long (110x40)"),
        "small.png": (Image.fromarray(noise[:31, :40]).convert("RGB"), {}, "is small (40x31)"),
        "large.png": (Image.fromarray(noise).convert("RGB"), {}, "is of another size than most (2000x2000)"),
        "other.jpg": (Image.fromarray(noise[200:300, :100]).convert("RGB"), {"format": "PNG"}, "is a PNG by content"),
    }
    for name, (image, save, _) in odd.items():
        image.save(folder / "a" / name, **save)
    listed = audit(class_folders(folder), near_duplicates=False).odd
    found = dict(zip(listed.path, listed.reason, strict=True))
    assert found == {f"a/{name}": reason for name, (_, _, reason) in odd.items()}
