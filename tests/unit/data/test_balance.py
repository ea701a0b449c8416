"""Unequal classes: weights, repetition, and files that Augmentor adds."""

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma.config.schema import BalanceConfig
from melanoma.data.balance import augment_files, class_weights, oversample
from melanoma.errors import ConfigError, MelanomaError

TARGETS = np.repeat([0, 1, 2], [30, 7, 2])


@pytest.mark.parametrize("targets", [TARGETS, np.array([0, 1]), np.repeat([0, 2], [5, 1])])
def test_class_weights_have_mean_one_and_make_classes_count_alike(targets):
    weights = class_weights(targets, 3)
    assert weights.shape == (3,)
    assert weights[targets].mean() == pytest.approx(1)
    sums = [weights[targets][targets == label].sum() for label in np.unique(targets)]
    assert sums == pytest.approx([len(targets) / len(sums)] * len(sums))


@pytest.mark.parametrize("seed", range(20))
def test_oversampling_makes_classes_equal_and_keeps_every_image(seed):
    positions = oversample(TARGETS, seed)
    assert np.bincount(TARGETS[positions]).tolist() == [30, 30, 30]
    assert set(positions) == set(range(len(TARGETS)))
    for label in (0, 1, 2):
        repeats = np.bincount(positions)[label == TARGETS]
        assert repeats.max() - repeats.min() <= 1


def test_oversampling_follows_its_seed_alone():
    np.random.seed(1)
    first = oversample(TARGETS, seed=3)
    assert (oversample(TARGETS, seed=3) == first).all()
    assert (oversample(TARGETS, seed=4) != first).any()


ROTATE = {"rotate": {"probability": 0.7, "max_left_rotation": 10, "max_right_rotation": 10}}
FLIP = {"flip_left_right": {"probability": 1}}


@pytest.fixture
def root(tmp_path, write_folders) -> Path:
    return write_folders(tmp_path / "set", {"a": 6, "b": 3}, suffix=".png")


def rows_of(root: Path) -> pd.DataFrame:
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    return pd.DataFrame({"path": paths, "label": [path[0] for path in paths], "sha256": paths})


@pytest.fixture
def augment(root, tmp_path, monkeypatch):
    """`augment(operations)` makes files in a new cache, or one by name; returns their folder and table."""

    def call(operations=ROTATE, images_per_class=5, seed=0, rows=None, cache="cache 0"):
        monkeypatch.setenv("MELANOMA_CACHE_DIR", str(tmp_path / cache))
        settings = BalanceConfig(name="augmentor", images_per_class=images_per_class, operations=operations)
        return augment_files(root, rows_of(root) if rows is None else rows, settings, seed)

    return call


def contents(made: tuple[Path, pd.DataFrame]) -> list[bytes]:
    return [(made[0] / path).read_bytes() for path in made[1].path]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_so_many_files_are_added_to_each_class(augment):
    folder, made = augment(images_per_class=5)
    assert made.label.value_counts().to_dict() == {"a": 5, "b": 5}
    assert sorted(made.path) == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    for path in made.path:
        assert pixels(folder / path).shape == (20, 20, 3)


def test_parents_are_of_the_given_rows_and_of_the_same_class(root, augment):
    rows = rows_of(root).iloc[[0, 2, 7, 8]]
    _, made = augment(rows=rows, images_per_class=30)
    assert set(made.parent) == set(rows.path)
    assert (made.parent.str[0] == made.label).all()


def test_each_file_is_made_from_its_parent(root, augment):
    folder, made = augment(FLIP)
    for row in made.itertuples():
        assert np.abs(pixels(folder / row.path) - np.fliplr(pixels(root / row.parent))).mean() < 8


RANDOM_OPERATIONS = {
    "rotate and shear": {**ROTATE, "shear": {"probability": 0.5, "max_shear_left": 10, "max_shear_right": 10}},
    "zoom": {"zoom_random": {"probability": 0.9, "percentage_area": 0.7, "randomise_percentage_area": True}},
    "distortion": {"random_distortion": {"probability": 1, "grid_width": 3, "grid_height": 3, "magnitude": 3}},
    "brightness": {"random_brightness": {"probability": 1, "min_factor": 0.5, "max_factor": 1.5}},
    "erasing": {"random_erasing": {"probability": 1, "rectangle_area": 0.3}},
}


@pytest.mark.parametrize("operations", RANDOM_OPERATIONS.values(), ids=RANDOM_OPERATIONS.keys())
def test_a_seed_gives_the_same_bytes_in_any_cache_and_another_seed_others(root, augment, operations):
    one_parent = rows_of(root).iloc[[0]]
    made = []
    for state, (seed, cache) in enumerate([(1, "one"), (1, "two"), (2, "one")]):
        random.seed(state)
        np.random.seed(state)
        made.append(contents(augment(operations, seed=seed, rows=one_parent, cache=cache)))
    assert made[0] == made[1] != made[2]
    assert len(set(made[0])) > 1


def test_another_seed_draws_other_parents(augment):
    first, again, other = (list(augment(seed=seed, images_per_class=20)[1].parent) for seed in (1, 1, 2))
    assert first == again != other


