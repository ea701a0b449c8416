"""The drawn data set: the same bytes for the same arguments, and faults where truth.json says."""

import csv
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from melanoma.data.synthetic import class_names, draw_lesion, lesion_style, write_synthetic

FAULTS = {"duplicates": 4, "near_duplicates": 5, "conflicts": 3, "leaks": 3, "unreadable": 4}


def drawn(folder: Path, **arguments) -> Path:
    folder.mkdir()
    write_synthetic(folder, **{"classes": ["benign", "malignant"], "images": 40, "size": 32} | arguments)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def metadata(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def part_of(image: str) -> str:
    return image.split("/")[0]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> Path:
    return drawn(tmp_path_factory.mktemp("synthetic") / "set", images=60, test_share=0.3, **FAULTS)


@pytest.fixture(scope="module")
def truth(faulty) -> dict[str, list]:
    return json.loads((faulty / "truth.json").read_text(encoding="utf-8"))


def test_same_arguments_give_the_same_bytes(tmp_path, faulty):
    again = drawn(tmp_path / "again", images=60, test_share=0.3, **FAULTS)
    assert contents(again) == contents(faulty)


def test_another_seed_draws_other_images(tmp_path):
    first, second = (drawn(tmp_path / str(seed), seed=seed, images=4) for seed in (0, 1))
    drawings = [{content for name, content in contents(f).items() if name.endswith("jpg")} for f in (first, second)]
    assert not drawings[0] & drawings[1]


def test_all_drawings_differ(tmp_path):
    files = [content for name, content in contents(drawn(tmp_path / "set")).items() if name.endswith("jpg")]
    assert len(set(files)) == 40


@pytest.mark.parametrize(
    ("images", "imbalance", "expected"),
    [(30, 1.0, [10, 10, 10]), (31, 1.0, [11, 10, 10]), (70, 4.0, [40, 20, 10]), (6, 1.0, [2, 2, 2])],
)
def test_images_per_class(tmp_path, images, imbalance, expected):
    classes = class_names(3)
    folder = drawn(tmp_path / "set", classes=classes, images=images, imbalance=imbalance)
    assert [len(list((folder / name).iterdir())) for name in classes] == expected
    assert Counter(row["label"] for row in metadata(folder)) == dict(zip(classes, expected, strict=True))


def test_test_share_holds_in_every_class(tmp_path):
    folder = drawn(tmp_path / "set", test_share=0.25)
    counts = {path.relative_to(folder).as_posix(): len(list(path.iterdir())) for path in folder.glob("*/*")}
    assert counts == {"train/benign": 15, "train/malignant": 15, "test/benign": 5, "test/malignant": 5}


def test_the_smallest_set_still_has_every_class_in_both_parts(tmp_path):
    folder = drawn(tmp_path / "set", images=4, test_share=0.9)
    assert [len(list(path.iterdir())) for path in folder.glob("*/*")] == [1, 1, 1, 1]


def test_images_are_square_rgb_jpegs(tmp_path):
    folder = drawn(tmp_path / "set", images=4, size=40)
    for row in metadata(folder):
        with Image.open(folder / row["image"]) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (40, 40))


def test_file_numbers_do_not_tell_the_class(tmp_path):
    rows = metadata(drawn(tmp_path / "set", images=100))
    numbers = {row["image"]: int(Path(row["image"]).stem.removeprefix("lesion_")) for row in rows}
    assert sorted(numbers.values()) == list(range(1, 101))
    malignant = [number for image, number in numbers.items() if image.startswith("malignant/")]
    assert 35 < np.mean(malignant) < 66


def test_lesions_have_one_or_two_images_and_patients_up_to_three_lesions(tmp_path):
    rows = metadata(drawn(tmp_path / "set", images=300))
    views = Counter(row["lesion"] for row in rows)
    assert set(views.values()) == {1, 2}
    assert 0.08 < np.mean([count == 2 for count in views.values()]) < 0.22
    lesions = defaultdict(set)
    for row in rows:
        lesions[row["patient"]].add(row["lesion"])
    assert {len(group) for group in lesions.values()} == {1, 2, 3}


def test_a_lesion_keeps_its_patient_label_and_site(tmp_path):
    rows = metadata(drawn(tmp_path / "set", images=200))
    for key, values in (("lesion", ("patient", "label", "site")), ("patient", ("age", "sex", "skin_tone"))):
        for value in values:
            assert len({(row[key], row[value]) for row in rows}) == len({row[key] for row in rows})


