"""Features inside a network: the moments of its maps, at no cost to its predictions."""

from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest

from melanoma.evaluation.calibrated_model import with_calibration
from melanoma.evaluation.calibration import Temperature
from melanoma.models.backbone import backbone
from melanoma.models.build import build_network, head, with_probabilities
from melanoma.models.features import with_features
from melanoma.models.reference import plain_cnn
from melanoma.models.resnet_small import resnet_small

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.float32)
BUILDERS = {
    "plain": partial(plain_cnn, filters=(4, 8)),
    "residual": partial(resnet_small, widths=(4, 8), blocks=(1, 2)),
    "residual with patches": partial(resnet_small, widths=(4, 8), blocks=(1, 2), patch=4),
    "backbone": partial(backbone, family="MobileNetV3Small", pretrained=False),
}


def model_of(builder, classes: int = 3, views: str = "none") -> keras.Model:
    keras.utils.set_random_seed(0)
    return with_probabilities(build_network(builder, image_size=32, classes=classes, policy="float32"), views)


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("views", ["none", "flips"])
def test_the_probabilities_are_the_same_to_the_bit(name: str, views: str):
    model = model_of(BUILDERS[name], views=views)
    probabilities, *features = with_features(model).predict(PIXELS, verbose=0)
    np.testing.assert_array_equal(probabilities, model.predict(PIXELS, verbose=0))
    assert features
    assert all(np.isfinite(one).all() and one.shape[0] == len(PIXELS) for one in features)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_features_are_moments_of_the_last_maps_of_each_resolution(classes: int):
    model = model_of(BUILDERS["residual"], classes)
    _, *features = with_features(model).predict(PIXELS, verbose=0)
    maps = [layer.output for layer in model.layers if isinstance(layer, keras.layers.ReLU)]
    last = {one.shape[1]: one for one in maps}
    assert sorted(last) == [8, 16]
    for side, found in zip((16, 8), features[-2:], strict=True):
        values = keras.Model(model.input, last[side]).predict(PIXELS, verbose=0)
        expected = np.concatenate([values.mean(axis=(1, 2)), values.std(axis=(1, 2))], axis=1)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_large_maps_are_thinned():
    pixels = keras.Input((64, 64, 3))
    maps = keras.layers.Rescaling(1 / 255)(pixels)
    outputs = keras.layers.Activation("softmax")(head(keras.layers.GlobalAveragePooling2D()(maps), 3))
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3)).astype(np.float32)
    _, features = with_features(keras.Model(pixels, outputs)).predict(images, verbose=0)
    thinned = images[:, ::4, ::4] / 255
    np.testing.assert_allclose(features[:, :3], thinned.mean(axis=(1, 2)), atol=1e-5)


@pytest.mark.parametrize("views", ["none", "dihedral"])
def test_a_saved_and_calibrated_model_has_the_features_of_its_network(tmp_path: Path, views: str):
    plain = model_of(BUILDERS["plain"], classes=2)
    _, *expected = with_features(plain).predict(PIXELS, verbose=0)
    with_calibration(model_of(BUILDERS["plain"], 2, views), Temperature(2.0)).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for _ in range(2):  # a second one may not clash with the first
        _, *found = with_features(loaded).predict(PIXELS, verbose=0)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


class Subclassed(keras.Model):
    """A network that is no graph of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.last = keras.layers.Conv2D(4, 3), keras.layers.Dense(3, "softmax")

    def call(self, images):
        return self.last(keras.ops.mean(self.convolution(images), axis=(1, 2)))


def test_a_network_without_feature_maps_has_none():
    pixels = keras.Input((32, 32, 3))
    dense = keras.Model(pixels, keras.layers.Dense(3, "softmax")(keras.layers.Flatten()(pixels)))
    assert with_features(dense) is None
    other = Subclassed()
    other(PIXELS)
    assert with_features(other) is None


def _reused() -> keras.Model:
    """Its layers belong to another model, too."""
    inner = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(4, 3, activation="relu")])
    pixels = keras.Input((32, 32, 3))
    maps = pixels
    for layer in inner.layers:
        maps = layer(maps)
    return keras.Model(pixels, keras.layers.Dense(3, "softmax")(keras.layers.GlobalAveragePooling2D()(maps)))


def _of_any_size() -> keras.Model:
    pixels = keras.Input((None, None, 3))
    maps = keras.layers.Conv2D(4, 3, activation="relu", name="melanoma_moments_0")(pixels)
    return keras.Model(pixels, keras.layers.Dense(3, "softmax")(keras.layers.GlobalAveragePooling2D()(maps)))


@pytest.mark.parametrize("build", [_reused, _of_any_size])
def test_an_unusual_network_has_features_or_none_but_no_error(build):
    model = build()
    found = with_features(model)
    if found is not None:
        np.testing.assert_array_equal(found.predict(PIXELS, verbose=0)[0], model.predict(PIXELS, verbose=0))
