"""Which images a model and its ancestors have seen, and what follows for the test images of another run."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageOps

from melanoma.auditing.audit import audit_source
from melanoma.config.schema import AuditConfig
from melanoma.data.sources import class_folders
from melanoma.data.synthetic import write_synthetic
from melanoma.lineage.contamination import Contamination, Seen, TrainedOn, contamination, images_seen, with_copies
from melanoma.lineage.protocol import CLEAN, Protocol, Shortcut

ON_TEST = Protocol.of(Shortcut.SELECTED_ON_TEST)
UNKNOWN = Protocol.of(Shortcut.PRETRAINING_UNKNOWN)
PRETRAINED_ON_TEST = Protocol.of(Shortcut.PRETRAINED_ON_TEST)


def split_of(*rows: tuple[str, str] | tuple[str, str, str]) -> pd.DataFrame:
    """Of (path, part) or (path, part, parent); the SHA-256 of an image is its path in capitals."""
    table = pd.DataFrame([(*row, "")[:3] for row in rows], columns=["path", "part", "parent"])
    return table.assign(sha256=table.path.str.upper())


SPLIT = split_of(("a", "train"), ("b", "validation"), ("c", "test"), ("d", "removed"), ("e", "quarantined"))


def seen(*ancestors: TrainedOn, complete: bool = True, **named) -> Seen:
    return images_seen(ancestors, complete=complete, **named)


def test_images_of_training_and_validation_were_seen():
    assert seen(TrainedOn(SPLIT, CLEAN)) == Seen(frozenset("AB"), complete=True)


@pytest.mark.parametrize(
    ("protocol", "selected", "expected"),
    [(CLEAN, True, "AB"), (ON_TEST, True, "ABC"), (ON_TEST, False, "AB"), (ON_TEST | UNKNOWN, True, "ABC")],
)
def test_test_images_were_seen_where_the_run_was_selected_on_them(protocol, selected, expected):
    assert seen(TrainedOn(SPLIT, protocol), selected=selected).images == set(expected)


def test_augmented_copies_stand_for_their_parents_and_not_for_themselves():
    split = split_of(("a", "train"), ("a1", "train", "a"), ("b", "test"), ("b1", "train", "b"), ("c1", "test", "c"))
    assert seen(TrainedOn(split, CLEAN)).images == {"A", "B"}  # of b only a copy was trained on


def test_the_images_of_all_ancestors_are_counted():
    older = split_of(("x", "train"), ("y", "test"), ("c", "validation"))
    found = seen(TrainedOn(SPLIT, CLEAN), TrainedOn(older, ON_TEST))
    assert found == Seen(frozenset("ABCXY"), complete=True)
    assert seen() == Seen()


@pytest.mark.parametrize(
    ("protocols", "complete", "expected"),
    [
        ([CLEAN, CLEAN], True, True),
        ([CLEAN, CLEAN], False, False),
        ([UNKNOWN, CLEAN], True, False),
        ([CLEAN, UNKNOWN | ON_TEST], True, False),
        ([PRETRAINED_ON_TEST, Protocol.of(Shortcut.SEEN_IMAGES_UNKNOWN)], True, True),
    ],
)
def test_what_is_not_known_of_an_ancestor_is_not_known_of_all(protocols, complete, expected):
    found = seen(*(TrainedOn(SPLIT, protocol) for protocol in protocols), complete=complete)
    assert found.complete is expected
    assert found.images >= {"A", "B"}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A set, and another in which its first image is mirrored, smaller and encoded anew."""
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    for seed, (folder, images) in enumerate([(first, 24), (second, 12)]):
        write_synthetic(folder, classes=["benign", "malignant"], images=images, size=128, seed=seed + 1)
    with Image.open(first / class_folders(first).table.path[0]) as image:
        smaller = ImageOps.mirror(image.convert("RGB")).resize((100, 100))
        smaller.save(second / "benign" / "copy.jpg", quality=85)
    return first, second


def audited(folder: Path, **columns: list[str]) -> pd.DataFrame:
    source = class_folders(folder)
    source = replace(source, table=source.table.assign(**columns))
    return audit_source(source, AuditConfig(), 50.0).table