def test_no_lesion_or_patient_is_in_both_parts(tmp_path):
    rows = metadata(drawn(tmp_path / "set", images=100, test_share=0.3))
    for key in ("lesion", "patient"):
        train, test = ({row[key] for row in rows if part_of(row["image"]) == part} for part in ("train", "test"))
        assert train and test and not train & test


def test_only_planted_leaks_put_a_lesion_in_both_parts(faulty, truth):
    parts = defaultdict(set)
    for row in metadata(faulty):
        parts[row["lesion"]].add(part_of(row["image"]))
    lesions = {row["image"]: row["lesion"] for row in metadata(faulty)}
    leaked = {lesions[image] for image, _ in truth["split_leaks"]}
    assert {lesion for lesion, found in parts.items() if len(found) == 2} == leaked


def test_metadata_lists_every_readable_image(faulty, truth):
    unreadable = {fault["image"] for fault in truth["unreadable"]}
    images = {name for name in contents(faulty) if "/" in name}
    rows = metadata(faulty)
    assert sorted(row["image"] for row in rows) == sorted(images - unreadable)
    assert all(row["label"] == Path(row["image"]).parent.name for row in rows)
    assert list(rows[0]) == ["image", "label", "lesion", "patient", "age", "sex", "site", "skin_tone"]


def test_truth_counts_what_was_planted_on_images_of_their_own(truth):
    assert [len(faults) for faults in truth.values()] == [4, 5, 3, 3, 4]
    pairs = truth["exact_duplicates"] + truth["label_conflicts"] + truth["split_leaks"]
    pairs += [fault["images"] for fault in truth["near_duplicates"]]
    images = [image for pair in pairs for image in pair] + [fault["image"] for fault in truth["unreadable"]]
    assert len(images) == len(set(images))


def test_exact_duplicates_have_equal_pixels_in_the_same_folder(faulty, truth):
    for original, copy in truth["exact_duplicates"]:
        assert Path(original).parent == Path(copy).parent
        np.testing.assert_array_equal(pixels(faulty / original), pixels(faulty / copy))
    same_bytes = [(faulty / a).read_bytes() == (faulty / b).read_bytes() for a, b in truth["exact_duplicates"]]
    assert same_bytes == [True, False, True, False]


def test_no_other_images_have_equal_pixels(faulty, truth):
    groups = defaultdict(set)
    for row in metadata(faulty):
        groups[pixels(faulty / row["image"]).tobytes()].add(row["image"])
    planted = truth["exact_duplicates"] + truth["label_conflicts"] + truth["split_leaks"]
    assert {frozenset(g) for g in groups.values() if len(g) > 1} == {frozenset(pair) for pair in planted}


def test_near_duplicates_are_the_changes_they_claim(faulty, truth):
    undo = {
        "flipped": np.fliplr,
        "rotated": lambda copy: np.rot90(copy, -1),
        "recompressed": lambda copy: copy,
    }
    assert [fault["change"] for fault in truth["near_duplicates"]] == [
        "resized", "recompressed", "flipped", "rotated", "brightened",
    ]  # fmt: skip
    for fault in truth["near_duplicates"]:
        original, copy = (pixels(faulty / image).astype(float) for image in fault["images"])
        assert len({Path(image).parent for image in fault["images"]}) == 1
        if fault["change"] == "resized":
            assert copy.shape == (24, 24, 3)
        elif fault["change"] == "brightened":
            assert copy.mean() > 1.05 * original.mean()
        else:
            assert 0 < np.abs(undo[fault["change"]](copy) - original).mean() < 8


def test_conflicts_copy_an_image_to_another_class_of_the_same_part(faulty, truth):
    for original, copy in truth["label_conflicts"]:
        assert part_of(original) == part_of(copy)
        assert Path(original).parent.name != Path(copy).parent.name
        assert (faulty / original).read_bytes() == (faulty / copy).read_bytes()


def test_leaks_copy_a_test_image_to_the_same_class_of_train(faulty, truth):
    for original, copy in truth["split_leaks"]:
        assert (part_of(original), part_of(copy)) == ("test", "train")
        assert Path(original).parent.name == Path(copy).parent.name
        assert (faulty / original).read_bytes() == (faulty / copy).read_bytes()


def test_unreadable_files_fail_to_decode(faulty, truth):
    assert [fault["reason"] for fault in truth["unreadable"]] == [
        "empty",
        "truncated",
        "text",
        "garbage header",
    ]
    for fault in truth["unreadable"]:
        assert (faulty / fault["image"]).is_file()
        with pytest.raises(OSError):
            pixels(faulty / fault["image"])


