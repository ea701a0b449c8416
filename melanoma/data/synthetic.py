"""Synthetic data set of drawn, dermoscopy-like lesions with known, planted faults."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from melanoma.data.lesions import SKIN_TONES, class_names, draw_lesion, lesion_style

__all__ = ["class_names", "draw_lesion", "lesion_style", "write_synthetic"]

TONE_SHARES = (0.15, 0.27, 0.25, 0.15, 0.1, 0.08)  # in the order of SKIN_TONES
SITES = ("anterior torso", "posterior torso", "lower extremity", "upper extremity", "head/neck")
TWO_VIEWS, MOST_LESIONS = 0.15, 3  # share of lesions with a second image; maximum lesions per patient
JPEG_QUALITY = 95
# Second entry of the seed of each random stream, after the user's seed.
PLAN, LESION, VIEW, PATIENT, FAULTS = range(5)
CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "resized": lambda image: image.resize((image.width * 3 // 4, image.height * 3 // 4)),
    "recompressed": lambda image: image,
    "flipped": ImageOps.mirror,
    "rotated": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "brightened": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
}


@dataclass(frozen=True)
class _Picture:
    number: int  # in the file name; random over all classes and parts, so that it reveals neither
    part: str
    label: int
    serial: int  # number of the lesion within its class; part of the seed of the drawing
    view: int
    lesion: int
    patient: int
    site: str


def write_synthetic(  # noqa: PLR0913 - keys of a configuration
    folder: Path,
    *,
    classes: Sequence[str],
    images: int,
    size: int = 96,
    seed: int = 0,
    imbalance: float = 1.0,
    test_share: float = 0.0,
    duplicates: int = 0,
    near_duplicates: int = 0,
    conflicts: int = 0,
    leaks: int = 0,
    unreadable: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw a data set into ``folder``, with ``metadata.csv`` and a list of the planted faults in ``truth.json``.

    The same arguments give the same bytes in every file. The drawing of a lesion depends only on the seed, its class,
    its number within the class and the skin tone of its patient, not on earlier drawings.

    Args:
        folder: Existing empty folder. Images are named ``<class>/lesion_00001.jpg`` and so on, in ``train`` and
            ``test`` if ``test_share`` is above 0.
        classes: Two or more different folder names, the largest class first.
        images: Number of drawn images of all classes. Planted copies and unreadable files are added to these.
        size: Width and height in pixels, 32 or more.
        seed: 0 or more.
        imbalance: Size of the first class divided by that of the last, 1 or more. Sizes in between are geometric.
        test_share: Share of each class in ``test``, from 0 to below 1. No patient is in both parts.
        duplicates: Number of exact duplicates in the same class, alternately with equal bytes and as PNG.
        near_duplicates: Number of near duplicates in the same class, in turn resized, recompressed, flipped, rotated
            by a quarter turn or brightened.
        conflicts: Number of copies with equal bytes in another class of the same part.
        leaks: Number of copies of test images with equal bytes in ``train``.
        unreadable: Number of unreadable files in class folders, in turn empty, truncated, text or with a garbage
            header. They have no row in ``metadata.csv``.
        progress: Function that is called with the number of images drawn so far and ``images``.

    Raises:
        ValueError: If an argument is out of range, or there are too few images for the planted faults.
    """
    _check_arguments(folder, classes, size, seed, imbalance, test_share)
    counts = _class_counts(len(classes), images, imbalance)
    wanted = np.rint(counts * test_share).astype(np.int64)
    tests = np.clip(wanted, 1, counts - 1) if test_share else wanted
    planted = {
        "duplicates": duplicates, "near_duplicates": near_duplicates, "conflicts": conflicts,
        "leaks": leaks, "unreadable": unreadable,
    }  # fmt: skip
    _check_planted(planted, images, int(tests.sum()))
    rows = []
    for done, picture in enumerate(_plan(counts - tests, tests, seed), 1):
        row = _row(picture, classes, seed)
        style = lesion_style(classes[picture.label], picture.label)
        lesion = np.random.default_rng([seed, LESION, picture.label, picture.serial])
        view = np.random.default_rng([seed, VIEW, picture.label, picture.serial, picture.view])
        pixels = draw_lesion(style, row["skin_tone"], size, lesion, view)
        path = folder / row["image"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=JPEG_QUALITY)
        rows.append(row)
        if progress:
            progress(done, images)
    planter = _Planter(folder, rows, classes, np.random.default_rng([seed, FAULTS]))
    planter.plant(**planted)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["image"]))
    (folder / "truth.json").write_text(json.dumps(planter.truth, indent=2) + "\n", encoding="utf-8")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _check_arguments(
    folder: Path, classes: Sequence[str], size: int, seed: int, imbalance: float, test_share: float
) -> None:
    _require(
        folder.is_dir() and not any(folder.iterdir()),
        f"The folder for the images must exist and be empty. Received: folder={folder}",
    )
    _require(
        len(set(classes)) == len(classes) >= 2 and all(_is_folder_name(name) for name in classes),
        f"Classes must be 2 or more different folder names: change them. Received: classes={list(classes)}",
    )
    _require(size >= 32, f"An image must be at least 32 pixels on each side: raise size. Received: size={size}")
    _require(seed >= 0, f"A seed must be 0 or more: choose another. Received: seed={seed}")
    _require(
        imbalance >= 1,
        "imbalance is the first class's images for each of the last's, 1 or more: order the classes by size. "
        f"Received: imbalance={imbalance}",
    )
    _require(
        0 <= test_share < 1,
        "test_share must be from 0 to below 1, as training needs images too: change it. "
        f"Received: test_share={test_share}",
    )


