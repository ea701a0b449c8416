"""Networks: their sizes, precision, preprocessing and weights, and the form in which they are saved."""

from functools import partial
from pathlib import Path
from urllib.error import URLError

import keras
import numpy as np
import pytest
from keras.applications import efficientnet_v2, mobilenet_v3, resnet, resnet_v2, vgg16
from omegaconf import OmegaConf

from melanoma.config.diagnose import compose_config
from melanoma.config.launch import register_resolvers
from melanoma.errors import ConfigError, ModelError
from melanoma.models.backbone import backbone, families, imagenet_weights
from melanoma.models.build import build_network, copy_weights, load_model_file, load_weights_file, with_probabilities
from melanoma.models.reference import plain_cnn
from melanoma.models.resnet_small import resnet_small
from melanoma.models.weights import initial_weights
from melanoma.workflows.fitting import builder_of

register_resolvers()
tiny_cnn = partial(plain_cnn, filters=(4, 8), dense=(8,))


def from_yaml(model: str, size: int, classes: int, policy: str = "float32", *overrides: str) -> keras.Model:
    config = compose_config("train", [f"model={model}", *overrides])
    resolved = OmegaConf.to_container(config, resolve=True)
    return build_network(builder_of(resolved["model"]), image_size=size, classes=classes, policy=policy)


def pixels(n: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (n, size, size, 3)).astype("float32")


def same_weights(a: keras.Model | keras.layers.Layer, b: keras.Model | keras.layers.Layer) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("model", "size", "classes", "parameters"),
    [
        ("m1", 180, 9, 3_318_185),
        ("m2", 180, 9, 1_442_345),
        ("m3", 180, 9, 1_442_345),
        ("tf_tutorial", 180, 9, 3_989_801),
        ("binary150", 150, 2, 4_828_481),
        ("binary240", 240, 2, 27_577_537),
        ("binary240_dropout", 240, 2, 27_577_537),
    ],
)
def test_reference_networks_have_the_published_number_of_parameters(model, size, classes, parameters):
    network = from_yaml(model, size, classes)
    assert network.count_params() == parameters
    assert network.output.shape == (None, 1 if classes == 2 else classes)


@pytest.mark.parametrize(("model", "rate"), [("binary240", None), ("binary240_dropout", 0.5), ("resnet_small", 0.2)])
def test_dropout_is_where_the_yaml_says(model, rate):
    found = [layer.rate for layer in from_yaml(model, 64, 2).layers if isinstance(layer, keras.layers.Dropout)]
    assert found == ([] if rate is None else [rate])


def test_resnet_small_is_small():
    assert 2e6 < from_yaml("resnet_small", 64, 9).count_params() < 4e6


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(("classes", "outputs"), [(2, 1), (9, 9)])
@pytest.mark.parametrize(
    "builder",
    [
        tiny_cnn,
        partial(resnet_small, widths=(4, 8), blocks=(1, 1)),
        partial(backbone, family="MobileNetV3Small", pretrained=False),
    ],
    ids=["plain_cnn", "resnet_small", "backbone"],
)
def test_networks_end_in_float32_logits(builder, classes, outputs, policy):
    before = keras.config.dtype_policy().name
    network = build_network(builder, image_size=32, classes=classes, policy=policy)
    assert keras.config.dtype_policy().name == before
    assert network.dtype_policy.name == policy
    logits = network(pixels(3, 32))
    assert (logits.shape, logits.dtype) == ((3, outputs), "float32")
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("classes", [2, 5])
def test_probabilities_survive_saving(tmp_path: Path, classes):
    network = build_network(tiny_cnn, image_size=16, classes=classes, policy="float32")
    model, images = with_probabilities(network), pixels(6, 16)
    expected, logits = model.predict(images, verbose=0), network.predict(images, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = load_model_file(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), expected)
    assert expected.shape == (6, classes)
    np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-6)
    if classes == 2:
        np.testing.assert_allclose(expected[:, 1], 1 / (1 + np.exp(-logits[:, 0])), rtol=1e-5)
    else:
        np.testing.assert_array_equal(expected.argmax(axis=1), logits.argmax(axis=1))


def test_probabilities_of_a_backbone_survive_saving(tmp_path: Path):
    model = with_probabilities(backbone(32, 3, family="MobileNetV3Small"))
    model.save(tmp_path / "model.keras")
    loaded, images = load_model_file(tmp_path / "model.keras"), pixels(2, 32)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize(("kind", "views"), [("flips", 4), ("dihedral", 8)])
