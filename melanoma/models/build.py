"""What all networks share: the head, precision, initial weights, and the form in which they are saved."""

import warnings
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import keras
from keras import layers

from melanoma.errors import ConfigError, ModelError
from melanoma.models.model_files import UnsafeModel, load_keras_file

__all__ = [
    "build_network",
    "copy_weights",
    "head",
    "load_model_file",
    "load_weights_file",
    "with_probabilities",
]

HEAD = "head"


def head(features: keras.KerasTensor, classes: int, dropout: float = 0.0) -> keras.KerasTensor:
    """Dropout and the dense layer of logits: one for two classes, else one a class; always float32."""
    if dropout:
        features = layers.Dropout(dropout)(features)
    return layers.Dense(1 if classes == 2 else classes, dtype="float32", name=HEAD)(features)


def build_network(builder: Callable[..., keras.Model], *, image_size: int, classes: int, policy: str) -> keras.Model:
    """Build a network of logits under a Keras dtype policy.

    Raises:
        ConfigError: the builder refuses its arguments, or its network does not fit image size and classes.
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


def with_probabilities(network: keras.Model) -> keras.Model:
    """The network followed by the softmax: class probabilities of shape (n, classes), also for two classes."""
    logits = network.output
    if logits.shape[-1] == 1:
        logits = layers.Concatenate(dtype="float32")([keras.ops.zeros_like(logits), logits])
    probabilities = layers.Activation("softmax", dtype="float32", name="probabilities")(logits)
    return keras.Model(network.input, probabilities, name="melanoma")


def copy_weights(source: keras.Model, target: keras.Model, with_head: bool = True) -> bool:
    """Copy weights between models of one architecture; the head too, if wanted and of the same number of outputs.

    Returns:
        Whether the head was copied.

    Raises:
        ModelError: the networks differ in more than the head.
    """
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
    """Load a `.keras` model or a `.weights.h5` file, of the whole network or of its `backbone`.

    Raises:
        ModelError: no such file, or weights of another network.
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
                warnings.simplefilter("ignore")  # one for each layer that the file does not have
                target.load_weights(path)
            return
        except (ValueError, OSError, KeyError) as error:
            reasons.append(str(error).splitlines()[0])
    raise ModelError(
        f"The weights fit neither the network nor a backbone in it ({reasons[0]}). Received: model.weights={path}"
    )


def load_model_file(path: Path) -> keras.Model:
    """Load a saved Keras model without running code of its own.

    Raises:
        ModelError: it cannot be read, or has layers that run arbitrary code.
    """
    try:
        return load_keras_file(path)
    except UnsafeModel as error:
        raise ModelError(f"The model is refused: {error}. Received: {path}") from error
    except (ValueError, OSError, TypeError, KeyError) as error:
        raise ModelError(f"The model cannot be loaded ({str(error).splitlines()[0]}). Received: {path}") from error


def _body(model: keras.Model) -> list:
    """What comes before the head; after it a saved model may have a calibration."""
    return [w for layer in takewhile(lambda layer: layer.name != HEAD, model.layers) for w in layer.weights]
