"""Functions for all networks: the head, precision, initial weights, and the saved form."""

import warnings
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Literal

import keras
from keras import layers

from melanoma.errors import ConfigError, ModelError
from melanoma.models.features import AVERAGED, HEAD, network_of
from melanoma.models.model_files import UnsafeModel, load_keras_file

__all__ = [
    "build_network",
    "copy_weights",
    "head",
    "load_model_file",
    "load_weights_file",
    "with_probabilities",
]


def head(features: keras.KerasTensor, classes: int, dropout: float = 0.0) -> keras.KerasTensor:
    """Add dropout and the float32 dense layer of logits: one logit for two classes, else one per class."""
    if dropout:
        features = layers.Dropout(dropout)(features)
    return layers.Dense(1 if classes == 2 else classes, dtype="float32", name=HEAD)(features)


def build_network(builder: Callable[..., keras.Model], *, image_size: int, classes: int, policy: str) -> keras.Model:
    """Build a network that returns logits, under a Keras dtype policy.

    Raises:
        ConfigError: If the builder rejects its arguments, or the output of the network does not match the classes.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        network = builder(image_size=image_size, classes=classes)
    except (TypeError, ValueError) as error:
        raise ConfigError([f"The model cannot be built: {error}"]) from error
    finally:
        keras.config.set_dtype_policy(before)
    outputs = 1 if classes == 2 else classes
    if tuple(network.output.shape) != (None, outputs):
        raise ConfigError(
            [f"A model for {classes} classes must give {outputs} logits. Received: shape {network.output.shape}"]
        )
    return network


def with_probabilities(
    network: keras.Model, test_time_augmentation: Literal["none", "flips", "dihedral"] = "none"
) -> keras.Model:
    """Add a softmax that returns class probabilities of shape (n, classes), including for two classes.

    Args:
        network: Network from pixels to logits.
        test_time_augmentation: `flips` averages the logits of the image and its mirror images (4 views), `dihedral`
            those of all its mirrored and quarter-turned images (8 views).
    """
    images, logits = network.input, network.output
    if test_time_augmentation != "none":
        images = keras.Input(images.shape[1:], name="image")
        logits = _averaged(network, images, turned=test_time_augmentation == "dihedral")
    if logits.shape[-1] == 1:
        logits = layers.Concatenate(dtype="float32")([keras.ops.zeros_like(logits), logits])
    probabilities = layers.Activation("softmax", dtype="float32", name="probabilities")(logits)
    return keras.Model(images, probabilities, name="melanoma")


def _averaged(network: keras.Model, images: keras.KerasTensor, turned: bool) -> keras.KerasTensor:
    network.name = AVERAGED
    views = [images, keras.ops.flip(images, axis=2)]
    views += [keras.ops.flip(view, axis=1) for view in views]
    if turned:
        views += [keras.ops.transpose(view, (0, 2, 1, 3)) for view in views]
    # One batch instead of one call per view: the smaller graph is faster to trace and export.
    logits = network(keras.ops.concatenate(views, axis=0))
    return keras.ops.mean(keras.ops.reshape(logits, (len(views), -1, logits.shape[-1])), axis=0)


def copy_weights(source: keras.Model, target: keras.Model, with_head: bool = True) -> bool:
    """Copy weights between models of the same architecture.

    The head is copied if `with_head` is true and both models have the same number of outputs.

    Returns:
        Whether the head was copied.

    Raises:
        ModelError: If the networks differ in more than the head.
    """
    source = network_of(source)
    given, wanted = _body(source), _body(target)
    if [w.shape for w in given] != [w.shape for w in wanted]:
        raise ModelError(
            "model.weights are those of another network: its layers have other shapes. Give weights of the same model. "
            f"Received: {len(given)} arrays where {len(wanted)} were expected"
        )
    for theirs, ours in zip(given, wanted, strict=True):
        ours.assign(theirs)
    theirs_head = [w for layer in source.layers if layer.name == HEAD for w in layer.weights]
    ours_head = target.get_layer(HEAD).weights
    same = with_head and [w.shape for w in theirs_head] == [w.shape for w in ours_head]
    if same:
        for theirs, ours in zip(theirs_head, ours_head, strict=True):
            ours.assign(theirs)
    return same


def load_weights_file(network: keras.Model, path: Path) -> None:
    """Load the weights of a `.keras` model or a `.weights.h5` file, for the whole network or its `backbone`.

    Raises:
        ModelError: If the file does not exist or has the weights of another network.
    """
    if not path.is_file():
        raise ModelError(
            f"There is no weights file; expected imagenet, none, a file or models:/NAME@ALIAS. Received: {path}"
        )
    if path.suffix == ".keras":
        copy_weights(load_model_file(path), network)
        return
    targets = [network, *(layer for layer in network.layers if layer.name == "backbone")]
    reasons = []
    for target in targets:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # one per layer that the file lacks
                target.load_weights(path)
            return
        except (ValueError, OSError, KeyError) as error:
            reasons.append(str(error).splitlines()[0])
    raise ModelError(
        f"The weights fit neither the network nor a backbone in it ({reasons[0]}). Received: model.weights={path}"
    )


def load_model_file(path: Path) -> keras.Model:
    """Load a saved Keras model without running code that it contains.

    Raises:
        ModelError: If the file cannot be read, or is unsafe to load; see `load_keras_file`.
    """
    try:
        return load_keras_file(path)
    except UnsafeModel as error:
        raise ModelError(f"The model is refused: {error}. Received: {path}") from error
    except (ValueError, OSError, TypeError, KeyError) as error:
        raise ModelError(f"The model cannot be loaded ({str(error).splitlines()[0]}). Received: {path}") from error


def _body(model: keras.Model) -> list:
    """Return the weights before the head. After it, a saved model may have calibration layers."""
    return [w for layer in takewhile(lambda layer: layer.name != HEAD, model.layers) for w in layer.weights]