@pytest.fixture
def table(drawn: tuple[Path, Path], cache: Path) -> pd.DataFrame:
    """The audit's table of the first set; its images belong to lesions in pairs, one after the other."""
    return audited(drawn[0], lesion=[f"lesion {number // 2}" for number in range(24)])


@pytest.fixture
def others(drawn: tuple[Path, Path], cache: Path) -> frozenset[str]:
    """SHA-256 of the images of the second set, of which there was an audit."""
    return frozenset(audited(drawn[1]).sha256)


def rows(table: pd.DataFrame, *numbers: int) -> pd.DataFrame:
    """Test images of a run."""
    return table.iloc[list(numbers)][["path"]].assign(parent="")


def test_nothing_is_known_where_no_seen_image_is(table: pd.DataFrame):
    for complete in (True, False):
        assert contamination(Seen(complete=complete), table, rows(table, 0), 0.75) == Contamination(None, 0, UNKNOWN)


def test_a_test_image_itself_was_seen(table: pd.DataFrame):
    found = contamination(Seen(frozenset(table.sha256[:1])), table, rows(table, 0, 4, 6), 0.75)
    assert found == Contamination(1, 0, PRETRAINED_ON_TEST)


def test_a_copy_of_a_test_image_was_seen(table: pd.DataFrame, others: frozenset[str]):
    assert contamination(Seen(others), table, rows(table, 0, 4, 6), 0.75) == Contamination(1, 0, PRETRAINED_ON_TEST)
    # Without looking for near duplicates it is another picture.
    assert contamination(Seen(others), table, rows(table, 0, 4, 6), None) == Contamination(0, 0, CLEAN)


def test_another_image_of_the_lesion_was_seen(table: pd.DataFrame, others: frozenset[str]):
    seen_itself = Seen(frozenset(table.sha256[4:5]))  # not a test image, nor any image of the run's split
    assert contamination(seen_itself, table, rows(table, 5, 8), 0.75) == Contamination(1, 0, PRETRAINED_ON_TEST)
    # Also by way of a copy: of its lesion, the other image is in the second set.
    assert contamination(Seen(others), table, rows(table, 1, 8), 0.75) == Contamination(1, 0, PRETRAINED_ON_TEST)


def test_an_augmented_test_image_is_its_parent(table: pd.DataFrame):
    test = pd.DataFrame({"path": ["made.png"], "parent": [table.path[0]]})
    assert contamination(Seen(frozenset(table.sha256[:1])), table, test, 0.75).test_images == 1
    assert contamination(Seen(frozenset(table.sha256[4:5])), table, test, 0.75).test_images == 0


def test_other_images_leave_the_protocol_clean(table: pd.DataFrame, others: frozenset[str]):
    assert contamination(Seen(others), table, rows(table, 4, 5, 6, 7), 0.75) == Contamination(0, 0, CLEAN)


def test_what_could_not_be_compared_is_not_known(table: pd.DataFrame):
    unaudited = frozenset({*table.sha256[:1], "0" * 64, "1" * 64})
    found = contamination(Seen(unaudited), table, rows(table, 4), 0.75)
    assert found == Contamination(0, 2, UNKNOWN)
    found = contamination(Seen(unaudited), table, rows(table, 0, 4), 0.75)
    assert found == Contamination(1, 2, PRETRAINED_ON_TEST | UNKNOWN)
    # Where near duplicates are not looked for, there was nothing to compare.
    assert contamination(Seen(unaudited), table, rows(table, 4), None) == Contamination(0, 0, CLEAN)


def test_an_incomplete_ancestry_is_not_known(table: pd.DataFrame, others: frozenset[str]):
    found = contamination(Seen(others, complete=False), table, rows(table, 4), 0.75)
    assert found == Contamination(0, 0, UNKNOWN)
    found = contamination(Seen(others, complete=False), table, rows(table, 0), 0.75)
    assert found == Contamination(1, 0, PRETRAINED_ON_TEST | UNKNOWN)


def test_copies_and_relations_count_among_what_was_seen(table: pd.DataFrame, others: frozenset[str]):
    known, not_compared = with_copies(Seen(others | {"0" * 64}), table, 0.75)
    assert known == {*others, "0" * 64, *table.sha256[:2]}
    assert not_compared == 1
    assert with_copies(Seen(), table, 0.75) == (set(), 0)
