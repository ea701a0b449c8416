"""Similarity of two thumbnails after alignment by rotation, mirroring, shift and scale.

Scale and shift are estimated by Gauss-Newton steps from coarse to fine (Lucas & Kanade 1981). The aligned thumbnails
are compared by their local structure, with brightness and contrast normalized around each pixel. Global shapes do not
discriminate, because dermoscopic images of different lesions often share them: a dark spot on pale skin, or a bright
disc on black.
"""

from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["similarity"]

_CROP = 0.13  # maximum crop between two images, as a share of a side
_UNALIGNED_LEAST, _COARSE_LEAST = 0.65, 0.85  # minimum correlation at 16 pixels; pairs below it are rejected
# Minimum correlation of local structure at 32 pixels. Of the 121,757 pairs of neighbours in melanoma10k, 17% exceed it.
# Pairs with a final similarity of 0.5 have 0.40 or more here, pairs with 0.7 have 0.50 or more.
_STRUCTURE_LEAST = 0.3
_DARK = 48  # grey level of the dark surround of a dermoscopic image, which images of different lesions share
_LIT_LEAST = 0.03  # minimum share of pixels outside that surround
_SIGMA, _NOISE = 2.0, 4.0  # of local contrast: radius in pixels at size 64, and grey levels of noise
# Two blurred images can agree in all that is left of them. If both have less fine detail than these limits (in grey
# levels, and as a share of the detail at twice the scale), they must agree more. Of 4,000 images of two public sets,
# 0.1% are below them, and all after a blur with a radius of 3% of a side.
_DETAIL_LEAST, _DETAIL_SHARE_LEAST, _BLURRED_LEAST = 0.6, 0.37, 0.95
_IDENTITY = np.array([1, 0, 1, 0], np.float32)  # a window: scale and shift along x, then y
_FINER = np.array([1, 2, 1, 2], np.float32)  # factors for a window at twice the size
_SURROUND = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
Images = NDArray[Any]  # float32
_ORIENTATIONS = tuple(product(range(4), (False, True)))


def similarity(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Images:
    """Correlate the local structure of each pair, after alignment by quarter turns, mirroring and small crops.

    Args:
        first: Grey thumbnails, shape (pairs, 64, 64).
        second: Grey thumbnails to compare with, of the same shape.

    Returns:
        Similarity from -1 to 1, shape (pairs,): 1 for the same image, 0 for pairs that were rejected at a smaller size.
    """
    scores = np.zeros(len(first), np.float32)
    coarse_first, coarse_second = (_halved(_halved(images.astype(np.float32))) for images in (first, second))
    turns, coarse_second, agreement = _best_orientation(coarse_first, coarse_second)
    near = np.flatnonzero(agreement > _UNALIGNED_LEAST)
    if not len(near):
        return scores
    windows, agreement = _aligned(coarse_first[near], coarse_second[near], steps=4)
    near, windows = near[agreement > _COARSE_LEAST], windows[agreement > _COARSE_LEAST]
    if not len(near):
        return scores
    fixed = first[near].astype(np.float32)
    moving = np.stack([_turned(second[i], *_ORIENTATIONS[turns[i]]) for i in near]).astype(np.float32)
    half_fixed, half_moving, windows = _halved(fixed), _halved(moving), windows * _FINER
    alike = _structure_correlation(half_fixed, half_moving, windows, sigma=_SIGMA / 2) > _STRUCTURE_LEAST
    near, fixed, moving = near[alike], fixed[alike], moving[alike]
    if not len(near):
        return scores
    windows, agreement = _aligned(half_fixed[alike], half_moving[alike], steps=3, windows=windows[alike])
    closer = np.flatnonzero(agreement > _COARSE_LEAST)
    if len(closer):
        fixed, moving, windows = fixed[closer], moving[closer], windows[closer] * _FINER
        windows, _ = _aligned(fixed, moving, steps=1, windows=windows)
        found = _structure_correlation(fixed, moving, windows, sigma=_SIGMA)
        found[(found < _BLURRED_LEAST) & _blurred(fixed) & _blurred(moving)] = 0
        scores[near[closer]] = found
    return scores


def _blurred(images: Images) -> NDArray[np.bool_]:
    """Return which images have little fine detail outside their dark surround."""
    lit = _lit(images)
    lit = np.where((lit.mean(axis=(1, 2)) < _LIT_LEAST)[:, None, None], 1, lit)
    fine, coarse = (_detail(images, sigma, lit) for sigma in (1.0, 2.0))
    return (fine < _DETAIL_LEAST) | (fine < _DETAIL_SHARE_LEAST * coarse)


def _detail(images: Images, sigma: float, lit: Images) -> Images:
    """Return the root mean square of what a blur with this radius removes, in grey levels."""
    removed = np.stack([image - cv2.GaussianBlur(image, (0, 0), sigma) for image in images])
    return np.sqrt((removed**2 * lit).sum(axis=(1, 2)) / lit.sum(axis=(1, 2)))


def _structure_correlation(fixed: Images, moving: Images, windows: Images, sigma: float) -> Images:
    warped, overlap = _warped(moving, windows)
    lit = overlap * _lit(fixed) * _lit(warped)
    lit = np.where((lit.mean(axis=(1, 2)) < _LIT_LEAST)[:, None, None], overlap, lit)
    return _correlation(_local_contrast(fixed, sigma), _local_contrast(warped, sigma), lit)


def _lit(images: Images) -> Images:
    """Return 1 for pixels that are not in a dark area or at its edge, else 0."""
    return np.stack([1 - cv2.dilate((image < _DARK).astype(np.float32), _SURROUND) for image in images])


def _local_contrast(images: Images, sigma: float) -> Images:
    def one(image: Images) -> Images:
        detail = image - cv2.GaussianBlur(image, (0, 0), sigma)
        return detail / np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), sigma) + _NOISE**2)

    return np.stack([one(image) for image in images])


