"""From a source to a data set that is ready to train on."""

import logging
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from melanoma.config.schema import ArchiveConfig, BalanceConfig, DataConfig, SplitConfig
from melanoma.data.dataset import (
    Dataset,
    add_augmented,
    load_images,
    open_source,
    with_groups,
    with_split,
    without_rows,
)
from melanoma.data.decode import decode
from melanoma.data.sources import Source, class_folders
from melanoma.data.split import REMOVED, split_parts
from melanoma.data.split_file import read_split
from melanoma.data.tables import metadata_table
from melanoma.errors import DataError

SIZE = 16
COLUMNS = {"path", "label", "part", "parent", "sha256", "target", "row"}


@pytest.fixture
def root(tmp_path, write_folders) -> Path:
    return write_folders(tmp_path / "set", {"a": 12, "b": 8})


@pytest.fixture
def open_set(root, cache):
    def call(source=class_folders, path=root, classes=None) -> Source:
        archive = ArchiveConfig(max_files=1000, max_gigabytes=0.1)
        return open_source(source, DataConfig(path=path and str(path), classes=classes, archive=archive))

    return call


@pytest.fixture
def load(open_set):
    """`load()` opens and decodes the images; arguments override the usual settings."""

    def call(source: Source | None = None, least: int = 3, **arguments) -> Dataset:
        usual = {"name": "set", "image_size": SIZE, "resize": "stretch", "max_megapixels": 1, "max_quarantined": 0.1}
        return load_images(source or open_set(), DataConfig(**usual | arguments), least)

    return call


def grouped(dataset: Dataset, clusters: dict[str, int] | None = None) -> Dataset:
    return with_groups(dataset, pd.Series(clusters or {}, dtype=object), ["cluster"])


def drawn(dataset: Dataset, seed: int = 0) -> Dataset:
    dataset = grouped(dataset)
    return with_split(dataset, split_parts(dataset.table, SplitConfig(method="auto", validation=0.2, test=0.2), seed))


def augmented(dataset: Dataset, images_per_class: int = 4, seed: int = 0) -> Dataset:
    operations = {"rotate": {"probability": 1, "max_left_rotation": 20, "max_right_rotation": 20}}
    settings = BalanceConfig(name="augmentor", images_per_class=images_per_class, operations=operations)
    return add_augmented(dataset, settings, resize="stretch", seed=seed)


def test_every_readable_image_has_a_row_with_what_is_known(load, root):
    dataset = load()
    table = dataset.table
    assert set(table) == COLUMNS
    assert sorted(table.path) == sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))
    assert table.notna().all(axis=None)
    assert set(table.parent) == {""}
    assert (table.target == table.label.map({"a": 0, "b": 1})).all()
    assert (dataset.classes, dataset.name, dataset.root) == (["a", "b"], "set", root)
    assert dataset.quarantined.empty


def test_targets_follow_the_order_of_classes(load, open_set):
    table = load(open_set(classes=["b", "a"])).table
    assert (table.target == table.label.map({"b": 0, "a": 1})).all()


def test_pixels_are_those_of_the_rows(load, root):
    dataset = load(resize="crop")
    rows = dataset.table.iloc[[7, 0, 19, 7]]
    expected = np.stack([decode(root / path, size=SIZE, resize="crop") for path in rows.path])
    np.testing.assert_array_equal(dataset.pixels(rows), expected)


def test_metadata_columns_are_kept(load, open_set, tmp_path, write_image):
    for i in range(8):
        write_image(tmp_path / f"table/{i}.jpg", i)
    (tmp_path / "table/t.csv").write_text("image,label,years\n" + "".join(f"{i},{'ab'[i % 2]},{i}\n" for i in range(8)))
    source = partial(metadata_table, table="t.csv", image_column="image", age_column="years")
    table = load(open_set(source, path=tmp_path / "table")).table
    assert set(table) == COLUMNS | {"age"}
    assert dict(zip(table.path, table.age, strict=True)) == {f"{i}.jpg": i for i in range(8)}


def test_copies_share_a_row_of_pixels(load, root):
    shutil.copy(root / "a/000.jpg", root / "b/copy.jpg")
    dataset = load()
    rows = dataset.table.set_index("path").row
    assert rows["a/000.jpg"] == rows["b/copy.jpg"]
    assert (len(dataset.table), len(dataset.store)) == (21, 20)


def test_unreadable_images_are_put_aside_with_their_reasons(load, root, caplog):
    (root / "a/empty.jpg").touch()
    (root / "b/text.png").write_text("text")
    with caplog.at_level(logging.WARNING, "melanoma"):
        dataset = load()
    expected = [("a/empty.jpg", "a", "empty file"), ("b/text.png", "b", "not an image")]
    assert list(dataset.quarantined.itertuples(index=False, name=None)) == expected
    assert list(dataset.quarantined) == ["path", "label", "reason"]
    assert len(dataset.table) == 20
    assert [record.getMessage() for record in caplog.records] == [
        "Quarantined a/empty.jpg: empty file",
        "Quarantined b/text.png: not an image",
    ]


