"""The stages before the network: cleaned, divided and balanced as the configuration asks."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from melanoma.config.diagnose import compose_config
from melanoma.config.schema import TrainConfig
from melanoma.data.dataset import Dataset, load_images
from melanoma.errors import DataError
from melanoma.workflows.checks import train_faults
from melanoma.workflows.stages import clean_images, prepare_once, read_source, split_images
from tests.unit.conftest import SMALL, configured

FAULTY = ["data.source.duplicates=5", "data.source.conflicts=5", "data.source.near_duplicates=5"]
DELIVERED = ["data.source.test_share=0.3", "data.source.leaks=5"]
AUGMENTOR = ["balance=augmentor", "balance.images_per_class=40"]


def stages(*overrides: str) -> tuple[TrainConfig, Dataset, Dataset]:
    """The settings, and the data set after cleaning and after the split."""
    settings = configured(*SMALL, *overrides)
    source = read_source(settings.data)
    _, dataset = clean_images(settings, source)
    return settings, dataset, split_images(settings, dataset)


def ready(*overrides: str) -> Dataset:
    settings = configured(*SMALL, *overrides)
    return prepare_once(settings, read_source(settings.data))[1]


@pytest.mark.parametrize("delivered", [[], DELIVERED], ids=["flat", "train and test"])
@pytest.mark.parametrize("conflicts", ["drop", "first"])
def test_no_cluster_keeps_two_labels_or_stands_in_two_parts(delivered, conflicts):
    _, dataset, divided = stages(*FAULTY, *delivered, f"audit.conflicts={conflicts}")
    assert dataset.table.groupby("cluster").label.nunique().max() == 1
    assert set(dataset.removed.reason) == {"label conflict", "duplicate"}
    for column in ("cluster", "group", "lesion", "patient"):
        assert divided.table.groupby(column).part.nunique().max() == 1
    assert set(divided.table.part) == {"train", "validation", "test"}
    assert len(divided.table) + len(divided.removed) == len(decoded_rows(*FAULTY, *delivered))


def decoded_rows(*overrides: str) -> pd.DataFrame:
    settings = configured(*SMALL, *overrides)
    return load_images(read_source(settings.data), settings.data).table


def test_a_delivered_test_set_is_kept_and_its_copies_leave_training():
    _, dataset, divided = stages(*DELIVERED)
    assert dataset.removed.empty
    assert set(divided.removed.reason) == {"related to a held-out image"}
    assert len(divided.removed) >= 5
    assert (divided.removed.path.str.startswith("train/")).all()
    assert list(divided.part("test").path) == list(dataset.table.path[dataset.table.part == "test"])


def test_the_published_protocol_removes_nothing_and_knows_no_groups():
    settings, dataset, divided = stages("protocol=published", *FAULTY, *DELIVERED)
    assert dataset.table.group.is_unique
    assert not dataset.table.cluster.is_unique
    assert dataset.removed.empty
    assert divided.removed.empty
    assert len(divided.table) == len(dataset.table) == 110
    assert settings.protocol == "published"


def test_a_published_figure_may_be_of_the_test_images():
    table = ready("protocol=published", "split.published_validation=test", *DELIVERED).table
    held_out = {part: set(table.path[table.part == part]) for part in ("train", "validation", "test")}
    assert held_out["validation"] == held_out["test"] != set()
    assert not held_out["train"] & held_out["test"]
    clean = ready("split.published_validation=test", *DELIVERED).table
    assert clean.path.is_unique


def test_a_split_file_says_what_is_used(tmp_path: Path):
    _, _, first = stages(*FAULTY, "seed=3")
    removed = first.removed[["path"]].assign(part="removed")
    pd.concat([first.table[["path", "part"]], removed]).to_csv(tmp_path / "split.csv", index=False)
    _, dataset, again = stages(*FAULTY, f"split.file={tmp_path / 'split.csv'}")
    assert dataset.removed.empty
    assert again.split_hash == first.split_hash
    assert set(again.removed.path) == set(first.removed.path)


@pytest.mark.parametrize("delivered", [[], DELIVERED], ids=["flat", "train and test"])
def test_published_puts_augmented_images_into_validation_and_clean_never_does(delivered):
    made = {}
    for protocol in ("clean", "published"):
        table = ready(*AUGMENTOR, *delivered, f"protocol={protocol}").table
        made[protocol] = table[table.parent != ""]
        assert len(made[protocol]) == 80
        if delivered:
            assert (table.part[table.path.str.startswith("test/")] == "test").all()
    assert set(made["clean"].part) == {"train"}
    assert {"train", "validation"} <= set(made["published"].part)
    assert ("test" in set(made["published"].part)) == (not delivered)


def test_clean_augmentation_has_only_training_parents():
    table = ready(*AUGMENTOR, *FAULTY, *DELIVERED).table
    parts = table[table.parent == ""].set_index("path").part
    assert set(parts[table.parent[table.parent != ""]]) == {"train"}
    assert table.groupby("group").part.nunique().max() == 1


def test_the_same_settings_give_the_same_data_set():
    first, second = (ready(*AUGMENTOR, *FAULTY) for _ in range(2))
    pd.testing.assert_frame_equal(first.table, second.table)
    assert first.split_hash == second.split_hash


@pytest.mark.parametrize("protocol", ["clean", "published"])
@pytest.mark.parametrize("delivered", [False, True])
def test_images_of_an_excluded_set_are_taken_out_but_of_a_delivered_test_set(tmp_path: Path, protocol, delivered):
    plain = ["data.source.test_share=0.3"] if delivered else []
    _, before, _ = stages(*plain)
    rows = [before.table[before.table.part == part].head(3) for part in before.table.part.unique()]
    for number, path in enumerate(path for part in rows for path in part.path):
        with Image.open(before.root / path) as image:
            image.resize((60, 60)).save(tmp_path / f"{number}.png")
    _, after, _ = stages(*plain, f"audit.exclude=[{tmp_path}]", f"protocol={protocol}")
    removed = after.removed[after.removed.reason == "in an excluded set"]
    assert len(rows) == 1 + delivered
    chosen = {number for part in rows for number in part.group}
    related = before.table.group.isin(chosen)  # other images of these lesions and patients
    assert set(removed.path) == set(before.table.path[related & ~((before.table.part == "test") & delivered)])


def test_a_split_file_excludes_by_itself():
    faults = train_faults(compose_config("train", ["split.file=some.csv", "audit.exclude=[folder]"]))
    assert "audit.exclude cannot remove any" in "".join(faults)


NINE = ["data.classes=9", "data.source.images=270", "data.source.conflicts=30", "data.source.imbalance=1"]


def test_classes_are_left_out_once_they_were_compared_with_the_others():
    _, before, _ = stages(*NINE)
    out = before.classes[:2]
    _, after, divided = stages(*NINE, f"data.leave_out=[{','.join(out)}]")
    assert after.classes == before.classes[2:]
    assert (after.table.label == after.table.target.map(dict(enumerate(after.classes)))).all()
    assert set(divided.part("train").label) == set(after.classes)
    # What contradicts itself is out all the same, also where one of its two labels is of a class left out.
    assert set(after.table.path) == set(before.table.path[~before.table.label.isin(out)])
    reasons = after.removed.groupby("reason").size()
    assert reasons["class left out"] == before.table.label.isin(out).sum()
    assert reasons["label conflict"] == before.removed.reason.eq("label conflict").sum() == 60


def test_a_split_file_and_a_class_left_out(tmp_path: Path):
    whole = ["data.classes=3", "data.source.images=90"]
    names = read_source(configured(*SMALL, *whole).data).classes
    out = [*whole, f"data.leave_out=[{names[-1]}]"]
    for how in (out, whole):  # a file of a run without that class, and of one with it
        _, dataset, divided = stages(*how)
        listed = [divided.table[["path", "part"]], dataset.removed.assign(part="removed")[["path", "part"]]]
        pd.concat(listed).drop_duplicates("path").to_csv(tmp_path / "split.csv", index=False)
        _, _, again = stages(*out, f"split.file={tmp_path / 'split.csv'}")
        assert again.classes == names[:-1]
        expected = divided.table[divided.table.label != names[-1]]
        assert dict(zip(again.table.path, again.table.part, strict=True)) == dict(
            zip(expected.path, expected.part, strict=True)
        )


def test_a_class_of_which_nothing_is_left(tmp_path: Path):
    source = read_source(configured(*SMALL).data)
    shutil.copytree(source.root / "malignant", tmp_path / "malignant")
    with pytest.raises(DataError, match=r"No image is left of class 'malignant'.*in an excluded set"):
        stages(f"audit.exclude=[{tmp_path}]")
    with pytest.raises(DataError, match=r"No image is left of class 'benign', 'malignant'"):
        stages(f"audit.exclude=[{source.root}]")


def test_a_split_file_brings_no_contradicting_labels(tmp_path: Path):
    _, _, kept = stages(*FAULTY, "audit.conflicts=keep")
    removed = kept.removed[["path"]].assign(part="removed")
    pd.concat([kept.table[["path", "part"]], removed]).to_csv(tmp_path / "split.csv", index=False)
    with pytest.raises(DataError, match=r"under more than one label.*Received: 10 such images"):
        stages(*FAULTY, f"split.file={tmp_path / 'split.csv'}")
    _, _, again = stages(*FAULTY, "audit.conflicts=keep", f"split.file={tmp_path / 'split.csv'}")
    assert again.split_hash == kept.split_hash
