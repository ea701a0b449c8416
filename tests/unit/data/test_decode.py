"""Image files to pixels: every kind of JPEG and PNG right, everything else put aside with a reason."""

import io
import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from melanoma.data.decode import UnreadableImage, decode, open_rgb

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(picture: Image.Image, format: str = "PNG", **options) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, format, **options)
    return sink.getvalue()


def picture(seed: int = 0, width: int = 40, height: int = 30) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def flat(mode: str, colour, side: int = 16) -> Image.Image:
    return Image.new(mode, (side, side), colour)


def grey16(value: int) -> Image.Image:
    return Image.fromarray(np.full((16, 16), value, np.uint16))


def palette(colour) -> Image.Image:
    image = flat("P", 1)
    image.putpalette([0, 0, 0, *colour])
    return image


FLAT = {
    "RGB": (encoded(flat("RGB", RED)), RED),
    "grey": (encoded(flat("L", 100)), (100, 100, 100)),
    "grey, one value transparent": (encoded(flat("L", 100), transparency=100), WHITE),
    "grey, another value transparent": (encoded(flat("L", 100), transparency=7), (100, 100, 100)),
    "grey, opaque alpha": (encoded(flat("LA", (100, 255))), (100, 100, 100)),
    "grey, transparent": (encoded(flat("LA", (100, 0))), WHITE),
    "palette": (encoded(palette(RED)), RED),
    "palette, colour transparent": (encoded(palette(RED), transparency=1), WHITE),
    "palette, another transparent": (encoded(palette(RED), transparency=0), RED),
    "palette, shares of transparency": (encoded(palette(RED), transparency=b"\0\x80"), (255, 127, 127)),
    "RGBA, opaque": (encoded(flat("RGBA", (*RED, 255))), RED),
    "RGBA, transparent": (encoded(flat("RGBA", (*RED, 0))), WHITE),
    "RGBA, half": (encoded(flat("RGBA", (*RED, 128))), (255, 127, 127)),
    "RGB, one colour transparent": (encoded(flat("RGB", RED), transparency=RED), WHITE),
    "1 bit, white": (encoded(flat("1", 1)), WHITE),
    "1 bit, black": (encoded(flat("1", 0)), (0, 0, 0)),
    "16 bit, white": (encoded(grey16(65535)), WHITE),
    "16 bit, mid-grey": (encoded(grey16(128 * 257)), (128, 128, 128)),
    "16 bit, dark": (encoded(grey16(300)), (1, 1, 1)),
    "16 bit, black": (encoded(grey16(0)), (0, 0, 0)),
    "JPEG": (encoded(flat("RGB", (200, 100, 50)), "JPEG"), (200, 100, 50)),
    "JPEG, grey": (encoded(flat("L", 100), "JPEG"), (100, 100, 100)),
    "JPEG, progressive": (encoded(flat("RGB", (200, 100, 50)), "JPEG", progressive=True), (200, 100, 50)),
    "JPEG, CMYK": (encoded(flat("CMYK", (0, 255, 255, 0)), "JPEG"), RED),
    "JPEG, several pictures": (
        encoded(flat("RGB", RED), "MPO", save_all=True, append_images=[flat("RGB", WHITE)]),
        RED,
    ),
}


@pytest.mark.parametrize("size", [16, 5, 40])
@pytest.mark.parametrize(("content", "colour"), FLAT.values(), ids=FLAT.keys())
def test_each_kind_of_image_becomes_8_bit_rgb(content, colour, size):
    pixels = decode(content, size=size)
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - colour).max() <= (3 if content.startswith(b"\xff\xd8") else 0)


def test_16_bit_values_are_scaled_not_cut():
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    expected = np.arange(256).reshape(16, 16, 1).repeat(3, axis=2)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(ramp)), size=16), expected)


