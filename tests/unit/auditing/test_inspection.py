"""What one look at an image tells: its pixels, what is odd about it, and why it cannot be read."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma.auditing.inspection import Inspection, inspect_files
from melanoma.data.archive import file_sha256


@pytest.fixture
def inspect(cache):
    def call(files: list[Path], digests: list[str] | None = None, max_pixels: float = 3e6) -> Inspection:
        digests = digests or [file_sha256(file) for file in files]
        return inspect_files(files, digests, max_pixels=max_pixels)

    return call


def picture(seed: int = 0, width: int = 90, height: int = 70) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(60, 200, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def facts_of(inspect, image: Image.Image, path: Path, **save) -> pd.Series:
    image.save(path, **save)
    return inspect([path]).facts.iloc[0]


def test_the_same_pixels_have_the_same_hash_whatever_the_file(tmp_path, inspect):
    picture().save(tmp_path / "a.jpg", quality=90)
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "b.png")
        image.save(tmp_path / "c.png", compress_level=0)
        image.crop((0, 0, 89, 70)).save(tmp_path / "d.png")
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "e.png")
        image.save(tmp_path / "f.jpg", quality=60)
    files = sorted(tmp_path.glob("?.*"))
    facts = inspect(files).facts.loc[[file_sha256(file) for file in files]]
    assert facts.pixels.iloc[:3].nunique() == 1
    assert facts.pixels.nunique() == 4


def test_pixels_of_one_colour_differ_by_the_shape_of_the_image(tmp_path, inspect):
    files = []
    for width, height in [(20, 30), (30, 20), (60, 10)]:
        files.append(tmp_path / f"{width}.png")
        Image.new("RGB", (width, height), (9, 9, 9)).save(files[-1])
    assert inspect(files).facts.pixels.nunique() == 3


@pytest.mark.parametrize(
    ("image", "suffix", "expected"),
    [
        (Image.new("RGB", (40, 30), (128, 128, 128)), "png", ("PNG", "RGB", 0.502, 0.502, 0.502, 0)),
        (Image.new("RGB", (40, 30)), "png", ("PNG", "RGB", 0, 0, 0, 0)),
        (Image.new("RGB", (40, 30), (255, 255, 255)), "jpg", ("JPEG", "RGB", 1, 1, 1, 0)),
        (Image.new("L", (40, 30), 51), "png", ("PNG", "L", 0.2, 0.2, 0.2, 0)),
        (Image.new("CMYK", (40, 30), (0, 0, 0, 255)), "jpg", ("JPEG", "CMYK", 0, 0, 0, 0)),
    ],
)
def test_facts_of_images_of_one_colour(tmp_path, inspect, image, suffix, expected):
    facts = facts_of(inspect, image, tmp_path / f"x.{suffix}")
    assert (facts.width, facts.height, facts.format, facts["mode"]) == (40, 30, *expected[:2])
    measured = [facts.brightness, facts.darkest, facts.brightest, facts.contrast]
    np.testing.assert_allclose(measured, expected[2:], atol=0.005)
    assert facts.sharpness < 0.01


def test_facts_of_two_halves(tmp_path, inspect):
    image = Image.new("L", (100, 60), 255)
    image.paste(0, (0, 0, 50, 60))
    facts = facts_of(inspect, image, tmp_path / "x.png")
    assert (facts.brightness, facts.contrast, facts.darkest, facts.brightest) == (0.5, 0.5, 0, 1)
    assert facts.sharpness > 100


def test_a_blurred_image_is_less_sharp_than_a_fine_one_at_any_size(tmp_path, inspect):
    noise = np.random.default_rng(0).integers(0, 256, (600, 600), dtype=np.uint8)
    fine = Image.fromarray(noise)
    blurred = fine.resize((30, 30), Image.Resampling.BOX).resize((600, 600), Image.Resampling.BICUBIC)
    sharp, soft, large = (
        facts_of(inspect, image, tmp_path / f"{name}.png").sharpness
        for name, image in [("a", fine), ("b", blurred), ("c", blurred.resize((1500, 1500), Image.Resampling.BICUBIC))]
    )
    assert sharp > 10 * soft
    assert large == pytest.approx(soft, rel=0.1)


def test_a_picture_stored_sideways_is_measured_upright(tmp_path, inspect):
    exif = Image.Exif()
    exif[0x0112] = 6
    facts = facts_of(inspect, picture(width=80, height=50), tmp_path / "x.jpg", exif=exif)
    assert (facts.width, facts.height) == (50, 80)


def test_thumbnails_are_in_the_order_of_the_facts(tmp_path, inspect):
    files = [tmp_path / f"{level}.png" for level in (0, 60, 120, 180)]
    for file in files:
        Image.new("L", (70, 90), int(file.stem)).save(file)
    seen = inspect(files)
    assert seen.thumbnails.shape == (4, 64, 64)
    for digest, thumbnail in zip(seen.facts.index, seen.thumbnails, strict=True):
        [level] = [int(file.stem) for file in files if file_sha256(file) == digest]
        assert (thumbnail == level).all()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 500), (3000, 2), (63, 64), (700, 20)])
def test_images_of_odd_shapes_have_finite_facts(tmp_path, inspect, width, height):
    facts = facts_of(inspect, picture(0, width, height), tmp_path / "x.png")
    assert (facts.width, facts.height) == (width, height)
    assert np.isfinite(facts[["brightness", "darkest", "brightest", "contrast", "sharpness"]].astype(float)).all()


def test_files_that_cannot_be_read_keep_their_reasons(tmp_path, inspect):
    buffer = io.BytesIO()
    picture().save(buffer, "JPEG")
    contents = {
        "empty": b"", "text": b"not an image", "short": buffer.getvalue()[:600], "sound": buffer.getvalue(),
        "gif": b"GIF89a....",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / f"{name}.jpg").write_bytes(content)
    picture(0, 2000, 2000).save(tmp_path / "large.jpg")
    files = sorted(tmp_path.glob("*.jpg"))
    seen = inspect(files)
    reasons = {file.stem: seen.reasons[file_sha256(file)] for file in files if file.stem != "sound"}
    assert reasons.pop("short").startswith("damaged (")
    assert reasons == {
        "empty": "empty file",
        "text": "not an image",
        "gif": "GIF is not JPEG or PNG",
        "large": "more pixels than allowed (2000x2000)",
    }
    assert list(seen.facts.index) == [file_sha256(tmp_path / "sound.jpg")]


def test_a_second_look_reads_no_file(tmp_path, inspect):
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for i, file in enumerate(files):
        picture(i).save(file)
    (tmp_path / "bad.png").write_bytes(b"damaged")
    files.append(tmp_path / "bad.png")
    digests = [file_sha256(file) for file in files]
    first = inspect(files, digests)
    for file in files:
        file.unlink()
    again = inspect(files, digests)
    pd.testing.assert_frame_equal(again.facts, first.facts)
    np.testing.assert_array_equal(again.thumbnails, first.thumbnails)
    assert again.reasons == first.reasons == {digests[-1]: "not an image"}


def test_copies_are_looked_at_once(tmp_path, inspect):
    picture().save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    assert len(inspect([tmp_path / "a.png", tmp_path / "b.png"]).facts) == 1


def test_nothing_to_look_at(inspect):
    seen = inspect([])
    assert (len(seen.facts), seen.thumbnails.shape, seen.reasons) == (0, (0, 64, 64), {})
