"""The augmentation `dermoscopy` as TensorFlow operations that XLA compiles, in two forms: `line_by_line` and `fast`.

Both map uint8 images of shape (n, side, side, 3) and an int32 seed of shape (2,) to float32 images of the same shape,
0 to 255. For the same seed they draw the same numbers, and differ by the rounding of the blur only.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import yaml

SETTINGS = Path(__file__).parents[2] / "conf" / "augmentation" / "dermoscopy.yaml"
NUMBERS = (
    "angle", "shear", "zoom_x", "zoom_y", "flip", "shift_x", "shift_y", "hue", "saturation", "contrast", "brightness",
    "blurred", "blur", "cut_y", "cut_x", "cut",
)  # fmt: skip
KERNEL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # of the blur, along each side
Numbers = dict[str, tf.Tensor]


def read_layers() -> dict[str, dict[str, Any]]:
    """The arguments of each layer of dermoscopy.yaml, by the name of its class."""
    layers = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))["layers"]
    return {layer.pop("_target_").rpartition(".")[2]: layer for layer in layers}


LAYERS = read_layers()
AFFINE, COLOR, BLUR, CUTOUT = LAYERS.values()
ROTATION, SHEAR = math.radians(AFFINE["rotation"]), math.radians(AFFINE["shear"])
if list(LAYERS) != ["RandomAffine", "RandomColor", "RandomBlur", "RandomCutout"] or AFFINE["fill_mode"] != "reflect":
    raise ValueError(f"{SETTINGS} has other layers or another fill_mode than this file is written for")


def line_by_line(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """As melanoma/training/augmentation.py does it, operation by operation."""
    numbers = draw(images.shape[0], seed)
    moved = resample(images, coefficients(numbers, images.shape[1]))
    blurred = blur_by_convolution(color_by_product(moved, numbers), numbers)
    return tf.where(boxes(numbers, images.shape[1])[..., None], 127.5, blurred)


def fast(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Colours as sums of three planes, and the blur as two matrix products in bfloat16.

    XLA joins the sums with their neighbours to one kernel, and on a GPU, convolutions of three channels are slow.
    """
    numbers = draw(images.shape[0], seed)
    moved = resample(images, coefficients(numbers, images.shape[1]))
    blurred = blur_by_product(color_by_sum(moved, numbers), numbers)
    cut = tf.where(boxes(numbers, images.shape[1])[:, None], 127.5, blurred)
    return tf.transpose(cut, (0, 2, 3, 1))


FORMS = {"line_by_line": line_by_line, "fast": fast}


def draw(n: int, seed: tf.Tensor) -> Numbers:
    """All random numbers of a batch in one draw: each of `NUMBERS` with shape (n,), 0 to 1."""
    uniform = tf.random.stateless_uniform((n, len(NUMBERS)), seed)
    return {name: uniform[:, column] for column, name in enumerate(NUMBERS)}