def test_an_unreadable_image_does_not_change_the_fingerprint(load, root):
    before = load().fingerprint
    (root / "a/empty.jpg").touch()
    assert load().fingerprint == before
    (root / "a/000.jpg").unlink()
    assert load().fingerprint != before


def test_images_over_the_limit_of_pixels_are_put_aside(load, root, write_image):
    write_image(root / "a/large.png", width=50, height=41)
    dataset = load(max_megapixels=0.002)
    assert list(dataset.quarantined.reason) == ["more pixels than allowed (50x41)"]


@pytest.mark.parametrize(("allowed", "stops"), [(0.2, False), (0.19, True), (0, True)])
def test_too_large_a_share_of_unreadable_images_stops(load, root, allowed, stops):
    for i in range(5):  # of 25: a fifth
        (root / f"a/bad {i}.jpg").touch()
    if stops:
        with pytest.raises(DataError, match=rf"5 of 25 images.*max_quarantined={allowed}.*a/bad 0\.jpg: empty file"):
            load(max_quarantined=allowed)
    else:
        assert len(load(max_quarantined=allowed).quarantined) == 5


def test_a_class_left_with_too_few_images_is_named(load, root):
    for i in range(5):
        (root / f"b/00{i}.jpg").write_bytes(b"damaged")
    assert load(max_quarantined=0.5, least=3).table.label.value_counts()["b"] == 3
    with pytest.raises(DataError, match=r"at least 4 readable images.*Received: 'b': 3 in .*set"):
        load(max_quarantined=0.5, least=4)


def test_nothing_readable_names_every_class(load, root):
    for path in root.rglob("*.jpg"):
        path.write_bytes(b"damaged")
    with pytest.raises(DataError, match="Received: 'a': 0, 'b': 0"):
        load(max_quarantined=1)


def quarantined_reasons(root: Path) -> dict[str, str]:
    settings = DataConfig(
        name="", path=str(root), image_size=8, resize="stretch", max_megapixels=1, max_quarantined=1,
        archive=ArchiveConfig(max_files=99, max_gigabytes=1),
    )  # fmt: skip
    dataset = load_images(open_source(class_folders, settings), settings, least=0)
    return dict(zip(dataset.quarantined.path, dataset.quarantined.reason, strict=True))


def test_a_file_without_permission_is_put_aside_until_it_has_it(public_path, write_folders, unprivileged, monkeypatch):
    root = write_folders(public_path / "set", {"a": 3, "b": 3})
    cache = public_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    monkeypatch.setenv("MELANOMA_CACHE_DIR", str(cache))
    assert unprivileged(quarantined_reasons, root) == {}
    shutil.rmtree(cache / "decoded")
    (root / "a/001.jpg").chmod(0)
    assert unprivileged(quarantined_reasons, root) == {"a/001.jpg": "no permission to read it, or deleted"}
    (root / "a/001.jpg").chmod(0o644)
    assert unprivileged(quarantined_reasons, root) == {}


def test_a_second_load_reads_and_decodes_nothing(load, root):
    first = load()
    for path in root.rglob("*.jpg"):
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = load()
    pd.testing.assert_frame_equal(again.table, first.table)
    np.testing.assert_array_equal(again.pixels(again.table), first.pixels(first.table))


def test_copies_share_a_cluster_and_other_images_are_their_own(load):
    table = grouped(load(), {"a/000.jpg": 7, "b/001.jpg": 7, "a/002.jpg": 8, "elsewhere.jpg": 8}).table.set_index(
        "path"
    )
    assert table.cluster["a/000.jpg"] == table.cluster["b/001.jpg"] == 7
    assert table.cluster.value_counts().to_dict()[7] == 2
    assert table.cluster.nunique() == table.group.nunique() == len(table) - 1
    assert table.group["a/000.jpg"] == table.group["b/001.jpg"]


def test_groups_follow_the_columns_that_are_asked_for(load):
    dataset = load()
    lesions = ["l0", "l0", "l1", None, np.nan, *[f"x{i}" for i in range(15)]]
    dataset = replace(dataset, table=dataset.table.assign(lesion=lesions))
    clusters = pd.Series({dataset.table.path[1]: 0, dataset.table.path[2]: 0}, dtype=object)
    groups = {c: with_groups(dataset, clusters, list(c)).table.group for c in [(), ("cluster",), ("cluster", "lesion")]}
    assert [group.nunique() for group in groups.values()] == [20, 19, 18]
    assert groups["cluster", "lesion"][:3].nunique() == 1