@pytest.mark.parametrize(("format", "name"), [("PNG", "a.jpg"), ("JPEG", "a.png"), ("PNG", "a"), ("JPEG", "a.dcm")])
def test_the_content_tells_the_format_not_the_name(tmp_path, format, name):
    content = encoded(picture(), format)
    (tmp_path / name).write_bytes(content)
    expected = np.asarray(Image.open(io.BytesIO(content)).resize((20, 20), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode(tmp_path / name, size=20), expected)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize(
    "content",
    [
        encoded(picture(width=300), "JPEG"),
        encoded(picture()),
        encoded(grey16(9)),
        encoded(palette(RED), transparency=1),
    ],
    ids=["JPEG", "PNG", "16 bit", "palette"],
)
def test_bytes_and_file_give_identical_pixels(tmp_path, content, resize):
    (tmp_path / "image").write_bytes(content)
    from_file, from_bytes = (decode(image, size=24, resize=resize) for image in (tmp_path / "image", content))
    np.testing.assert_array_equal(from_file, from_bytes)


# How the sensor's pixels lie for a picture that EXIF orientation brings upright.
STORED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: np.rot90,
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize(("format", "tolerance"), [("PNG", 0), ("JPEG", 12)])
@pytest.mark.parametrize("orientation", STORED)
def test_images_come_out_upright(orientation, format, tolerance):
    upright = np.asarray(picture(width=32, height=32)).astype(int)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)).astype(np.uint8))
    options = {"quality": 95, "subsampling": 0} if format == "JPEG" else {}
    decoded = decode(encoded(stored, format, exif=exif, **options), size=32)
    assert np.abs(decoded - upright).max() <= tolerance


def test_a_malformed_exif_tag_does_not_spoil_an_image():
    """The camera's maker, a text, is written as a fraction."""
    maker, orientation = struct.pack("<HHII", 0x010F, 5, 1, 38), struct.pack("<HHII", 0x0112, 3, 1, 3)
    tags = b"II*\0" + struct.pack("<IH", 8, 2) + maker + orientation + bytes(4) + struct.pack("<II", 72, 1)
    content = encoded(picture(), "JPEG", exif=b"Exif\0\0" + tags)
    upside_down = decode(encoded(picture(), "JPEG"), size=16)
    assert np.abs(decode(content, size=16).astype(int) - np.rot90(upside_down, 2)).max() <= 4