def test_averaged_views_are_part_of_the_saved_model(tmp_path: Path, classes, kind, views):
    network, images = build_network(tiny_cnn, image_size=16, classes=classes, policy="float32"), pixels(3, 16)
    seen = [turned for one in (images, images[:, ::-1]) for turned in (one, one[:, :, ::-1])]
    seen += [one.transpose(0, 2, 1, 3) for one in seen]
    logits = np.mean([network.predict(one, verbose=0) for one in seen[:views]], axis=0)
    with_probabilities(network, kind).save(tmp_path / "model.keras")
    loaded = load_model_file(tmp_path / "model.keras")
    if classes == 2:
        logits = np.hstack([np.zeros_like(logits), logits])
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, rtol=1e-4)
    fresh = build_network(tiny_cnn, image_size=16, classes=classes, policy="float32")
    assert copy_weights(loaded, fresh)
    assert same_weights(fresh, network)


def test_the_stem_reduces_as_it_is_told():
    sizes = [resnet_small(64, 2, patch=patch).get_layer(index=2).output.shape[1] for patch in (1, 2, 4, 8)]
    assert sizes == [64, 32, 16, 8]


@pytest.mark.parametrize(
    ("builder", "fault"),
    [
        (partial(plain_cnn, filters=(4, 4, 4, 4)), "The image is too small for 4 convolutions; raise data.image_size"),
        (partial(plain_cnn, filters=(4,), padding="odd"), "The model cannot be built"),
        (partial(plain_cnn, filter=(4,)), "unexpected keyword argument 'filter'"),
        (partial(resnet_small, widths=(4, 8), blocks=(1,)), "widths and blocks must have the same length"),
        (partial(backbone, family="ResNet50V3"), "must be one of .*, ResNet50V2, .*Received: model.family=ResNet50V3"),
        (partial(backbone, family="ResNet50"), "ResNet50 cannot be built: .*at least 32.*data.image_size=16"),
        (lambda image_size, classes: tiny_cnn(image_size, classes + 1), r"must give 9 logits. Received: shape \(None"),
    ],
)
def test_a_network_that_cannot_be_is_a_fault_of_the_configuration(builder, fault):
    with pytest.raises(ConfigError, match=fault):
        build_network(builder, image_size=16, classes=9, policy="float32")


def test_families_are_those_of_keras_applications():
    assert {"MobileNetV3Small", "EfficientNetV2B0", "ConvNeXtTiny", "ResNet50V2", "VGG16"} < set(families())
    assert all(callable(getattr(keras.applications, family)) for family in families())


@pytest.mark.parametrize(
    ("family", "module", "size"),
    [
        ("ResNet50V2", resnet_v2, 32),
        ("VGG16", vgg16, 32),
        ("ResNet50", resnet, 32),
        ("MobileNetV3Small", mobilenet_v3, 64),
        ("EfficientNetV2B0", efficientnet_v2, 64),
    ],
)
def test_what_reaches_the_backbone_is_preprocessed_as_its_authors_did(family, module, size):
    network = backbone(size, 3, family=family)
    reaching = keras.Model(network.input, network.get_layer("backbone")._inbound_nodes[-1].input_tensors[0])
    images = pixels(2, size)
    expected = module.preprocess_input(images.copy())
    np.testing.assert_allclose(reaching.predict(images, verbose=0), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("pretrained", "moves"), [(True, False), (False, True)])
@pytest.mark.parametrize("family", ["MobileNetV3Small", "EfficientNetV2B0"])
def test_batch_statistics_of_given_weights_stay(family, pretrained, moves):
    network = backbone(32, 2, family=family, pretrained=pretrained)
    norm = next(x for x in network.get_layer("backbone").layers if isinstance(x, keras.layers.BatchNormalization))
    before = norm.moving_mean.numpy()
    network(pixels(4, 32), training=True)
    assert np.array_equal(norm.moving_mean.numpy(), before) != moves


@pytest.fixture
def source() -> keras.Model:
    return backbone(32, 5, family="MobileNetV3Small", pretrained=False)


