"""Search for near duplicates without comparing all pairs of images.

1. Compute a descriptor of each thumbnail that is invariant to quarter turns, mirroring, brightness and contrast: sums
   and differences of the magnitudes of its low cosine frequencies.
2. Project the descriptors to directions that maximize the variance between images relative to the variance under small
   crops (linear discriminant analysis, Fisher 1936), and search the nearest neighbours of each image in an inverted
   file (Jegou, Douze & Schmid 2011; faiss).
3. Align and compare the neighbours: `melanoma.auditing.alignment.similarity`.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.linalg import eigh

from melanoma.auditing.alignment import similarity
from melanoma.data.cache import cached_folder, content_key
from melanoma.data.contents import available_cores
from melanoma.data.progress import track

__all__ = ["LEAST_SIMILAR", "descriptors", "near_duplicates", "neighbour_pairs"]

LEAST_SIMILAR = 0.5  # minimum of the cached pairs; higher thresholds can reuse the cache
NEIGHBOURS = 16
_FREQUENCIES = 8
_DIMENSIONS = 20
_SAMPLE = 1000  # images on which the projection is fitted
_CROP = 0.06  # maximum crop of each side for the fit, as a share
_EXACT_UP_TO = 4000  # up to this number of images, the search is exact
_CHUNK = 512


def near_duplicates(
    thumbnails: NDArray[np.uint8], identities: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find pairs of similar images. The result is cached.

    Args:
        thumbnails: Grey thumbnails, shape (n, 64, 64), without exact duplicates.
        identities: Identifiers of the images, for the key of the cache.

    Returns:
        Positions of the pairs, shape (pairs, 2), the smaller first, and their similarity, from `LEAST_SIMILAR` to 1.
    """
    if len(thumbnails) < 2:
        return np.empty((0, 2), np.int64), np.empty(0, np.float32)

    def make(folder: Path) -> None:
        pairs = neighbour_pairs(descriptors(thumbnails))
        pairs, scores = _compared(thumbnails, pairs)
        np.savez(folder / "pairs.npz", pairs=pairs, scores=scores)

    folder = cached_folder("near_duplicates", content_key("near-3", cv2.__version__, identities), make)
    with np.load(folder / "pairs.npz") as found:
        return found["pairs"], found["scores"]


def descriptors(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute descriptors, shape (n, at most 20), in which near duplicates are close to each other.

    Args:
        thumbnails: Grey thumbnails of two or more images, shape (n, 64, 64).
    """
    rng = np.random.default_rng(0)
    sample = thumbnails[np.sort(rng.permutation(len(thumbnails))[:_SAMPLE])]
    moved = _invariants(np.stack([_cropped(image, rng) for image in sample])) - _invariants(sample)
    all_invariants = np.concatenate([_invariants(thumbnails[i : i + 4096]) for i in range(0, len(thumbnails), 4096)])
    ridge = np.eye(moved.shape[1]) * 1e-6
    between = np.atleast_2d(np.cov(all_invariants.T)) + ridge
    within = np.atleast_2d(np.cov(moved.T)) + ridge
    _, axes = eigh(between, within)
    return (all_invariants @ axes[:, ::-1][:, :_DIMENSIONS]).astype(np.float32)


def neighbour_pairs(points: NDArray[np.float32], neighbours: int = NEIGHBOURS) -> NDArray[np.int64]:
    """Find the nearest neighbours of each point. Return positions, shape (pairs, 2), each pair once, the smaller first.

    Above 4,000 points, the search is approximate and can miss neighbours: it uses the nearest lists of an inverted
    file. The number of lists grows with the square root of the number n of points, so that the time is at most
    proportional to n to the power of 1.5.
    """
    import faiss

    count, dimensions = points.shape
    if count < 2:
        return np.empty((0, 2), np.int64)
    points = np.ascontiguousarray(points, np.float32)
    index: Any
    if count <= _EXACT_UP_TO:
        index = faiss.IndexFlatL2(dimensions)
    else:
        lists = int(2 * np.sqrt(count))
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dimensions), dimensions, lists)
        index.cp.niter, index.cp.seed = 8, 0
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, 64
        index.nprobe = 16
        index.train(points)
    index.add(points)
    _, found = index.search(points, min(neighbours + 1, count))
    pairs = np.stack([np.repeat(np.arange(count), found.shape[1]), found.ravel()], axis=1)
    pairs = np.sort(pairs[(pairs[:, 1] >= 0) & (pairs[:, 0] != pairs[:, 1])], axis=1)
    return np.unique(pairs, axis=0).astype(np.int64)


def _compared(thumbnails: NDArray[np.uint8], pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    chunks = [pairs[i : i + _CHUNK] for i in range(0, len(pairs), _CHUNK)]

    def compare(chunk: NDArray[np.int64]) -> NDArray[np.float32]:
        return similarity(thumbnails[chunk[:, 0]], thumbnails[chunk[:, 1]])

    with ThreadPoolExecutor(available_cores()) as pool:
        found = list(track(pool.map(compare, chunks), "Comparing similar images", len(chunks)))
    scores = np.concatenate([*found, np.empty(0, np.float32)])
    alike = scores >= LEAST_SIMILAR
    return pairs[alike], scores[alike]


def _invariants(thumbnails: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return features, shape (n, 42), that are invariant to quarter turns, mirroring, brightness and contrast.

    Mirroring changes the sign of cosine coefficients, and a quarter turn also swaps their axes.
    """
    images = thumbnails.astype(np.float32)
    magnitudes = np.abs(dctn(images, axes=(1, 2), norm="ortho")[:, :_FREQUENCIES, :_FREQUENCIES])
    rows, columns = np.triu_indices(_FREQUENCIES)
    kept = (rows + columns > 0) & (rows + columns <= _FREQUENCIES)
    rows, columns = rows[kept], columns[kept]
    one, other = magnitudes[:, rows, columns], magnitudes[:, columns, rows]
    mixed = rows != columns
    sums = np.where(mixed, (one + other) / np.sqrt(2), one)
    differences = np.abs(one - other)[:, mixed] / np.sqrt(2)
    spread = images.std(axis=(1, 2)) * images.shape[1]
    return np.concatenate([sums, differences], axis=1).astype(np.float64) / np.maximum(spread, 1e-3)[:, None]


def _cropped(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    size = image.shape[0]
    left, top, right, bottom = rng.uniform(0, _CROP, 4) * size
    scale_x, scale_y = (size - left - right) / size, (size - top - bottom) / size
    matrix = np.array([[scale_x, 0, left + scale_x / 2 - 0.5], [0, scale_y, top + scale_y / 2 - 0.5]], dtype=np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