def test_a_large_jpeg_decoded_at_a_fraction_looks_the_same():
    content = encoded(picture(width=1000, height=800), "JPEG", quality=95)
    whole = np.asarray(open_rgb(content).resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert open_rgb(content, at_least=64).size == (125, 100)
    assert np.abs(decode(content, size=32) - whole).mean() < 1


def stripes(*colours, width: int = 60, height: int = 20) -> bytes:
    pixels = np.repeat(np.array([colours], np.uint8), width // len(colours), axis=1)
    return encoded(Image.fromarray(np.repeat(pixels, height, axis=0)))


GREEN, BLUE, BLACK = (0, 255, 0), (0, 0, 255), (0, 0, 0)


def test_stretch_keeps_the_whole_image():
    pixels = decode(stripes(RED, GREEN, BLUE), size=60)
    for column, colour in ((5, RED), (30, GREEN), (55, BLUE)):
        assert (pixels[:, column] == colour).all()


def test_crop_keeps_the_centre_undistorted():
    assert (decode(stripes(RED, GREEN, BLUE), size=20, resize="crop") == GREEN).all()


def test_pad_keeps_the_whole_image_undistorted_on_black():
    pixels = decode(stripes(RED, GREEN, BLUE), size=60, resize="pad")
    assert (pixels[:20] == BLACK).all()
    assert (pixels[40:] == BLACK).all()
    for column, colour in ((5, RED), (30, GREEN), (55, BLUE)):
        assert (pixels[20:40, column] == colour).all()


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("side", [1, 2, 500])
def test_small_and_large_squares_are_fitted(resize, side):
    assert (decode(encoded(flat("RGB", RED, side)), size=33, resize=resize) == RED).all()


@pytest.mark.parametrize(("width", "height"), [(1000, 1), (1, 1000)])
def test_a_line_of_pixels_cannot_be_padded(width, height):
    line = encoded(Image.new("RGB", (width, height), RED))
    assert (decode(line, size=32) == RED).all()
    assert (decode(line, size=32, resize="crop") == RED).all()
    with pytest.raises(UnreadableImage, match=f"too narrow to pad .{width}x{height}"):
        decode(line, size=32, resize="pad")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_declaring(width: int, height: int) -> bytes:
    """A small file of a PNG of any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg_declaring(width: int, height: int) -> bytes:
    content = bytearray(encoded(picture(), "JPEG"))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


JPEG, PNG = encoded(picture(), "JPEG"), encoded(picture())
UNREADABLE = {
    "empty": (b"", "empty file"),
    "truncated JPEG": (encoded(picture(width=200), "JPEG")[:-500], "damaged .*truncated"),
    "JPEG truncated in its header": (JPEG[:400], "damaged .*Truncated"),
    "truncated PNG": (PNG[: len(PNG) // 2], "damaged .*(truncated|Truncated)"),
    "JPEG header alone": (JPEG[:3], "(damaged|not an image)"),
    "PNG header alone": (PNG[:8], "(damaged|not an image)"),
    "random bytes": (random.Random(0).randbytes(5000), "not an image"),
    "zeros": (bytes(5000), "not an image"),
    "text": (b"This is not an image.\n", "not an image"),
    "web page": (b"<!DOCTYPE html><title>404</title>", "not an image"),
    "GIF": (encoded(picture(), "GIF"), "GIF is not JPEG or PNG"),
    "BMP": (encoded(picture(), "BMP"), "BMP is not JPEG or PNG"),
    "WebP": (encoded(picture(), "WEBP"), "WebP is not JPEG or PNG"),
    "TIFF": (encoded(picture(), "TIFF"), "TIFF is not JPEG or PNG"),
    "PDF": (encoded(picture(), "PDF"), "PDF is not JPEG or PNG"),
    "animated PNG": (encoded(picture(), save_all=True, append_images=[picture(1)]), "animated"),
    "PNG over the limit": (png_declaring(8000, 6251), r"more pixels than allowed \(8000x6251\)"),
    "JPEG over the limit": (jpeg_declaring(8000, 6251), r"more pixels than allowed \(8000x6251\)"),
    "PNG bomb": (png_declaring(100_000, 100_000), "more pixels than allowed"),
    "JPEG bomb": (jpeg_declaring(65_000, 65_000), "more pixels than allowed"),
}


@pytest.mark.parametrize("as_file", [True, False], ids=["file", "bytes"])
@pytest.mark.parametrize(("content", "reason"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_cannot_be_read_is_put_aside_with_its_reason(tmp_path, content, reason, as_file):
    (tmp_path / "image.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=f"^{reason}"):
        decode(tmp_path / "image.jpg" if as_file else content, size=16)


def test_the_limit_of_pixels_is_included():
    content = encoded(picture(width=40, height=30))
    assert decode(content, size=8, max_pixels=1200).shape == (8, 8, 3)
    with pytest.raises(UnreadableImage, match="40x30"):
        decode(content, size=8, max_pixels=1199)


HUNGRY = """
import resource, sys
from pathlib import Path
from melanoma.data.decode import UnreadableImage, decode
decode(Path(sys.argv[1]), size=8)
used = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000, used + 60_000_000))
for path in sys.argv[2:]:
    try:
        decode(Path(path), size=8)
    except UnreadableImage as error:
        print(error)