@pytest.mark.parametrize(
    ("kind", "classes", "head_kept"),
    [
        ("whole.weights.h5", 5, True),
        ("backbone.weights.h5", 5, False),
        ("backbone.weights.h5", 2, False),
        ("whole.keras", 5, True),
        ("whole.keras", 2, False),
        ("probabilities.keras", 5, True),
        ("backbone.keras", 2, False),
    ],
)
def test_weights_files(tmp_path: Path, source, recwarn, kind, classes, head_kept):
    name, suffix = kind.split(".", 1)
    part = {"whole": source, "backbone": source.get_layer("backbone"), "probabilities": with_probabilities(source)}[
        name
    ]
    (part.save if suffix == "keras" else part.save_weights)(tmp_path / kind)
    recwarn.clear()
    target = backbone(32, classes, family="MobileNetV3Small")
    drawn = target.get_layer("head").get_weights()[0]
    load_weights_file(target, tmp_path / kind)
    assert same_weights(target.get_layer("backbone"), source.get_layer("backbone"))
    assert (classes == 5 and same_weights(target.get_layer("head"), source.get_layer("head"))) == head_kept
    assert np.array_equal(target.get_layer("head").get_weights()[0], drawn) != head_kept
    assert not [w for w in recwarn if "load" in str(w.message)]


def test_weights_saved_as_the_message_on_imagenet_says_can_be_loaded(tmp_path: Path):
    elsewhere = keras.applications.MobileNetV3Small(include_top=False, weights=None)
    elsewhere.save_weights(tmp_path / "MobileNetV3Small.weights.h5")
    target = backbone(32, 2, family="MobileNetV3Small")
    load_weights_file(target, tmp_path / "MobileNetV3Small.weights.h5")
    assert same_weights(target.get_layer("backbone"), elsewhere)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other.keras", "those of another network: its layers have other shapes"),
        ("other.weights.h5", "fit neither the network nor a backbone in it .*could not be loaded.*dense1"),
        ("broken.keras", "cannot be loaded .it is not a \\.keras file"),
        ("broken.weights.h5", "fit neither the network nor a backbone in it .*file signature not found"),
        ("none.keras", "There is no weights file"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, name, message):
    other = tiny_cnn(20, 3)
    other.save(tmp_path / "other.keras")
    other.save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "broken.keras").write_bytes(b"not a model")
    (tmp_path / "broken.weights.h5").write_bytes(b"not weights")
    with pytest.raises(ModelError, match=f"{message}.*Received: .*"):
        load_weights_file(tiny_cnn(16, 3), tmp_path / name)


@pytest.mark.parametrize(("classes", "head_kept"), [(3, True), (4, False), (2, False)])
def test_copy_weights_says_whether_the_head_came_along(classes, head_kept):
    given, target = tiny_cnn(16, 3), tiny_cnn(16, classes)
    drawn = target.get_layer("head").get_weights()[0]
    assert copy_weights(given, target) is head_kept
    for name in ("conv1", "conv2", "dense1"):
        assert same_weights(given.get_layer(name), target.get_layer(name))
    assert np.array_equal(target.get_layer("head").get_weights()[0], drawn) != head_kept


@pytest.mark.parametrize(
    ("weights", "with_head", "body", "head"),
    [
        (None, True, False, False),
        ("none", True, False, False),
        ("models:/lesions@best", True, True, True),
        ("models:/lesions@best", False, True, False),
    ],
)
def test_initial_weights(weights, with_head, body, head):
    given, target = tiny_cnn(16, 3), tiny_cnn(16, 3)
    saved = given if weights and ":/" in weights else None
    initial_weights(target, weights=weights, family=None, image_size=16, saved=saved, with_head=with_head)
    assert same_weights(given.get_layer("conv1"), target.get_layer("conv1")) == body
    assert same_weights(given.get_layer("head"), target.get_layer("head")) == head


def test_imagenet_weights_are_for_the_backbone_only():
    with pytest.raises(ModelError, match="ImageNet weights exist for model=backbone only"):
        initial_weights(tiny_cnn(16, 3), weights="imagenet", family=None, image_size=16)


def test_imagenet_weights_without_a_network(tmp_path: Path, monkeypatch):
    def urlretrieve(*arguments: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", urlretrieve)
    network = backbone(32, 2, family="MobileNetV3Small")
    before = network.get_layer("backbone").get_weights()[0].copy()
    with pytest.raises(ModelError, match=r"give model\.weights=FILE; or train from scratch with model\.weights=none"):
        imagenet_weights(network, family="MobileNetV3Small", image_size=32)
    assert np.array_equal(network.get_layer("backbone").get_weights()[0], before)


@pytest.mark.parametrize("function", [lambda x: x * 2, keras.ops.relu], ids=["lambda", "named function"])
def test_lambda_layers_are_refused(tmp_path: Path, function):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Flatten()(keras.Sequential([keras.layers.Lambda(function)])(inputs)))
    model.save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match="Lambda"):
        load_model_file(tmp_path / "model.keras")
