"""Small residual network for training from scratch."""

from collections.abc import Sequence

import keras
from keras import layers

from melanoma.models.build import head

__all__ = ["resnet_small"]


def resnet_small(
    image_size: int,
    classes: int,
    *,
    widths: Sequence[int] = (32, 64, 128, 256),
    blocks: Sequence[int] = (1, 2, 2, 2),
    patch: int = 2,
    dropout: float = 0.2,
) -> keras.Model:
    """Build a residual network (He et al. 2015, arXiv:1512.03385) with batch normalization and global average pooling.

    The scale of the last normalization of each block is initialized to zero, so that the network is initially shallow
    (Goyal et al. 2017, arXiv:1706.02677). Shortcuts that halve the resolution use average pooling before the projection
    (He et al. 2018, arXiv:1812.01187).

    Args:
        image_size: Side of the input in pixels.
        classes: Number of classes.
        widths: Channels of each stage. Each stage except the first halves the resolution.
        blocks: Number of residual blocks of each stage.
        patch: Factor by which the stem reduces the resolution. The stem is a 3x3 convolution for 2, and a cheaper
            convolution of non-overlapping patches for larger factors (as in ViT and ConvNeXt; Liu et al. 2022,
            arXiv:2201.03545).
        dropout: Dropout rate before the head.

    Returns:
        A model from pixels, shape (n, image_size, image_size, 3), 0 to 255, to logits.
    """
    if len(widths) != len(blocks):
        raise ValueError(f"widths and blocks must have the same length. Received: widths={widths} blocks={blocks}")
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = _convolution(x, widths[0], kernel=max(patch, 3), stride=patch)
    x = layers.ReLU()(x)
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        for number in range(count):
            x = _block(x, width, stride=2 if stage and not number else 1)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, head(x, classes, dropout))


def _block(x: keras.KerasTensor, width: int, stride: int) -> keras.KerasTensor:
    shortcut = x
    if stride > 1:
        shortcut = layers.AveragePooling2D(2, padding="same")(shortcut)
    if shortcut.shape[-1] != width:
        shortcut = _convolution(shortcut, width, kernel=1)
    x = layers.ReLU()(_convolution(x, width, stride=stride))
    x = _convolution(x, width, gamma="zeros")
    return layers.ReLU()(layers.Add()([x, shortcut]))


def _convolution(
    x: keras.KerasTensor, width: int, kernel: int = 3, stride: int = 1, gamma: str = "ones"
) -> keras.KerasTensor:
    x = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    return layers.BatchNormalization(momentum=0.9, gamma_initializer=gamma)(x)
