"""Decoded images on disk, written once per data set and size, and shared between processes."""

import json
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from melanoma.data.cache import cached_folder, content_key
from melanoma.data.contents import by_content, read_each
from melanoma.data.decode import DECODER, UnreadableImage, decode
from melanoma.errors import DataError

__all__ = ["ImageStore", "RowChecks", "decode_images"]

log = logging.getLogger("melanoma")


@dataclass(frozen=True)
class RowChecks:
    """Checksums of the rows of a segment. Each is compared when its row is read for the first time.

    Attributes:
        folder: Entry of the cache.
        files: Image file of each row.
        decode: Function that decodes a file.
        checksums: CRC-32 of each row, shape (rows,).
        checked: Whether each row was compared, shape (rows,).
        told: The first file that was decoded again, if any.
    """

    folder: Path
    files: Sequence[Path]
    decode: Callable[[Path], NDArray[np.uint8]]
    checksums: NDArray[np.uint32]
    checked: NDArray[np.bool_]
    told: list[Path] = field(default_factory=list)

    def mend(self, row: int, pixels: NDArray[np.uint8], complete: bool) -> None:
        """Decode a row again, into `pixels`, if what was read is damaged or not complete.

        Raises:
            DataError: If it is damaged, and the image file was deleted or changed.
        """
        if complete and (self.checked[row] or zlib.crc32(pixels.data) == self.checksums[row]):
            self.checked[row] = True
            return
        if len(self.told) == 0:
            log.warning("A part of the cache is damaged; images are decoded again, such as %s", self.files[row])
            self.told.append(self.files[row])
        try:
            pixels[...], reason = self.decode(self.files[row]), "it changed"
        except UnreadableImage as error:
            reason = str(error)
        if zlib.crc32(pixels.data) != self.checksums[row]:
            raise DataError(
                f"The cache of decoded images is damaged, and an image cannot be decoded again ({reason}). Restore the "
                f"file, or start again after `melanoma cache clear decoded`. Received: {self.files[row]}"
            )
        if complete:  # else the file was cut, and would be extended by a hole that looks like black images
            with suppress(OSError), (self.folder / "images.u8").open("r+b", buffering=0) as file:
                os.pwrite(file.fileno(), pixels.data, row * pixels.nbytes)
            self.checked[row] = True


@dataclass(frozen=True)
class ImageStore:
    """RGB images of one size in one or more files of raw bytes.

    Rows are read with `pread` instead of a memory map, so that the memory of a process does not grow with the number
    of images that it reads. The page cache of the operating system keeps recently read images.

    Attributes:
        size: Side of the images in pixels.
        files: Descriptors of the open files, one per segment.
        starts: First row of each segment, followed by the total number of rows.
        checks: Checksums of each segment; empty for none.
    """

    size: int
    files: tuple[int, ...]
    starts: tuple[int, ...]
    checks: tuple[RowChecks, ...] = ()

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, rows: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Return the pixels of some rows, shape (len(rows), size, size, 3), 0 to 255."""
        out = np.empty((len(rows), self.size, self.size, 3), np.uint8)
        stride = out[0].nbytes if len(rows) else 0
        for target, row in zip(out, rows, strict=True):
            segment = int(np.searchsorted(self.starts, row, side="right")) - 1
            place = int(row) - self.starts[segment]
            complete = os.preadv(self.files[segment], [target.data], place * stride) == stride
            if self.checks:
                self.checks[segment].mend(place, target, complete)
            elif not complete:
                raise OSError(
                    f"The cache of decoded images is damaged; run `melanoma cache clear`. Received: row {row}"
                )
        return out

    def joined(self, other: "ImageStore") -> "ImageStore":
        """Return a store of these rows followed by the rows of another store of the same image size."""
        starts = (*self.starts, *(len(self) + s for s in other.starts[1:]))
        return ImageStore(self.size, (*self.files, *other.files), starts, (*self.checks, *other.checks))


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
    key = content_key("rows-2", DECODER, PIL.__version__, size, resize, max_pixels, list(contents))
    read = partial(decode, size=size, resize=resize, max_pixels=max_pixels)

    def make(folder: Path) -> None:
        rows: dict[str, int] = {}
        reasons: dict[str, str] = {}
        checksums: list[int] = []
        images = read_each(contents, read, f"Decoding images to {size} px")
        with (folder / "images.u8").open("wb") as sink:
            for digest, image in images:
                if isinstance(image, UnreadableImage):
                    reasons[digest] = str(image)
                else:
                    rows[digest] = len(rows)
                    checksums.append(zlib.crc32(image.data))
                    sink.write(image.data)
        np.array(checksums, np.uint32).tofile(folder / "checksums.u32")
        (folder / "index.json").write_text(json.dumps({"rows": rows, "reasons": reasons}), encoding="utf-8")

    folder = cached_folder("decoded", key, make)
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    in_row = [contents[digest] for digest in index["rows"]]
    checksums = np.fromfile(folder / "checksums.u32", np.uint32)
    checks = RowChecks(folder, in_row, read, checksums, np.zeros(len(in_row), bool))
    store = ImageStore(size, (os.open(folder / "images.u8", os.O_RDONLY),), (0, len(in_row)), (checks,))
    rows = [index["rows"].get(digest) for digest in digests]
    reasons = {i: index["reasons"][digest] for i, digest in enumerate(digests) if digest in index["reasons"]}
    return store, rows, reasons
