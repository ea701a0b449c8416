"""Decoded images on disk, written once per data set and size, and shared between processes."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from melanoma.data.cache import cached_folder, content_key
from melanoma.data.contents import by_content, read_each
from melanoma.data.decode import DECODER, UnreadableImage, decode

__all__ = ["ImageStore", "decode_images"]


@dataclass(frozen=True)
class ImageStore:
    """RGB images of one size in one or more files of raw bytes.

    Rows are read with `pread` instead of a memory map, so that the memory of a process does not grow with the number
    of images that it reads. The page cache of the operating system keeps recently read images.

    Attributes:
        size: Side of the images in pixels.
        files: Descriptors of the open files, one per segment.
        starts: First row of each segment, followed by the total number of rows.
    """

    size: int
    files: tuple[int, ...]
    starts: tuple[int, ...]

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, rows: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Return the pixels of some rows, shape (len(rows), size, size, 3), 0 to 255."""
        out = np.empty((len(rows), self.size, self.size, 3), np.uint8)
        stride = out[0].nbytes if len(rows) else 0
        for target, row in zip(out, rows, strict=True):
            segment = int(np.searchsorted(self.starts, row, side="right")) - 1
            read = os.preadv(self.files[segment], [target.data], (int(row) - self.starts[segment]) * stride)
            if read != stride:
                raise OSError(
                    f"The cache of decoded images is damaged; run `melanoma cache clear`. Received: row {row}"
                )
        return out

    def joined(self, other: "ImageStore") -> "ImageStore":
        """Return a store of these rows followed by the rows of another store of the same image size."""
        starts = (*self.starts, *(len(self) + s for s in other.starts[1:]))
        return ImageStore(self.size, (*self.files, *other.files), starts)


def decode_images(
    files: Sequence[Path], digests: Sequence[str], *, size: int, resize: str, max_pixels: float
) -> tuple[ImageStore, list[int | None], dict[int, str]]:
    """Decode files into the cache, once for each distinct content.

    Args:
        files: Image files.
        digests: SHA-256 of each file's bytes. Files with equal bytes share one row.
        size: Side of the decoded images in pixels.
        resize: See `decode`.
        max_pixels: See `decode`.

    Returns:
        The store, the row of each file (None if it cannot be decoded), and the reasons of unreadable files by position.
    """
    contents = by_content(files, digests)
    key = content_key(DECODER, PIL.__version__, size, resize, max_pixels, list(contents))

    def make(folder: Path) -> None:
        rows: dict[str, int] = {}
        reasons: dict[str, str] = {}
        read = partial(decode, size=size, resize=resize, max_pixels=max_pixels)
        images = read_each(contents, read, f"Decoding images to {size} px")
        with (folder / "images.u8").open("wb") as sink:
            for digest, image in images:
                if isinstance(image, UnreadableImage):
                    reasons[digest] = str(image)
                else:
                    rows[digest] = len(rows)
                    sink.write(image.tobytes())
        (folder / "index.json").write_text(json.dumps({"rows": rows, "reasons": reasons}), encoding="utf-8")

    folder = cached_folder("decoded", key, make)
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    store = ImageStore(size, (os.open(folder / "images.u8", os.O_RDONLY),), (0, len(index["rows"])))
    rows = [index["rows"].get(digest) for digest in digests]
    reasons = {i: index["reasons"][digest] for i, digest in enumerate(digests) if digest in index["reasons"]}
    return store, rows, reasons