def _is_folder_name(name: str) -> bool:
    return Path(name).name == name not in ("", "..")


def _check_planted(planted: dict[str, int], images: int, tests: int) -> None:
    _require(min(planted.values()) >= 0, f"Fault counts must be 0 or more: raise them. Received: {planted}")
    _require(
        planted["leaks"] <= tests,
        f"Each leak copies a different test image, and there are {tests}: raise test_share or plant fewer leaks. "
        f"Received: leaks={planted['leaks']}",
    )
    copies = sum(planted.values()) - planted["unreadable"]
    _require(
        copies <= images,
        f"Each of the {copies} planted copies needs a different image: raise images or plant fewer. "
        f"Received: images={images}",
    )


def _class_counts(classes: int, images: int, imbalance: float) -> NDArray[np.int64]:
    weights = imbalance ** -np.linspace(0, 1, classes)
    exact = images * weights / weights.sum()
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: images - counts.sum()]] += 1
    _require(
        counts.min() >= 2,
        f"Each class needs 2 or more images, and the smallest would get {counts.min()}: raise images or "
        f"lower imbalance. Received: images={images}, imbalance={imbalance}, {classes} classes",
    )
    return counts


def _plan(train: NDArray[np.int64], test: NDArray[np.int64], seed: int) -> Iterator[_Picture]:
    """Assign the images to lesions with one or two views, and the lesions to patients within one part."""
    rng = np.random.default_rng([seed, PLAN])
    numbers = iter(rng.permutation(train.sum() + test.sum()) + 1)
    serials = [count(0) for _ in train]
    patient = lesion = 0
    for part, sizes in (("train" if test.any() else "", train), ("test", test)):
        labels_and_views = [item for label, size in enumerate(sizes) for item in _lesions(label, size, rng)]
        spare = 0
        for index in rng.permutation(len(labels_and_views)):
            if not spare:
                patient, spare = patient + 1, int(rng.integers(1, MOST_LESIONS + 1))
            lesion, spare = lesion + 1, spare - 1
            label, views = labels_and_views[index]
            serial, site = next(serials[label]), str(rng.choice(SITES))
            for view in range(views):
                yield _Picture(int(next(numbers)), part, label, serial, view, lesion, patient, site)


