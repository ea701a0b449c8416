"""Estimation of skin tone from images, for data sets without this metadata."""

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["ESTIMATED_TONE", "estimated_tone", "typology_angle"]

ESTIMATED_TONE = "estimated_skin_tone"
_SIDE = 64
_INNER = 0.6  # share of half the width; the area inside is assumed to be the lesion
_BLACK = 40  # of 255; darker pixels are assumed to be the black corners of dermoscopic images
_LEAST = 0.02  # minimum share of skin pixels
_YELLOW = 3.0  # minimum b* of skin in images without a blue cast
# Numbered to sort from light to dark (Chardon, Cretois & Hourseau 1991; Del Bino & Bernerd 2013).
_TONES = {
    "1 very light": 55.0, "2 light": 41.0, "3 intermediate": 28.0, "4 tan": 10.0, "5 brown": -30.0, "6 dark": -np.inf
}  # fmt: skip


def typology_angle(image: NDArray[np.uint8]) -> float:
    """Estimate the individual typology angle of the skin around a lesion, in degrees from -90 (dark) to 90 (light).

    The angle is the median of atan((L* - 50) / b*) in CIE Lab over the brighter pixels outside the centre of the image.
    The estimate is suitable for a search for differences, but it is not a measurement: exposure, white balance,
    vignetting and large lesions change it by more than one class, and it agrees poorly with Fitzpatrick types
    (Kinyanjui et al. 2020; Groh et al. 2022).

    Args:
        image: RGB image, shape (height, width, 3), 0 to 255.

    Returns:
        The angle; NaN if too little skin is visible, or its colour is not that of skin in white light.
    """
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    across = (np.arange(_SIDE) + 0.5) / _SIDE * 2 - 1
    outside = np.hypot(*np.meshgrid(across, across)) > _INNER
    seen = outside & (small.max(axis=2) >= _BLACK)
    if seen.sum() < _LEAST * _SIDE**2:
        return float("nan")
    light = lab[seen]
    skin = light[light[:, 0] >= np.median(light[:, 0])]  # hair, rulers and the border of the lesion are darker
    if np.median(skin[:, 2]) < _YELLOW:
        return float("nan")
    return float(np.median(np.degrees(np.arctan2(skin[:, 0] - 50, skin[:, 2]))))


def estimated_tone(images: NDArray[np.uint8]) -> pd.Series:
    """Estimate the skin tone of each image, in six classes of its typology angle; missing if this is not possible.

    Args:
        images: RGB images, shape (n, height, width, 3), 0 to 255.
    """
    angles = [typology_angle(image) for image in images]
    return pd.Series([_tone(angle) for angle in angles], dtype=object)


def _tone(angle: float) -> str | None:
    return None if np.isnan(angle) else next(name for name, above in _TONES.items() if angle > above)
