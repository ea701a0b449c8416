"""Image decoding, the same for training and serving.

Every packaged model contains a copy of this file, so it must not import other modules of this project.
"""

import errno
import io
import os
import stat
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

__all__ = ["DECODER", "FORMATS", "ReadFault", "UnreadableImage", "decode", "open_rgb", "refused", "resized", "unusable"]

# Part of every cache key. Change it whenever the decoded pixels of a file change.
DECODER = "decode-1"
FORMATS = ("JPEG", "PNG")
# Errors of the machine rather than of the image: too many open files, a failing disk or network drive.
_PASSING = {errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOMEM, errno.EINTR}
_MAX_SCANS = 100
_MAX_BYTES = 1024**3  # of a file; 100 megapixels of uncompressed 16-bit RGBA have 800 MB
_BLOCK = 1024**2
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(Exception):
    """Raised if an image cannot be decoded. The message is a short reason."""


class ReadFault(UnreadableImage):
    """Raised if the machine failed to read the file. The image itself may be readable."""


def decode(image: Path | bytes, *, size: int, resize: str = "stretch", max_pixels: float = 50e6) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG to RGB and resize it.

    The format is detected from the content, not from the file name. EXIF orientation is applied. Grey, palette, CMYK
    and 16-bit images are converted to 8-bit RGB. Transparent images are composited on white. Animated images are
    rejected. Resizing is bilinear with antialiasing.

    Args:
        image: An image file, or the encoded bytes.
        size: Side of the result in pixels.
        resize: `stretch` to a square, `crop` the centre square, or `pad` with black.
        max_pixels: Larger images are rejected before decoding.

    Returns:
        Pixels of shape (size, size, 3), 0 to 255.

    Raises:
        UnreadableImage: If the image cannot be decoded.
    """
    # libjpeg can decode a large JPEG at reduced size; at least twice the target size is kept.
    return resized(open_rgb(image, max_pixels=max_pixels, at_least=2 * size), size, resize)


def resized(picture: Image.Image, size: int, resize: str) -> NDArray[np.uint8]:
    """Resize an RGB image to the input size of a model and return its pixels; see `decode`."""
    target = (size, size)
    if resize == "crop":
        picture = ImageOps.fit(picture, target, Image.Resampling.BILINEAR)
    elif resize == "pad":
        if round(min(picture.size) / max(picture.size) * size) < 1:
            raise UnreadableImage(f"too narrow to pad ({picture.width}x{picture.height})")
        picture = ImageOps.pad(picture, target, Image.Resampling.BILINEAR, color=(0, 0, 0))
    elif picture.size != target:
        picture = picture.resize(target, Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.uint8)


def open_rgb(image: Path | bytes, *, max_pixels: float = 50e6, at_least: int | None = None) -> Image.Image:
    """Decode a JPEG or PNG to an upright 8-bit RGB image.

    Args:
        image: An image file, or the encoded bytes.
        max_pixels: Larger images are rejected before decoding.
        at_least: A large JPEG may be decoded at a reduced size that is not smaller than this, in pixels.

    Raises:
        UnreadableImage: If the image cannot be decoded.
    """
    reason = None if isinstance(image, bytes) else unusable(image)
    if reason is not None:
        raise UnreadableImage(reason)
    try:
        source = io.BytesIO(image) if isinstance(image, bytes) else image
        with warnings.catch_warnings():
            # Pillow warns above 89 megapixels; `max_pixels` is checked before decoding instead.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(source, formats=FORMATS)
        with opened:
            _refuse_costly(opened, max_pixels)
            if at_least is not None:
                opened.draft("RGB", (at_least, at_least))
            return _rgb(_upright(opened))
    except UnidentifiedImageError as error:
        raise UnreadableImage(_unidentified(image)) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage("more pixels than allowed") from error
    except PermissionError as error:
        raise UnreadableImage("no permission to read it") from error
    except MemoryError as error:
        raise ReadFault("not enough memory") from error
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, OSError) and error.errno in _PASSING:
            raise ReadFault(reason) from error
        raise UnreadableImage(f"damaged ({reason})") from error


def unusable(file: Path) -> str | None:
    """Return why a file is not opened at all, or None: only regular files of up to 1 GiB are.

    Opening a pipe or a device may wait for ever.
    """
    try:
        return refused(file.stat())
    except PermissionError:
        return "no permission to read it"
    except OSError as error:
        return f"it cannot be opened ({error.strerror})"


def refused(status: os.stat_result) -> str | None:
    """Return why a file of this status is not opened, or None; see `unusable`."""
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    return f"larger than allowed ({status.st_size / 1e9:.1f} GB)" if status.st_size > _MAX_BYTES else None


def _upright(picture: Image.Image) -> Image.Image:
    """Apply EXIF orientation. Pillow's `exif_transpose` also rewrites the EXIF data and fails on malformed tags."""
    picture.load()  # a PNG may hold its EXIF after the pixels
    turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    return picture if turn is None else picture.transpose(turn)


def _refuse_costly(opened: ImageFile.ImageFile, max_pixels: float) -> None:
    """Reject images that need excessive time or memory to decode, before decoding."""
    width, height = opened.size
    if width * height > max_pixels:
        raise UnreadableImage(f"more pixels than allowed ({width}x{height})")
    if opened.format == "PNG" and getattr(opened, "n_frames", 1) > 1:
        raise UnreadableImage("animated")
    if opened.format == "JPEG" and opened.fp is not None:
        # Each scan is a pass over all pixels. A normal progressive JPEG has about ten; an extra scan can take 75 bytes.
        scans = _occurrences(opened.fp, b"\xff\xda")
        if scans > _MAX_SCANS:
            raise UnreadableImage(f"more scans than allowed ({scans})")


def _occurrences(file: IO[bytes], marker: bytes) -> int:
    """Count a marker of two bytes in a file, block by block, and return to the present position."""
    at, found, last = file.tell(), 0, b""
    file.seek(0)
    while block := file.read(_BLOCK):
        found += (last + block).count(marker)
        last = block[-1:]
    file.seek(at)
    return found


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I"):
        grey = np.asarray(picture).astype(np.uint32)
        grey += 128  # 257 is odd, so no value is halfway between two results
        grey //= 257
        return Image.fromarray(np.minimum(grey, 255, out=grey).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, seen).convert("RGB")
    return picture.convert("RGB")


def _unidentified(image: Path | bytes) -> str:
    if isinstance(image, bytes):
        head = image[:16]
    else:
        with image.open("rb") as file:
            head = file.read(16)
    if not head:
        return "empty file"
    known = {b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"%PDF": "PDF", b"PK": "ZIP"}
    name = next((name for magic, name in known.items() if head.startswith(magic)), None)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        name = "WebP"
    return f"{name} is not JPEG or PNG" if name else "not an image"