def test_rows_taken_out_are_listed_with_their_reasons(load):
    dataset = load()
    reasons = pd.Series("", index=dataset.table.index)
    reasons[[3, 0]] = ["label conflict", "duplicate"]
    once = without_rows(dataset, reasons)
    twice = without_rows(once, once.table.path.eq("b/007.jpg").map({True: "for a test", False: ""}))
    assert list(twice.removed.reason) == ["duplicate", "label conflict", "for a test"]
    assert list(twice.removed.path) == ["a/000.jpg", "a/003.jpg", "b/007.jpg"]
    assert list(twice.removed) == ["path", "label", "sha256", "reason"]
    assert list(twice.table.index) == list(range(17))
    assert not set(twice.table.path) & set(twice.removed.path)
    assert (dataset.removed.empty, len(dataset.table)) == (True, 20)


def test_nothing_taken_out_changes_nothing(load):
    dataset = load()
    same = without_rows(dataset, pd.Series("", index=dataset.table.index))
    pd.testing.assert_frame_equal(same.table, dataset.table)
    assert same.removed.empty


def test_parts_are_drawn_and_told_apart(load):
    dataset = drawn(load())
    sizes = {part: len(dataset.part(part)) for part in ("train", "validation", "test")}
    assert sizes == {"train": 12, "validation": 4, "test": 4}
    assert drawn(load(), seed=0).split_hash == dataset.split_hash
    assert drawn(load(), seed=1).split_hash != dataset.split_hash


def test_what_a_split_removes_is_listed(load):
    dataset = grouped(load())
    parts = pd.Series([REMOVED, *["train"] * 10, "validation", *["test"] * 8], index=dataset.table.index)
    dataset = with_split(dataset, parts)
    assert (list(dataset.removed.path), len(dataset.table)) == (["a/000.jpg"], 19)
    assert list(dataset.removed.reason) == ["related to a held-out image"]
    assert dataset.table.part.value_counts().to_dict() == {"train": 10, "test": 8, "validation": 1}


def test_parts_that_tear_a_group_apart_are_refused(load):
    dataset = grouped(load(), {"a/000.jpg": 0, "b/000.jpg": 0})
    parts = dataset.table.label.map({"a": "train", "b": "test"})
    with pytest.raises(DataError, match=r"in one part.*a/000\.jpg \(train\) and b/000\.jpg \(test\)"):
        with_split(dataset, parts)


def test_a_split_file_is_followed(load, tmp_path):
    first = drawn(load(), seed=8)
    first.table[["path", "part"]].to_csv(tmp_path / "split.csv", index=False)
    again = grouped(load())
    again = with_split(again, read_split(str(tmp_path / "split.csv"), again.table))
    assert list(again.table.part) == list(first.table.part)
    assert again.split_hash == first.split_hash


def test_augmented_images_are_training_rows_beyond_the_original_store(load):
    before = drawn(load())
    dataset = augmented(before, images_per_class=4)
    made = dataset.table[dataset.table.parent != ""]
    assert made.label.value_counts().to_dict() == {"a": 4, "b": 4}
    assert set(made.part) == {"train"}
    assert set(made.parent) <= set(before.part("train").path)
    assert made.path.str.startswith("augmentor/").all()
    assert (made.target == made.label.map({"a": 0, "b": 1})).all()
    assert made.row.min() >= len(before.store)
    assert made.sha256.notna().all()
    parents = before.table.set_index("path")
    assert list(made.group) == list(parents.group[made.parent])
    assert list(made.cluster) == list(parents.cluster[made.parent])
    assert dataset.table.path.is_unique
    pd.testing.assert_frame_equal(dataset.table[dataset.table.parent == ""], before.table)


def test_pixels_of_originals_and_of_augmented_images_are_their_own(load, cache):
    before = drawn(load())
    dataset = augmented(before)
    [folder] = (cache / "augmentor").glob("[!.]*")
    originals, made = (dataset.table[(dataset.table.parent == "") == is_original] for is_original in (True, False))
    np.testing.assert_array_equal(dataset.pixels(originals), before.pixels(before.table))
    expected = [decode(folder / path.removeprefix("augmentor/"), size=SIZE) for path in made.path]
    np.testing.assert_array_equal(dataset.pixels(made), np.stack(expected))


def test_augmentation_changes_neither_the_fingerprint_nor_the_split(load):
    before = drawn(load())
    dataset = augmented(before)
    assert (dataset.fingerprint, dataset.split_hash) == (before.fingerprint, before.split_hash)


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    status = {path: path.lstat() for path in [folder, *folder.rglob("*")]}
    return {str(path): (s.st_mtime_ns, s.st_ctime_ns, s.st_size) for path, s in status.items()}


def test_the_users_folder_is_never_changed(load, root):
    (root / "a/bad.jpg").touch()
    before = listing(root)
    augmented(drawn(load()))
    assert listing(root) == before
