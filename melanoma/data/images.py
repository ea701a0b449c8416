"""Decoded images on disk: written once for a data set and size, read by row, shared between processes."""

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

    Rows are read with `pread` rather than through a memory map, so that a process's memory does not grow with
    the number of images it has seen; the operating system's page cache keeps them near.

    Attributes:
        size: side in pixels.
        files: the open files, one a segment.
        starts: first row of each segment, with the total number of rows at the end.
    """

    size: int
    files: tuple[int, ...]
    starts: tuple[int, ...]

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, rows: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Pixels of some rows, shape (len(rows), size, size, 3), 0 to 255."""
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
        """This store's rows followed by another's of the same size."""
        starts = (*self.starts, *(len(self) + s for s in other.starts[1:]))
        return ImageStore(self.size, (*self.files, *other.files), starts)


def decode_images(
    files: Sequence[Path], digests: Sequence[str], *, size: int, resize: str, max_pixels: float
) -> tuple[ImageStore, list[int | None], dict[int, str]]:
    """Decode files into the cache, once for each content.

    Args:
        files: image files.
        digests: SHA-256 of each file's bytes; files of equal bytes share one row.
        size: side in pixels.
        resize: see `decode`.
        max_pixels: see `decode`.

    Returns:
        The store, the row of each file (None where it cannot be decoded), and the reason for those by position.
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