def between(number: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Stretch numbers of 0 to 1 to the range `low` to `high`."""
    return low + (high - low) * number


def coefficients(numbers: Numbers, side: int) -> tuple[tf.Tensor, ...]:
    """The coefficients a to f, each (n,), of the map from output pixels (x, y) to input pixels.

    The map is (a * x + b * y + c, d * x + e * y + f), as in RandomAffine.
    """
    angle, shear = between(numbers["angle"], -ROTATION, ROTATION), between(numbers["shear"], -SHEAR, SHEAR)
    zoom, shift = AFFINE["zoom"], AFFINE["shift"]
    scale_x, scale_y = (between(numbers[name], 1 - zoom, 1 + zoom) for name in ("zoom_x", "zoom_y"))
    if AFFINE["horizontal_flip"]:
        scale_x = scale_x * tf.where(numbers["flip"] < 0.5, -1.0, 1.0)
    shift_x, shift_y = (between(numbers[name], -shift, shift) * side for name in ("shift_x", "shift_y"))
    a, b = tf.cos(angle) * scale_x, -tf.sin(angle + shear) * scale_y
    d, e = tf.sin(angle) * scale_x, tf.cos(angle + shear) * scale_y
    centre = (side - 1) / 2
    return a, b, centre + shift_x - a * centre - b * centre, d, e, centre + shift_y - d * centre - e * centre


def reflect(pixel: tf.Tensor, side: int) -> tf.Tensor:
    """Mirror indices at the border as cv2.BORDER_REFLECT does: the pixel at the edge comes twice."""
    pixel = tf.math.floormod(pixel, 2 * side)
    return tf.minimum(pixel, 2 * side - 1 - pixel)


def resample(images: tf.Tensor, transform: tuple[tf.Tensor, ...]) -> tf.Tensor:
    """Bilinear resampling of uint8 images (n, side, side, 3) to float32 of the same shape, 0 to 255."""
    n, side = images.shape[0], images.shape[1]
    a, b, c, d, e, f = (coefficient[:, None, None] for coefficient in transform)
    x = tf.range(side, dtype=tf.float32)[None, None, :]
    y = tf.range(side, dtype=tf.float32)[None, :, None]
    source_x, source_y = a * x + b * y + c, d * x + e * y + f
    floor_x, floor_y = tf.floor(source_x), tf.floor(source_y)
    left, top = tf.cast(floor_x, tf.int32), tf.cast(floor_y, tf.int32)
    columns = reflect(left, side), reflect(left + 1, side)
    rows = reflect(top, side), reflect(top + 1, side)
    pixels = tf.reshape(images, (n * side * side, 3))
    first = (tf.range(n) * (side * side))[:, None, None]

    def at(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.gather(pixels, first + row * side + column), tf.float32)

    share_x, share_y = (source_x - floor_x)[..., None], (source_y - floor_y)[..., None]
    upper, lower = (at(row, columns[0]) * (1 - share_x) + at(row, columns[1]) * share_x for row in rows)
    return upper * (1 - share_y) + lower * share_y


def color_map(numbers: Numbers) -> tuple[tf.Tensor, tf.Tensor]:
    """The matrix (n, 3, 3) and the offset (n, 1, 1) that change the colours, as in RandomColor."""
    ranges = {name: numbers[name][:, None, None] for name in ("hue", "saturation", "contrast", "brightness")}
    angle = between(ranges["hue"], -COLOR["hue"], COLOR["hue"]) * 2 * math.pi
    saturation, contrast = (between(ranges[n], 1 - COLOR[n], 1 + COLOR[n]) for n in ("saturation", "contrast"))
    offset = between(ranges["brightness"], -COLOR["brightness"], COLOR["brightness"]) * 255
    grey = tf.fill((3, 3), 1 / 3)
    cross = tf.constant([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = tf.cos(angle) * (tf.eye(3) - grey) + tf.sin(angle) * cross
    return contrast * (grey + saturation * turn), 127.5 * (1 - contrast) + offset


def color_by_product(images: tf.Tensor, numbers: Numbers) -> tf.Tensor:
    """Change the colours of images (n, side, side, 3) by a matrix product; shape and range are unchanged."""
    matrix, offset = color_map(numbers)
    pixels = tf.reshape(images, (images.shape[0], -1, 3))
    return tf.clip_by_value(tf.reshape(tf.matmul(pixels, matrix, transpose_b=True) + offset, images.shape), 0, 255)


def color_by_sum(images: tf.Tensor, numbers: Numbers) -> tf.Tensor:
    """Change the colours of images (n, side, side, 3) and return them as planes (n, 3, side, side), 0 to 255."""
    matrix, offset = color_map(numbers)
    sources, planes = [images[..., channel] for channel in range(3)], []
    for target in range(3):
        parts = (matrix[:, target, channel][:, None, None] * source for channel, source in enumerate(sources))
        planes.append(tf.clip_by_value(sum(parts) + offset, 0, 255))
    return tf.stack(planes, axis=1)


def blur_amount(numbers: Numbers) -> tf.Tensor:
    """The strength of the blur (n, 1, 1, 1): 0.3 to 1, and 0 for images that stay sharp."""
    chosen = numbers["blurred"] < BLUR["probability"]
    return tf.where(chosen, between(numbers["blur"], 0.3, 1.0), 0.0)[:, None, None, None]


def blur_by_convolution(images: tf.Tensor, numbers: Numbers) -> tf.Tensor:
    """Blur images (n, side, side, 3) by two depthwise convolutions; shape and range are unchanged."""
    kernel = tf.tile(tf.constant(KERNEL)[:, None, None, None], (1, 1, 3, 1))
    blurred = tf.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), "REFLECT")
    blurred = tf.nn.depthwise_conv2d(blurred, kernel, (1, 1, 1, 1), "VALID")
    blurred = tf.nn.depthwise_conv2d(blurred, tf.transpose(kernel, (1, 0, 2, 3)), (1, 1, 1, 1), "VALID")
    return images + blur_amount(numbers) * (blurred - images)


def blur_by_product(planes: tf.Tensor, numbers: Numbers) -> tf.Tensor:
    """Blur planes (n, 3, side, side) by a matrix product along each side; shape and range are unchanged."""
    matrix = tf.constant(blur_matrix(planes.shape[2]), tf.bfloat16)
    blurred = tf.matmul(tf.matmul(matrix, tf.cast(planes, tf.bfloat16)), matrix, transpose_b=True)
    return planes + blur_amount(numbers) * (tf.cast(blurred, tf.float32) - planes)


def blur_matrix(side: int) -> np.ndarray:
    """The blur along one side as a matrix (side, side); its border is REFLECT of tf.pad: the edge comes once."""
    matrix = np.zeros((side, side), np.float32)
    for row in range(side):
        for step, weight in enumerate(KERNEL, -2):
            column = abs(row + step)
            matrix[row, column if column < side else 2 * side - 2 - column] += weight
    return matrix


def boxes(numbers: Numbers, side: int) -> tf.Tensor:
    """Masks (n, side, side) of the squares to cover, as in RandomCutout."""
    line = tf.linspace(0.0, 1.0, side)[None, :]
    rows, columns = (tf.abs(line - numbers[name][:, None]) < CUTOUT["size"] / 2 for name in ("cut_y", "cut_x"))
    return rows[:, :, None] & columns[:, None, :] & (numbers["cut"] < CUTOUT["probability"])[:, None, None]
