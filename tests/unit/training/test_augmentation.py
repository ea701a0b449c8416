"""Augmentation layers move and colour pixels as they say, and mixed labels match mixed pixels."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from hydra.utils import UNSAFE_DISABLE_EXECUTION_CHECKS, instantiate
from omegaconf import OmegaConf

from melanoma.paths import conf_dir
from melanoma.training.augmentation import RandomAffine, RandomBlur, RandomColor, RandomCutout, mix_pairs

RIGHT_AND_BELOW = ((0, 0), (0, 3), (0, 3), (0, 0))
STRONG = {
    "affine": partial(RandomAffine, True, True, rotation=180, shift=0.3, shear=20, zoom=0.5),
    "color": partial(RandomColor, brightness=0.5, contrast=0.5, saturation=1, hue=0.5),
    "blur": partial(RandomBlur, probability=0.5),
    "cutout": partial(RandomCutout, probability=0.5, size=0.5),
}


class Highest:
    """Mixed into a layer: each random number is the highest it can be, so that the effect is known."""

    def _uniform(self, shape, low, high):
        return tf.fill(shape, tf.cast(high, tf.float32))


class Lowest:
    """As `Highest`: the lowest."""

    def _uniform(self, shape, low, high):
        return tf.fill(shape, tf.cast(low, tf.float32))


class HighestAffine(Highest, RandomAffine):
    pass


class LowestAffine(Lowest, RandomAffine):
    pass


class HighestColor(Highest, RandomColor):
    pass


class LowestColor(Lowest, RandomColor):
    pass


def pictures(n: int = 3, side: int = 12, seed: int = 0) -> np.ndarray:
    """Random pixels, each image with a mark of its own."""
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3)).astype("float32")


def applied(layer: keras.layers.Layer, images: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(layer(images))


@pytest.mark.parametrize("layer", STRONG)
def test_shape_range_and_type_are_kept(layer: str):
    images = pictures(16, 20)
    changed = applied(STRONG[layer](seed=1), images)
    assert (changed.shape, changed.dtype) == (images.shape, np.float32)
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert not np.array_equal(changed, images)


@pytest.mark.parametrize("layer", STRONG)
def test_layers_work_on_batches_of_any_length_in_a_pipeline(layer: str):
    images = pictures(10, 16)
    batches = tf.data.Dataset.from_tensor_slices(images).batch(4).repeat(5).map(STRONG[layer](seed=3))
    assert [len(batch) for batch in batches] == [4, 4, 2] * 5


@pytest.mark.parametrize("layer", STRONG)
def test_the_seed_decides(layer: str):
    images = pictures(16)
    first, second, other = (applied(STRONG[layer](seed=seed), images) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)
    keras.utils.set_random_seed(2)
    one = applied(STRONG[layer](), images)
    keras.utils.set_random_seed(2)
    np.testing.assert_array_equal(applied(STRONG[layer](), images), one)


@pytest.mark.parametrize("layer", ["affine", "color"])
def test_images_of_a_batch_are_changed_differently(layer: str):
    changed = applied(STRONG[layer](seed=1), np.repeat(pictures(1), 8, axis=0))
    assert len({image.tobytes() for image in changed}) == 8


@pytest.mark.parametrize(
    ("layer", "tolerance"),
    [(RandomAffine(), 0), (RandomColor(), 1e-3), (RandomBlur(probability=0), 0), (RandomCutout(probability=0), 0)],
)
def test_nothing_asked_for_nothing_changed(layer, tolerance):
    images = pictures()
    np.testing.assert_allclose(applied(layer, images), images, atol=tolerance)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (LowestAffine(horizontal_flip=True), lambda x: x[:, :, ::-1]),
        (LowestAffine(vertical_flip=True), lambda x: x[:, ::-1]),
        (LowestAffine(True, True), lambda x: x[:, ::-1, ::-1]),
        (HighestAffine(True, True), lambda x: x),
        (HighestAffine(rotation=90), lambda x: np.rot90(x, 1, axes=(1, 2))),
        (LowestAffine(rotation=90), lambda x: np.rot90(x, -1, axes=(1, 2))),
        (HighestAffine(rotation=180), lambda x: x[:, ::-1, ::-1]),
        (HighestAffine(shift=0.25, fill_mode="wrap"), lambda x: np.roll(x, (-3, -3), axis=(1, 2))),
        (LowestAffine(shift=0.25, fill_mode="wrap"), lambda x: np.roll(x, (3, 3), axis=(1, 2))),
        (HighestAffine(shift=0.25, fill_mode="constant"), lambda x: np.pad(x[:, 3:, 3:], RIGHT_AND_BELOW)),
        (HighestAffine(shift=0.25, fill_mode="nearest"), lambda x: np.pad(x[:, 3:, 3:], RIGHT_AND_BELOW, "edge")),
        (HighestAffine(shift=0.25, fill_mode="reflect"), lambda x: np.pad(x[:, 3:, 3:], RIGHT_AND_BELOW, "symmetric")),
    ],
)
def test_pixels_go_where_the_arguments_say(layer, expected):
    images = pictures(side=12)
    np.testing.assert_allclose(applied(layer, images), expected(images), atol=1.0)


def test_zoom_scales_about_the_centre():
    images = np.zeros((1, 21, 21, 3), "float32")
    images[:, 8:13, 8:13] = 200
    near, far = applied(LowestAffine(zoom=0.5), images), applied(HighestAffine(zoom=0.5), images)
    lit = [np.argwhere(changed[0, :, :, 0] > 100) for changed in (near, far)]
    assert [np.ptp(found, axis=0).tolist() for found in lit] == [[8, 8], [2, 2]]
    assert all(found.mean(axis=0).tolist() == [10, 10] for found in lit)


def test_shear_moves_rows_in_proportion_to_their_distance_from_the_centre():
    images = np.zeros((1, 21, 21, 3), "float32")
    images[:, :, 10] = 255
    sheared = applied(HighestAffine(shear=30, fill_mode="constant"), images)[0, :, :, 0]
    columns = (sheared * np.arange(21)).sum(axis=1) / sheared.sum(axis=1)
    steps = np.diff(columns[3:18])
    np.testing.assert_allclose(np.abs(steps), np.tan(np.radians(30)), atol=0.15)
    assert columns[10] == 10


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (HighestColor(brightness=0.1), lambda x: np.minimum(x + 25.5, 255)),
        (LowestColor(brightness=0.1), lambda x: np.maximum(x - 25.5, 0)),
        (HighestColor(contrast=0.5), lambda x: np.clip((x - 127.5) * 1.5 + 127.5, 0, 255)),
        (LowestColor(contrast=1), lambda x: np.full_like(x, 127.5)),
        (LowestColor(saturation=1), lambda x: np.repeat(x.mean(axis=-1, keepdims=True), 3, axis=-1)),
        (HighestColor(hue=1), lambda x: x),
        (HighestColor(hue=1 / 3), lambda x: np.roll(x, 1, axis=-1)),
    ],
)
def test_colours_change_as_the_arguments_say(layer, expected):
    images = pictures()
    np.testing.assert_allclose(applied(layer, images), expected(images), atol=0.01)


def test_grey_stays_grey_under_hue_and_saturation():
    grey = np.repeat(pictures()[..., :1], 3, axis=-1)
    np.testing.assert_allclose(applied(RandomColor(saturation=0.9, hue=0.5, seed=1), grey), grey, atol=0.01)


def test_blur_spreads_a_point_and_keeps_its_light():
    images = np.zeros((1, 15, 15, 3), "float32")
    images[0, 7, 7] = 255
    blurred = applied(RandomBlur(probability=1, seed=0), images)[0, :, :, 0]
    assert blurred.sum() == pytest.approx(255, rel=1e-5)
    assert blurred.max() < 250
    assert np.argwhere(blurred > 0).min() == 5
    assert np.argwhere(blurred > 0).max() == 9
    np.testing.assert_allclose(blurred, blurred.T, rtol=1e-5)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("layer", [RandomBlur, RandomCutout])
def test_probability_is_the_share_of_images_changed(layer, probability):
    images = pictures(400, 16)
    changed = (applied(layer(probability=probability, seed=1), images) != images).any(axis=(1, 2, 3))
    assert changed.mean() == pytest.approx(probability, abs=0.08 if probability == 0.3 else 0.01)


def test_a_batch_of_which_no_image_is_blurred_passes():
    images = pictures(2)
    batches = tf.data.Dataset.from_tensors(images).repeat(20).map(RandomBlur(probability=0.1, seed=0))
    unchanged = [np.array_equal(batch, images) for batch in batches]
    assert any(unchanged)
    assert not all(unchanged)


@pytest.mark.parametrize("size", [0.25, 0.5])
def test_cutout_is_a_grey_square_of_its_size(size):
    images = np.zeros((200, 40, 40, 3), "float32")
    grey = applied(RandomCutout(probability=1, size=size, seed=0), images)[..., 0] == 127.5
    areas = grey.mean(axis=(1, 2))
    assert areas.max() == pytest.approx(size**2, rel=0.12)
    assert areas.min() > size**2 / 5  # a quarter is left of one at a corner
    for mask in grey:
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        assert np.array_equal(mask, np.outer(rows, columns))


@pytest.mark.parametrize(
    "make",
    [
        partial(RandomAffine, fill_mode="mirror"),
        partial(RandomAffine, zoom=1.0),
        partial(RandomAffine, zoom=-0.1),
        partial(RandomAffine, rotation=-5),
        partial(RandomColor, brightness=20),
        partial(RandomColor, hue=-0.1),
        partial(RandomBlur, probability=20),
        partial(RandomCutout, size=1.5),
        partial(RandomCutout, probability=-0.5),
    ],
)
def test_bad_arguments_are_refused(make):
    with pytest.raises(ValueError, match=r"must be .*Received: "):
        make()


@pytest.mark.parametrize("name", sorted(file.stem for file in (conf_dir() / "augmentation").glob("*.yaml")))
def test_yaml_files_build_layers(name: str):
    config = OmegaConf.to_container(OmegaConf.load(conf_dir() / "augmentation" / f"{name}.yaml"))
    images = pictures(100, 16)
    for node in config["layers"]:
        layer = instantiate(node, _execution_whitelist_=UNSAFE_DISABLE_EXECUTION_CHECKS)
        changed = applied(layer, images)
        assert changed.shape == images.shape
        assert not np.array_equal(changed, images)


def mixed(labels: np.ndarray, weights: np.ndarray, seed: int = 0, **alphas: float) -> tuple[np.ndarray, ...]:
    """Mix images of which each is of one colour: its own number, so that a pixel tells which image it is of."""
    n = len(labels)
    images = np.ones((n, 30, 30, 3), "float32") * np.arange(n, dtype="float32")[:, None, None, None]
    settings = {"mixup": 0.0, "cutmix": 0.0} | alphas
    generator = keras.random.SeedGenerator(seed)
    return tuple(map(np.asarray, mix_pairs(images, labels, weights, generator=generator, **settings)))


@pytest.mark.parametrize("outputs", [1, 4])
def test_mixup_mixes_labels_and_weights_as_pixels(outputs):
    n = 40
    # Labels and weights are linear in the image's number, as are the pixels: so must be the mixtures.
    number = np.arange(n, dtype="float32")
    slopes = np.arange(1, outputs + 1, dtype="float32")
    images, labels, weights = mixed(number[:, None] * slopes, 2 * number + 1, mixup=0.4)
    pixel = images[:, 0, 0, 0]
    np.testing.assert_allclose(images, np.broadcast_to(pixel[:, None, None, None], images.shape), rtol=1e-5)
    np.testing.assert_allclose(labels, pixel[:, None] * slopes, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(weights, 2 * pixel + 1, rtol=1e-4)
    assert np.any(np.abs(pixel - number) > 0.5)


@pytest.mark.parametrize("outputs", [1, 4])
def test_cutmix_mixes_labels_and_weights_by_area(outputs):
    n = 40
    given = np.random.default_rng(0).random((n, outputs)).astype("float32")
    given_weights = np.random.default_rng(1).random(n).astype("float32")
    images, labels, weights = mixed(given, given_weights, cutmix=1.0)
    others = 0
    for i, image in enumerate(images):
        numbers, counts = np.unique(image[:, :, 0].astype(int), return_counts=True)
        share = counts / counts.sum()
        np.testing.assert_allclose(labels[i], share @ given[numbers], rtol=1e-4)
        np.testing.assert_allclose(weights[i], share @ given_weights[numbers], rtol=1e-4)
        assert len(numbers) <= 2
        others += len(numbers) == 2
    assert others > n / 3


@pytest.mark.parametrize("alphas", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_mixed_one_hot_labels_stay_probabilities_and_the_seed_decides(alphas):
    labels, weights = np.eye(8, dtype="float32"), np.ones(8, "float32")
    first = mixed(labels, weights, seed=3, **alphas)
    np.testing.assert_allclose(first[1].sum(axis=1), 1, rtol=1e-5)
    assert first[1].min() >= 0
    np.testing.assert_allclose(first[2], 1, rtol=1e-5)
    for one, two in zip(first, mixed(labels, weights, seed=3, **alphas), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[1], mixed(labels, weights, seed=4, **alphas)[1])
