"""Plain CNNs of the reference studies: convolutions with pooling, then dense layers."""

from collections.abc import Sequence

import keras
from keras import layers

from melanoma.models.build import head

__all__ = ["plain_cnn"]


def plain_cnn(
    image_size: int,
    classes: int,
    *,
    filters: Sequence[int],
    padding: str = "valid",
    dense: Sequence[int] = (128,),
    dropout: float = 0.0,
) -> keras.Model:
    """Build a CNN: pixels / 255, 3x3 convolutions each with 2x2 max pooling, dense layers, and the head.

    Args:
        image_size: Side of the input in pixels.
        classes: Number of classes.
        filters: Output channels of each convolution.
        padding: `valid` or `same`.
        dense: Units of each dense layer.
        dropout: Dropout rate before the head.

    Returns:
        A model from pixels, shape (n, image_size, image_size, 3), 0 to 255, to logits.

    Raises:
        ValueError: If `filters` is empty, or the image is too small for the number of pooling layers.
    """
    if not filters:
        raise ValueError("model.filters must list the channels of at least one convolution. Received: []")
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = layers.Rescaling(1 / 255)(inputs)
    for number, channels in enumerate(filters):
        if x.shape[1] < (4 if padding == "valid" else 2):
            raise ValueError(
                f"The image is too small for {len(filters)} convolutions; raise data.image_size. Received: {image_size}"
            )
        x = layers.Conv2D(channels, 3, padding=padding, name=f"conv{number + 1}")(x)
        # The result equals ReLU before pooling, with a quarter of the computation.
        x = layers.ReLU()(layers.MaxPooling2D()(x))
    x = layers.Flatten()(x)
    for number, units in enumerate(dense):
        x = layers.Dense(units, activation="relu", name=f"dense{number + 1}")(x)
    return keras.Model(inputs, head(x, classes, dropout))