def _best_orientation(fixed: Images, moving: Images) -> tuple[NDArray[np.intp], Images, Images]:
    """Return the best of the eight orientations of each moving image, the images so oriented, and their correlation."""
    everywhere = np.ones_like(fixed)
    turned = [np.rot90(moving, turns, axes=(1, 2)) for turns in range(4)]
    turned = [variant for image in turned for variant in (image, image[:, :, ::-1])]
    fits = np.stack([_correlation(fixed, variant, everywhere) for variant in turned])
    best = np.argmax(fits, axis=0)
    chosen = np.empty_like(moving)
    for number, variant in enumerate(turned):
        chosen[best == number] = variant[best == number]
    return best, chosen, fits.max(axis=0)


def _turned(image: NDArray[np.uint8], turns: int, mirrored: bool) -> NDArray[np.uint8]:
    turned = np.rot90(image, turns)
    return turned[:, ::-1] if mirrored else turned


def _aligned(
    fixed: Images,
    moving: Images,
    *,
    steps: int,
    windows: Images | None = None,
) -> tuple[Images, Images]:
    """Return the window of each moving image that best fits the fixed image, and its correlation.

    A window is scale and shift (pixels) along x, then y. Gain and offset of brightness are estimated as well.
    """
    count, size, _ = fixed.shape
    centred = (np.arange(size) - (size - 1) / 2).astype(np.float32)
    if windows is None:
        windows = np.tile(_IDENTITY, (count, 1))
    best, best_windows = np.full(count, -1, np.float32), windows.copy()
    slopes_y, slopes_x = np.gradient(moving, axis=(1, 2))
    reach = np.array([2 * _CROP, _CROP * size, 2 * _CROP, _CROP * size], np.float32)
    for step in range(steps + 1):
        along_x, inside_x = _sampling(size, windows[:, 0], windows[:, 1])
        along_y, inside_y = _sampling(size, windows[:, 2], windows[:, 3])
        along_x = along_x.transpose(0, 2, 1)
        overlap = (inside_y[:, :, None] & inside_x[:, None, :]).astype(np.float32)
        warped = along_y @ moving @ along_x
        fit = _correlation(fixed, warped, overlap)
        better = fit > best
        best[better], best_windows[better] = fit[better], windows[better]
        if step == steps:
            break
        slope_x, slope_y = along_y @ slopes_x @ along_x, along_y @ slopes_y @ along_x
        columns = [slope_x * centred, slope_x, slope_y * centred[:, None], slope_y, warped, np.ones_like(warped)]
        design = (np.stack(columns, axis=1) * overlap[:, None]).reshape(count, 6, -1)
        residual = ((fixed - warped) * overlap).reshape(count, -1, 1)
        normal = design @ design.transpose(0, 2, 1)
        normal += np.eye(6, dtype=np.float32) * (1e-3 * np.einsum("kii->ki", normal)[:, :, None] + 1e-3)
        change = np.linalg.solve(normal, design @ residual)[:, :4, 0]
        windows = windows + np.clip(change, -reach / 3, reach / 3)
        windows = np.clip(windows, _IDENTITY - reach, _IDENTITY + reach).astype(np.float32)
    return best_windows, best


def _warped(moving: Images, windows: Images) -> tuple[Images, Images]:
    """Return the pixels of the windows, and a mask of those inside the moving image."""
    along_x, inside_x = _sampling(moving.shape[1], windows[:, 0], windows[:, 1])
    along_y, inside_y = _sampling(moving.shape[1], windows[:, 2], windows[:, 3])
    overlap = (inside_y[:, :, None] & inside_x[:, None, :]).astype(np.float32)
    return along_y @ moving @ along_x.transpose(0, 2, 1), overlap


def _sampling(size: int, scale: Images, shift: Images) -> tuple[Images, NDArray[np.bool_]]:
    """Return matrices (pairs, size, size) for linear interpolation along an axis, and a mask of the samples inside it.

    Scale and shift along the axes are separable, so that warping needs only two matrix products.
    """
    centre = np.float32((size - 1) / 2)
    grid = np.arange(size, dtype=np.float32)
    positions = centre + scale[:, None] * (grid - centre) + shift[:, None]
    inside = (positions >= 0) & (positions <= size - 1)
    weights = np.clip(positions, 0, size - 1)[:, :, None] - grid
    np.abs(weights, out=weights)
    np.subtract(1, weights, out=weights)
    return np.maximum(weights, 0, out=weights), inside


def _correlation(first: Images, second: Images, mask: Images) -> Images:
    """Return the Pearson correlation of each pair inside the mask; 0 without variation."""
    pixels = np.maximum(mask.sum(axis=(1, 2), keepdims=True), 1)
    centred = [(x - (x * mask).sum(axis=(1, 2), keepdims=True) / pixels) * mask for x in (first, second)]
    products = [np.einsum("kij,kij->k", a, b) for a, b in (centred, centred[:1] * 2, centred[1:] * 2)]
    return products[0] / np.maximum(np.sqrt(products[1] * products[2]), 1e-6)


def _halved(images: Images) -> Images:
    """Downsample by the mean of 2 x 2 pixels."""
    return (images[:, ::2, ::2] + images[:, 1::2, ::2] + images[:, ::2, 1::2] + images[:, 1::2, 1::2]) / 4