def test_the_order_of_rows_does_not_matter(root, augment):
    assert contents(augment(rows=rows_of(root).iloc[::-1], cache="one")) == contents(augment(cache="two"))


def test_files_are_made_once_for_the_same_arguments_and_content(root, augment):
    folder, made = augment()
    size = (folder / made.path[0]).stat().st_size
    (folder / made.path[0]).write_bytes(bytes(size))  # would be overwritten
    again, table = augment()
    assert (again / made.path[0]).read_bytes() == bytes(size)
    pd.testing.assert_frame_equal(table, made)
    others = [
        augment(seed=1),
        augment(images_per_class=4),
        augment(FLIP),
        augment(rows=rows_of(root).iloc[1:]),
        augment(rows=rows_of(root).assign(sha256="changed")),
    ]
    assert len({folder, *(other[0] for other in others)}) == 6


def test_the_order_of_operations_matters(augment):
    invert = {"invert": {"probability": 1}}
    black = {"random_brightness": {"probability": 1, "min_factor": 0.01, "max_factor": 0.01}}
    dark, light = (
        augment({**first, **second}, cache=next(iter(first))) for first, second in ((invert, black), (black, invert))
    )
    assert pixels(dark[0] / dark[1].path[0]).mean() < 20
    assert pixels(light[0] / light[1].path[0]).mean() > 235


@pytest.mark.parametrize(("probability", "fired"), [(0, 0), (0.0, 0), (1, 40), (1.0, 40)])
def test_probability_0_never_fires_and_1_always_does(root, augment, probability, fired):
    folder, made = augment({"invert": {"probability": probability}}, images_per_class=20)
    changes = [pixels(folder / row.path) - pixels(root / row.parent) for row in made.itertuples()]
    assert sum(np.abs(change).mean() > 30 for change in changes) == fired


@pytest.mark.parametrize(("probability", "least", "most"), [(0.5, 75, 125), (0.001, 0, 2)])
def test_a_probability_fires_that_often(augment, probability, least, most):
    """200 draws; Augmentor's own rounding makes 5% of 0.001."""
    folder, made = augment({"greyscale": {"probability": probability}}, images_per_class=100)
    grey = sum(np.ptp(pixels(folder / path), axis=2).max() == 0 for path in made.path)
    assert least <= grey <= most


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ({"twirl": {"probability": 1}}, r"balance\.operations\.twirl: .*no such operation"),
        ({"_operations": {}}, "no such operation"),
        ({"operations": {}}, "no such operation"),
        ({"rotate90": {"probability": 1, "angle": 3}}, "rotate90: .*'angle'.*Received: rotate90"),
        ({"rotate": {"probability": 1}}, "rotate: .*max_left_rotation"),
        ({"rotate90": {}}, "rotate90: .*probability"),
        ({"rotate90": None}, "rotate90"),
        ({"rotate90": {"probability": 1.5}}, "rotate90: .*probability"),
        ({"rotate90": {"probability": "often"}}, "rotate90"),
        (
            {**FLIP, "rotate": {"probability": 0, "max_left_rotation": 99, "max_right_rotation": 1}},
            "rotate: .*max_left",
        ),
        ({"status": {}}, "status adds no operation"),
        ({"sample": {"n": 5}}, "balance.operations.sample"),
        ({"process": {}}, "balance.operations.process"),
        ({"remove_operation": {}}, "balance.operations.remove_operation"),
        ({"add_further_directory": {"new_source_directory": "/nowhere"}}, "balance.operations.add_further_directory"),
    ],
)
def test_operations_that_augmentor_does_not_take_are_refused(augment, tmp_path, operations, message, capsys):
    with pytest.raises(ConfigError, match=message):
        augment(operations)
    assert not list(tmp_path.glob("cache 0/augmentor/*"))


def test_an_operation_that_does_not_fit_the_images_is_refused_and_leaves_nothing(augment, tmp_path):
    with pytest.raises(ConfigError, match=r"Crop fails with these arguments.*Received: .*png"):
        augment({"crop_by_size": {"probability": 1, "width": 500, "height": 500, "centre": False}})
    assert not [path for path in tmp_path.glob("cache 0/augmentor/*") if path.suffix != ".lock"]


def test_an_image_above_the_usual_limit_of_pixels_can_be_a_parent(root, augment):
    """It is over 50 megapixels, but was decoded with a higher data.max_megapixels."""
    for path in root.glob("a/*.png"):
        path.unlink()
    Image.new("1", (7200, 7200), 1).save(root / "a/large.png")
    crop = {"crop_by_size": {"probability": 1, "width": 10, "height": 10, "centre": True}}
    folder, made = augment(crop, images_per_class=1)
    assert (pixels(folder / made.path[0]) == 255).all()


@pytest.mark.parametrize("operations", [RANDOM_OPERATIONS["rotate and shear"], RANDOM_OPERATIONS["erasing"]])
def test_the_global_generators_are_left_as_they_were(augment, operations):
    before = random.getstate(), np.random.get_state()[1].tolist()
    augment(operations)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_the_global_generators_are_left_as_they_were_by_a_failure(augment):
    before = random.getstate(), np.random.get_state()[1].tolist()
    with pytest.raises(MelanomaError):
        augment({"crop_by_size": {"probability": 1, "width": 500, "height": 500, "centre": False}})
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