"""


def test_declared_pixels_are_refused_without_memory_for_them(tmp_path):
    """With 60 MB to spare; the smallest of these would take 150 MB."""
    contents = [PNG, png_declaring(8000, 6251), jpeg_declaring(8000, 6251), png_declaring(15_000, 15_000)]
    paths = [tmp_path / f"{i}.png" for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    done = subprocess.run([sys.executable, "-c", HUNGRY, *paths], capture_output=True, text=True, check=True)
    assert [line.split(" (")[0] for line in done.stdout.splitlines()] == ["more pixels than allowed"] * 3


def reason(path: Path) -> str:
    try:
        return f"decoded {decode(path, size=8).shape}"
    except UnreadableImage as error:
        return str(error)


def test_a_file_without_permission_is_put_aside(public_path, unprivileged):
    for name, mode in (("open.png", 0o644), ("closed.png", 0)):
        (public_path / name).write_bytes(PNG)
        (public_path / name).chmod(mode)
    assert unprivileged(reason, public_path / "open.png") == "decoded (8, 8, 3)"
    assert unprivileged(reason, public_path / "closed.png") == "no permission to read it"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere.jpg", "cannot be opened"),
        (".", "not a regular"),
        ("pipe.jpg", "not a regular"),
        ("zero", "not a regular"),
    ],
)
def test_what_is_no_file_is_put_aside_without_opening_it(tmp_path, name: str, reason: str):
    os.mkfifo(tmp_path / "pipe.jpg")
    file = Path("/dev/zero") if name == "zero" else tmp_path / name
    with pytest.raises(UnreadableImage, match=reason):
        decode(file, size=8)


def test_a_huge_file_is_put_aside_without_opening_it(tmp_path):
    (tmp_path / "huge.jpg").touch()
    os.truncate(tmp_path / "huge.jpg", 3 * 1024**3)
    with pytest.raises(UnreadableImage, match=r"^larger than allowed \(3\.2 GB\)$"):
        decode(tmp_path / "huge.jpg", size=8)


def test_scans_are_counted_over_the_edges_of_blocks(monkeypatch):
    monkeypatch.setattr("melanoma.data.decode._BLOCK", 7)
    content = encoded(picture(), "JPEG")
    assert decode(content, size=8).shape == (8, 8, 3)
    for padding in range(7):
        with pytest.raises(UnreadableImage, match=r"more scans than allowed \(102\)"):
            decode(content + bytes(padding) + b"\xff\xda" * 101, size=8)


def corrupted(content: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, lost or added, mostly near the head, where the structure is."""
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 2, 5, 20])):
        at = rng.randrange(min(len(damaged), 400) if rng.random() < 0.7 else len(damaged))
        cut = rng.choice([0, 1, 1, 1, 9])
        damaged[at : at + cut] = rng.randbytes(rng.choice([0, 1, 1, 1, 7])) or b"\0"
    return bytes(damaged)


def with_checksums(content: bytes) -> bytes:
    """A PNG whose chunks have right checksums, so that damage gets past them."""
    parts, at = [content[:8]], 8
    while at + 12 <= len(content):
        length = struct.unpack(">I", content[at : at + 4])[0]
        parts.append(chunk(content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join(parts)


EXIF = Image.Exif()
EXIF.update({0x0112: 6, 0x010F: "Maker", 0x011A: 72.0})
SEEDS = {
    "JPEG": JPEG,
    "JPEG with EXIF": encoded(picture(), "JPEG", exif=EXIF, icc_profile=bytes(300)),
    "JPEG, progressive CMYK": encoded(picture().convert("CMYK"), "JPEG", progressive=True),
    "PNG": PNG,
    "PNG with EXIF": encoded(picture().convert("RGBA"), exif=EXIF),
    "palette": encoded(picture().convert("P"), transparency=3),
    "16 bit": encoded(grey16(500)),
    "animated": encoded(picture(), save_all=True, append_images=[picture(1)]),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SEEDS)
def test_random_damage_is_decoded_or_put_aside_and_never_crashes(name):
    rng = random.Random(name)
    outcomes = set()
    for i in range(250):
        content = corrupted(SEEDS[name], rng)
        if i % 2 and not SEEDS[name].startswith(b"\xff\xd8"):
            content = with_checksums(content)
        try:
            pixels = decode(content, size=16, resize=rng.choice(["stretch", "crop", "pad"]))
        except UnreadableImage as error:
            assert str(error)
            outcomes.add("put aside")
        else:
            assert (pixels.shape, pixels.dtype) == ((16, 16, 3), np.uint8)
            outcomes.add("decoded")
    if name != "animated":  # which is refused undamaged too
        assert outcomes == {"put aside", "decoded"}


def test_all_values_of_16_bits_are_rounded_to_the_nearest():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = np.asarray(open_rgb(encoded(Image.fromarray(values))))[:, :, 0]
    assert (found == np.round(values / 257)).all()


def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded(tmp_path: Path):
    """Seventy bytes more each cost a pass over all pixels."""
    usual = encoded(picture(width=400, height=300), "JPEG", progressive=True, quality=90)
    assert 5 < usual.count(b"\xff\xda") < 20
    decode(usual, size=16)
    scan = usual[usual.rindex(b"\xff\xda") : -2]
    many = usual[:-2] + 200 * scan + usual[-2:]
    (tmp_path / "many.jpg").write_bytes(many)
    for image in (many, tmp_path / "many.jpg"):
        with pytest.raises(UnreadableImage, match="more scans than allowed"):
            decode(image, size=16)
