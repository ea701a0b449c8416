"""Inspection of all images in one pass: hash of the pixels, thumbnail, and measures of quality."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import PIL
from numpy.typing import NDArray
from PIL import Image

from melanoma.data.cache import cached_folder, content_key
from melanoma.data.contents import by_content, read_each
from melanoma.data.decode import DECODER, FORMATS, UnreadableImage, open_rgb
from melanoma.paths import cache_dir

__all__ = ["THUMBNAIL", "Inspection", "inspect_files", "recalled"]

THUMBNAIL = 64
# Length of the shorter side for measures such as sharpness, so that they do not depend on the size of large images.
_MEASURED = 256


@dataclass(frozen=True)
class Inspection:
    """Facts about each distinct content.

    Attributes:
        facts: One row per readable content, indexed by `sha256`: `pixels` (hash of the decoded image and its size),
            `width`, `height` (upright, in pixels), `format` and `mode` as stored, `brightness` (mean luminance, 0 to
            1), `darkest` and `brightest` (1st and 99th percentile of luminance, 0 to 1), `contrast` (standard
            deviation of luminance, 0 to 0.5), `sharpness` (variance of the Laplacian of luminance in 0 to 255).
        thumbnails: Grey thumbnails, shape (len(facts), 64, 64), 0 to 255, in the order of `facts`, stored on disk.
        reasons: Reason why each other content cannot be decoded, by `sha256`.
    """

    facts: pd.DataFrame
    thumbnails: NDArray[np.uint8]
    reasons: dict[str, str]


def inspect_files(
    files: Sequence[Path],
    digests: Sequence[str],
    *,
    max_pixels: float,
) -> Inspection:
    """Inspect each distinct content once, at full size.

    Args:
        files: Image files.
        digests: SHA-256 of each file's bytes.
        max_pixels: See `melanoma.data.decode.decode`.
    """
    contents = by_content(files, digests)
    key = content_key("inspection-2", DECODER, PIL.__version__, cv2.__version__, max_pixels, list(contents))

    def make(folder: Path) -> None:
        facts: list[dict[str, Any]] = []
        reasons: dict[str, str] = {}
        look = partial(_look, max_pixels=max_pixels)
        looks = read_each(contents, look, "Inspecting images")
        with (folder / "thumbnails.u8").open("wb") as sink:
            for digest, seen in looks:
                if isinstance(seen, UnreadableImage):
                    reasons[digest] = str(seen)
                else:
                    facts.append({"sha256": digest, **seen[0]})
                    sink.write(seen[1].tobytes())
        pd.DataFrame(facts, columns=_COLUMNS).to_csv(folder / "facts.csv", index=False)
        (folder / "reasons.json").write_text(json.dumps(reasons), encoding="utf-8")

    folder = cached_folder("inspected", key, make)
    reasons = json.loads((folder / "reasons.json").read_text(encoding="utf-8"))
    return Inspection(*_read(folder), reasons)


def recalled(digests: Collection[str]) -> tuple[pd.Series, NDArray[np.uint8]]:
    """Read the results of earlier inspections, of any data set, from the cache.

    Args:
        digests: SHA-256 of the files.

    Returns:
        The hash of the pixels of each inspected file, sorted by its SHA-256, and the thumbnails in the same order.
    """
    known: list[pd.Series] = []
    kept: list[NDArray[np.uint8]] = []
    for folder in sorted((cache_dir() / "inspected").glob("[!.]*")):
        try:
            facts, thumbnails = _read(folder)
        except (OSError, ValueError, KeyError):  # cleared by another process, or damaged
            continue
        wanted = facts.index.isin(digests)
        known.append(facts.pixels[wanted])
        kept.append(thumbnails[wanted])
    if len(known) == 0:
        return pd.Series(dtype=object), np.empty((0, THUMBNAIL, THUMBNAIL), np.uint8)
    pixels = pd.concat(known)
    order = np.argsort(pixels.index.to_numpy(dtype=str), kind="stable")
    order = order[~pixels.index[order].duplicated()]
    return pixels.iloc[order], np.concatenate(kept)[order]


def _read(folder: Path) -> tuple[pd.DataFrame, NDArray[np.uint8]]:
    facts = pd.read_csv(folder / "facts.csv", keep_default_na=False).set_index("sha256")
    shape = (len(facts), THUMBNAIL, THUMBNAIL)
    empty = np.empty(shape, np.uint8)
    return facts, np.memmap(folder / "thumbnails.u8", np.uint8, "r", shape=shape) if len(facts) else empty


_COLUMNS = [
    "sha256", "pixels", "width", "height", "format", "mode",
    "brightness", "darkest", "brightest", "contrast", "sharpness",
]  # fmt: skip


def _look(file: Path, max_pixels: float) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    picture = open_rgb(file, max_pixels=max_pixels)
    with Image.open(file, formats=FORMATS) as header:
        stored = {"format": header.format, "mode": header.mode}
    pixels = np.asarray(picture)
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(f"{width}x{height}".encode())
    digest.update(pixels.tobytes())
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    scale = _MEASURED / min(width, height)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    measured = cv2.resize(grey, size, interpolation=cv2.INTER_AREA) if scale < 1 else grey
    histogram = np.bincount(measured.ravel(), minlength=256).cumsum() / measured.size
    dark, bright = np.searchsorted(histogram, [0.01, 0.99])
    facts = {
        "pixels": digest.hexdigest(),
        "width": width,
        "height": height,
        **stored,
        "brightness": round(float(measured.mean()) / 255, 4),
        "darkest": round(float(dark) / 255, 4),
        "brightest": round(float(bright) / 255, 4),
        "contrast": round(float(measured.std()) / 255, 4),
        "sharpness": round(float(cv2.Laplacian(measured, cv2.CV_32F).var()), 3),
    }
    shrink = cv2.INTER_AREA if min(width, height) >= THUMBNAIL else cv2.INTER_LINEAR
    return facts, cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=shrink)