def _lesions(label: int, images: int, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    while images > 0:
        views = 2 if images > 1 and rng.random() < TWO_VIEWS else 1
        images -= views
        yield label, views


def _row(picture: _Picture, classes: Sequence[str], seed: int) -> dict[str, str]:
    rng = np.random.default_rng([seed, PATIENT, picture.patient])
    label = classes[picture.label]
    return {
        "image": PurePosixPath(picture.part, label, f"lesion_{picture.number:05d}.jpg").as_posix(),
        "label": label,
        "lesion": f"L{picture.lesion:05d}",
        "patient": f"P{picture.patient:05d}",
        "age": str(int(np.clip(rng.normal(54, 16), 18, 90))),
        "sex": str(rng.choice(["female", "male"])),
        "site": picture.site,
        "skin_tone": str(rng.choice(list(SKIN_TONES), p=TONE_SHARES)),
    }


class _Planter:
    """Planter of known faults in a drawn data set. Each fault uses a different image and is listed in ``truth``."""

    def __init__(
        self, folder: Path, rows: list[dict[str, str]], classes: Sequence[str], rng: np.random.Generator
    ) -> None:
        faults = ("exact_duplicates", "near_duplicates", "label_conflicts", "split_leaks", "unreadable")
        self.truth: dict[str, list[Any]] = {fault: [] for fault in faults}
        self._folder, self._rows, self._classes, self._rng = folder, rows, classes, rng
        self._numbers = count(len(rows) + 1)
        self._drawn = [row["image"] for row in rows]
        self._originals = [rows[index] for index in rng.permutation(len(rows))]

    def plant(self, duplicates: int, near_duplicates: int, conflicts: int, leaks: int, unreadable: int) -> None:
        # Leaks come first, because only they require test images.
        leaked = [row for row in self._originals if row["image"].startswith("test/")][:leaks]
        for row in leaked:
            self._originals.remove(row)
            self.truth["split_leaks"].append(self._copy_bytes(row, PurePosixPath("train", row["label"])))
        for index in range(duplicates):
            self.truth["exact_duplicates"].append(self._duplicate(self._originals.pop(), as_png=index % 2 == 1))
        for change, _ in zip(cycle(CHANGES), range(near_duplicates), strict=False):
            images = self._near_duplicate(self._originals.pop(), change)
            self.truth["near_duplicates"].append({"images": images, "change": change})
        for _ in range(conflicts):
            self.truth["label_conflicts"].append(self._conflict(self._originals.pop()))
        for reason, _ in zip(cycle(("empty", "truncated", "text", "garbage header")), range(unreadable), strict=False):
            self.truth["unreadable"].append({"image": self._unreadable(reason), "reason": reason})

    def _new_path(self, folder: PurePosixPath, suffix: str = ".jpg") -> str:
        return (folder / f"lesion_{next(self._numbers):05d}{suffix}").as_posix()

    def _note(self, row: dict[str, str], copy: str) -> list[str]:
        self._rows.append({**row, "image": copy, "label": PurePosixPath(copy).parent.name})
        return [row["image"], copy]

    def _copy_bytes(self, row: dict[str, str], folder: PurePosixPath) -> list[str]:
        copy = self._new_path(folder)
        shutil.copyfile(self._folder / row["image"], self._folder / copy)
        return self._note(row, copy)

    def _duplicate(self, row: dict[str, str], as_png: bool) -> list[str]:
        folder = PurePosixPath(row["image"]).parent
        if not as_png:
            return self._copy_bytes(row, folder)
        copy = self._new_path(folder, ".png")
        with Image.open(self._folder / row["image"]) as image:
            image.save(self._folder / copy)
        return self._note(row, copy)

    def _near_duplicate(self, row: dict[str, str], change: str) -> list[str]:
        copy = self._new_path(PurePosixPath(row["image"]).parent)
        with Image.open(self._folder / row["image"]) as image:
            quality = 60 if change == "recompressed" else JPEG_QUALITY
            CHANGES[change](image).save(self._folder / copy, quality=quality)
        return self._note(row, copy)

    def _conflict(self, row: dict[str, str]) -> list[str]:
        others = [name for name in self._classes if name != row["label"]]
        folder = PurePosixPath(row["image"]).parent
        return self._copy_bytes(row, folder.with_name(str(self._rng.choice(others))))

    def _unreadable(self, reason: str) -> str:
        near = PurePosixPath(str(self._rng.choice(self._drawn)))
        sound = (self._folder / near).read_bytes()
        content = {
            "empty": b"",
            "truncated": sound[: len(sound) // 3],
            "text": b"This is not an image.\n",
            "garbage header": b"\xde\xad\xbe\xef" * 8 + sound[32:],
        }[reason]
        path = self._new_path(near.parent)
        (self._folder / path).write_bytes(content)
        return path