def test_a_clean_set_has_an_empty_truth(tmp_path):
    truth = json.loads((drawn(tmp_path / "set", images=4) / "truth.json").read_text(encoding="utf-8"))
    assert set(map(len, truth.values())) == {0}


def test_progress_reaches_the_number_of_images(tmp_path):
    calls = []
    drawn(tmp_path / "set", images=5, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"classes": ["only"]}, "['only']"),
        ({"classes": ["same", "same"]}, "['same', 'same']"),
        ({"classes": ["good", "../bad"]}, "['good', '../bad']"),
        ({"classes": ["good", ".."]}, "['good', '..']"),
        ({"images": 3}, "images=3, imbalance=1.0, 2 classes"),
        ({"images": -1}, "images=-1, imbalance=1.0, 2 classes"),
        ({"images": 10, "imbalance": 9.0}, "images=10, imbalance=9.0, 2 classes"),
        ({"size": 31}, "size=31"),
        ({"seed": -1}, "seed=-1"),
        ({"imbalance": 0.5}, "imbalance=0.5"),
        ({"test_share": 1.0}, "test_share=1.0"),
        ({"leaks": 1}, "leaks=1"),
        ({"test_share": 0.1, "leaks": 5}, "leaks=5"),
        ({"duplicates": 30, "conflicts": 11}, "images=40"),
        ({"unreadable": -1}, "'unreadable': -1}"),
    ],
)
def test_bad_arguments_say_what_was_received_and_write_nothing(tmp_path, arguments, received):
    with pytest.raises(ValueError) as caught:
        drawn(tmp_path / "set", **arguments)
    assert str(caught.value).endswith(received)
    assert not list((tmp_path / "set").iterdir())


def test_a_missing_or_filled_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Received: folder="):
        write_synthetic(tmp_path / "missing", classes=["a", "b"], images=4)
    (tmp_path / "filled").touch()
    with pytest.raises(ValueError, match="Received: folder="):
        write_synthetic(tmp_path, classes=["a", "b"], images=4)


def test_class_names():
    assert class_names(2) == ["benign", "malignant"]
    assert class_names(3) == ["nevus", "melanoma", "basal cell carcinoma"]
    assert class_names(11)[8:] == ["seborrheic keratosis", "class 10", "class 11"]
    assert all(len(set(class_names(count))) == count for count in range(2, 30))
    with pytest.raises(ValueError, match=r"Received: count=1$"):
        class_names(1)


def test_style_follows_the_name_and_else_the_index():
    assert lesion_style("melanoma", 0).severity > lesion_style("nevus", 1).severity
    assert lesion_style("my class", 1) == lesion_style("melanoma", 1)
    assert len({lesion_style(name, index) for index, name in enumerate(class_names(30))}) == 30


@pytest.mark.parametrize("size", [32, 96])
def test_draw_lesion_depends_on_its_generators_alone(size):
    def draw(lesion, view):
        generators = np.random.default_rng(lesion), np.random.default_rng(view)
        return draw_lesion(lesion_style("nevus", 0), "II", size, *generators)

    first = draw(1, 2)
    assert first.shape == (size, size, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, draw(1, 2))
    assert (first != draw(1, 3)).any()
    assert (first != draw(2, 2)).any()


def test_a_second_view_shows_the_same_lesion():
    def small(lesion, view):
        generators = np.random.default_rng([0, lesion]), np.random.default_rng([1, lesion, view])
        image = Image.fromarray(draw_lesion(lesion_style("melanoma", 0), "II", 64, *generators)).resize((8, 8))
        return np.asarray(image.convert("L"), float).ravel()

    likeness = [[np.corrcoef(small(a, 0), small(b, 1))[0, 1] for b in range(12)] for a in range(12)]
    same = np.eye(12, dtype=bool)
    assert np.mean(np.array(likeness)[same]) > np.mean(np.array(likeness)[~same]) + 0.1


def test_severity_follows_the_class_but_the_classes_overlap():
    def contrast(name, number):
        generators = np.random.default_rng([0, number]), np.random.default_rng([1, number])
        return draw_lesion(lesion_style(name, 0), "II", 32, *generators).std()

    benign, malignant = ([contrast(name, number) for number in range(60)] for name in ("benign", "malignant"))
    assert np.median(malignant) > np.median(benign)
    assert max(benign) > np.median(malignant)
    assert min(malignant) < np.median(benign)
