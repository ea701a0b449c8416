"""Networks of keras.applications with a new head."""

import inspect
import sys

import keras
from keras import layers

from melanoma.errors import ConfigError, ModelError
from melanoma.models.build import head

__all__ = ["backbone", "families", "imagenet_weights"]


def backbone(
    image_size: int, classes: int, *, family: str, dropout: float = 0.2, pretrained: bool = True
) -> keras.Model:
    """Build a keras.applications network with its own preprocessing, global average pooling and a new head.

    Args:
        image_size: Side of the input in pixels.
        classes: Number of classes.
        family: Name in keras.applications, such as EfficientNetV2B0, ConvNeXtTiny, MobileNetV3Large or ResNet50V2.
        dropout: Dropout rate before the head.
        pretrained: Whether pretrained weights will be loaded. If so, batch normalization is frozen.

    Returns:
        A model from pixels, shape (n, image_size, image_size, 3), 0 to 255, to logits. Its layer `backbone` is the
        network without its top.

    Raises:
        ConfigError: If the family does not exist or does not support the image size.
    """
    inputs = keras.Input((image_size, image_size, 3), name="image")
    network = _network(family, image_size, weights=None)
    if pretrained:
        for layer in network.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.trainable = False  # in Keras, this also selects inference mode
    features = network(_preprocessed(family, inputs))
    x = layers.GlobalAveragePooling2D()(features)
    return keras.Model(inputs, head(x, classes, dropout))


def families() -> list[str]:
    """Return all valid values of `family`."""
    return sorted(
        name
        for name, function in vars(keras.applications).items()
        if name[0].isupper() and "include_top" in inspect.signature(function).parameters
    )


def imagenet_weights(model: keras.Model, *, family: str, image_size: int) -> None:
    """Load ImageNet weights into the `backbone` layer of a model, from Keras's cache or by download.

    Raises:
        ModelError: If the weights are not in the cache and cannot be downloaded.
    """
    try:
        source = _network(family, image_size, weights="imagenet")
    except ConfigError:
        raise
    except Exception as error:  # Keras raises a bare Exception if a download fails
        raise ModelError(
            f"The ImageNet weights of {family} cannot be fetched, and are not in Keras's cache. On a machine with a "
            f"network run keras.applications.{family}(include_top=False).save_weights('{family}.weights.h5'), copy the "
            f"file here and give model.weights=FILE; or train from scratch with model.weights=none. Received: {error}"
        ) from error
    model.get_layer("backbone").set_weights(source.get_weights())


def _network(family: str, image_size: int, weights: str | None) -> keras.Model:
    function = getattr(keras.applications, family, None)
    if family not in families() or function is None:
        raise ConfigError([f"model.family must be one of {', '.join(families())}. Received: model.family={family}"])
    options = {"include_preprocessing": True} if _preprocesses_itself(family) else {}
    try:
        network = function(include_top=False, weights=weights, input_shape=(image_size, image_size, 3), **options)
    except ValueError as error:
        raise ConfigError([f"{family} cannot be built: {error} Received: data.image_size={image_size}"]) from error
    network.name = "backbone"  # set afterwards, because EfficientNetV2 uses the name to look up its architecture
    return network


def _preprocesses_itself(family: str) -> bool:
    return "include_preprocessing" in inspect.signature(getattr(keras.applications, family)).parameters


def _preprocessed(family: str, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Apply the family's own preprocessing in the graph, so that it is saved with the model."""
    function = getattr(keras.applications, family, None)
    if function is None or _preprocesses_itself(family):
        return inputs
    return sys.modules[inspect.unwrap(function).__module__].preprocess_input(inputs)
