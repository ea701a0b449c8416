"""Out-of-distribution score: how unlike the training images an image is, by the features inside the network.

Every packaged model contains a copy of this file, so it must not import other modules of this project.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

__all__ = ["DETECTOR", "OodDetector", "fit_distance", "load_detector", "save_detector", "with_threshold"]

DETECTOR = "out_of_distribution.npz"  # name of the file, beside the model's

_COMPONENTS = 32
_FEW = 20  # images, below which nothing is fitted
_MAX_BYTES = 64 * 1024**2
_ARRAYS = ("center", "scale", "components", "variances")
_NUMBERS = ("noise", "share", "threshold")


@dataclass(frozen=True)
class OodDetector:
    """Detector of images that are unlike the training images.

    Attributes:
        center: Mean of the features of training images, shape (d,).
        scale: Factor of each feature, shape (d,). It gives all resolutions the same variance.
        components: Principal components of the scaled features, shape (k, d).
        variances: Variance along each component, shape (k,).
        noise: Variance along each other direction.
        share: Share of the validation images that are flagged.
        threshold: Distance from which an image is flagged.
    """

    center: NDArray
    scale: NDArray
    components: NDArray
    variances: NDArray
    noise: float
    share: float = 0.0
    threshold: float = 1.0

    def scores(self, features: Sequence[NDArray]) -> NDArray[np.float64]:
        """Return the score of each image, shape (n,): its distance divided by the threshold.

        The distance is Mahalanobis's (as in Lee et al. 2018), for the covariance of probabilistic principal component
        analysis (Tipping & Bishop 1999). Images with a score above 1 are flagged.

        Args:
            features: Features of each resolution, as `with_features` gives them.

        Raises:
            ValueError: If the features are those of another network.
        """
        every = np.concatenate(features, axis=1).astype(np.float64)
        if every.shape[1] != len(self.center):
            raise ValueError(f"The detector is for {len(self.center)} features. Received: {every.shape[1]}")
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (every - self.center) * self.scale
            along = scaled @ self.components.T
            rest = np.maximum((scaled**2).sum(axis=1) - (along**2).sum(axis=1), 0)
            scores = np.sqrt((along**2 / self.variances).sum(axis=1) + rest / self.noise) / self.threshold
        return np.nan_to_num(scores, nan=np.inf, posinf=np.inf)


def fit_distance(features: Sequence[NDArray]) -> OodDetector | None:
    """Fit the distance on the features of training images, without a threshold.

    Args:
        features: Features of each resolution, as `with_features` gives them.

    Returns:
        The detector; None if there are fewer than 20 images, or if their features are all the same or not finite.
    """
    from sklearn.decomposition import PCA

    images = len(features[0])
    if images < _FEW or not all(np.isfinite(one).all() for one in features):
        return None
    scale = np.concatenate([np.full(one.shape[1], _factor(one)) for one in features])
    every = np.concatenate(features, axis=1).astype(np.float64)
    center = every.mean(axis=0)
    # As they are saved, so that the scores of a saved model are the same.
    with np.errstate(over="ignore"):
        center, scale = center.astype(np.float32), scale.astype(np.float32)
    if not (np.isfinite(scale).all() and scale.any()):
        return None
    number = min(_COMPONENTS, images // 4, every.shape[1] - 1)
    found = PCA(number, svd_solver="arpack", random_state=0).fit((every - center) * scale)
    least = np.finfo(np.float32).tiny + 1e-6 * float(found.explained_variance_.sum())
    variances = np.maximum(found.explained_variance_, least).astype(np.float32)
    noise = float(np.maximum(found.noise_variance_, least))
    return OodDetector(center, scale, found.components_.astype(np.float32), variances, noise)


def with_threshold(distance: OodDetector, validation: NDArray, share: float) -> OodDetector | None:
    """Set the threshold, so that about a `share` of images like those of validation is flagged.

    The threshold is that of split conformal prediction, and at most the largest distance of a validation image: with
    fewer than 1 / share validation images, more new images are flagged.

    Args:
        distance: Result of `fit_distance`.
        validation: Distances of the validation images, shape (n,).
        share: Share from 0 to 1.

    Returns:
        The detector; None if there are fewer than 20 images.
    """
    images = len(validation)
    if images < _FEW:
        return None
    threshold = float(np.sort(validation)[min(ceil((images + 1) * (1 - share)), images) - 1])
    return replace(distance, share=share, threshold=threshold)


def save_detector(detector: OodDetector, path: Path) -> None:
    """Write a detector to a file, in float32 except for the three numbers."""
    arrays = {name: getattr(detector, name).astype(np.float32) for name in _ARRAYS}
    np.savez(path, **arrays, numbers=np.array([getattr(detector, name) for name in _NUMBERS]))


def load_detector(path: Path) -> OodDetector | None:
    """Read a detector, which may come from others, or return None if there is no file.

    Raises:
        ValueError: If the file is damaged or was not written by `save_detector`.
    """
    if not path.is_file():
        return None
    try:
        with ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_BYTES:
                raise ValueError("it is too large")
        with np.load(path, allow_pickle=False) as file:
            found = {name: np.asarray(file[name]) for name in (*_ARRAYS, "numbers")}
        if any(one.dtype.kind != "f" for one in found.values()):
            raise ValueError("its numbers are of another type")
        arrays = {name: found[name].astype(np.float64) for name in _ARRAYS}
        noise, share, threshold = (float(one) for one in found["numbers"])
    except Exception as error:  # the errors of a damaged file have no common class
        raise ValueError(f"{path.name} is not readable ({error})") from error
    features, components = len(arrays["center"]) if arrays["center"].ndim else 0, len(arrays["variances"].ravel())
    shapes = {"center": (features,), "scale": (features,), "components": (components, features)}
    expected = {**shapes, "variances": (components,)}
    numbers = np.concatenate([*(one.ravel() for one in arrays.values()), [noise, share, threshold]])
    if {name: one.shape for name, one in arrays.items()} != expected or not np.isfinite(numbers).all():
        raise ValueError(f"{path.name} does not hold an out-of-distribution detector")
    if min(noise, threshold, *arrays["variances"]) <= 0:
        raise ValueError(f"{path.name} has a variance or a threshold that is not positive")
    return OodDetector(**arrays, noise=noise, share=share, threshold=threshold)


def _factor(features: NDArray) -> float:
    """Return the factor that gives all features of a resolution together a variance of 1."""
    variance = float(features.astype(np.float64).var(axis=0).sum())
    return float(1 / np.sqrt(variance)) if variance > 0 else 0.0
