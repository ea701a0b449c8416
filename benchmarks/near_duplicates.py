"""How many changed copies the audit finds, and what else it takes for one: `python -m benchmarks.near_duplicates`.

Copies of random images are planted beside the set, each image changed in one way, and the whole is audited. Recall is
the share of copies that end up in one cluster with their original. On the drawn set every other cluster is a false one;
on real sets, which have near duplicates of their own, the other clusters are counted for a look at them.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from rich.console import Console
from rich.table import Table

from melanoma.auditing.audit import audit_source
from melanoma.config.schema import ArchiveConfig, AuditConfig
from melanoma.data.decode import open_rgb
from melanoma.data.sources import Source, class_folders, open_path, synthetic

COPIES = 100  # of each change
RESULTS = Path(__file__).parent / "near_duplicates.json"
ROTATE = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def cropped(most: float) -> Change:
    """Each side cut by up to a share, one of them by all of it."""

    def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        left, top, right, bottom = rng.permutation([most, *rng.uniform(0, most, 3)])
        width, height = image.size
        return image.crop((int(left * width), int(top * height), int((1 - right) * width), int((1 - bottom) * height)))

    return crop


def resized(factor: float) -> Change:
    """Scaled by a factor."""
    return lambda image, _: image.resize((round(image.width * factor), round(image.height * factor)))


def brightened(factor: float) -> Change:
    """Brightness times a factor; what is too bright is cut off."""
    return lambda image, _: ImageEnhance.Brightness(image).enhance(factor)


def blurred(share: float) -> Change:
    """Blurred with a radius that is a share of the shorter side."""
    return lambda image, _: image.filter(ImageFilter.GaussianBlur(share * min(image.size)))


def all_at_once(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cropped by up to 3%, mirrored, turned, darkened and scaled."""
    image = ImageOps.mirror(cropped(0.03)(image, rng)).transpose(ROTATE[0])
    return resized(0.7)(brightened(0.9)(image, rng), rng)


# name: change, JPEG quality
CHANGES: dict[str, tuple[Change, int]] = {
    "JPEG quality 60": (lambda image, _: image, 60),
    "JPEG quality 30": (lambda image, _: image, 30),
    "half the size": (resized(0.5), 90),
    "1.5 times the size": (resized(1.5), 90),
    "cropped by up to 2% a side": (cropped(0.02), 90),
    "cropped by up to 5% a side": (cropped(0.05), 90),
    "cropped by up to 10% a side": (cropped(0.10), 90),
    "mirrored or flipped": (lambda i, rng: ImageOps.mirror(i) if rng.random() < 0.5 else ImageOps.flip(i), 90),
    "turned by 90, 180 or 270 degrees": (lambda i, rng: i.transpose(ROTATE[rng.integers(3)]), 90),
    "20% darker": (brightened(0.8), 90),
    "20% brighter": (brightened(1.2), 90),
    "blurred, radius 1% of a side": (blurred(0.01), 90),
    "blurred, radius 2% of a side": (blurred(0.02), 90),
    "blurred, radius 5% of a side": (blurred(0.05), 90),
    "cropped 3%, mirrored, turned, 10% darker, 0.7 the size": (all_at_once, 75),
}


def planted(source: Source, folder: Path, rng: np.random.Generator) -> pd.DataFrame:
    """Write the copies below `folder` and list them: `path`, `original`, `change`."""
    needed = COPIES * len(CHANGES)
    originals = rng.permutation(source.table.path)[:needed]
    rows = []
    for number, original in enumerate(originals):
        name = list(CHANGES)[number % len(CHANGES)]
        change, quality = CHANGES[name]
        path = f"{number:06d}.jpg"
        change(open_rgb(source.root / original), rng).save(folder / path, quality=quality)
        rows.append((path, original, name))
    return pd.DataFrame(rows, columns=["path", "original", "change"])


def measure(source: Source) -> dict[str, Any]:
    """Recall by change, and the clusters that hold neither a planted copy nor equal pictures."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        copies = planted(source, Path(folder), rng)
        label = source.table.set_index("path").label
        added = pd.DataFrame({"path": [f"{folder}/{p}" for p in copies.path], "part": ""})
        added["label"] = copies.original.map(label).to_numpy()
        # An absolute path takes the place of the root when the two are joined.
        table = pd.concat([source.table[["path", "label", "part"]], added], ignore_index=True)
        whole = Source(source.root, table, source.classes)
        with mock.patch.dict(os.environ, {"MELANOMA_CACHE_DIR": str(Path(folder, "cache"))}):
            audit = audit_source(whole, AuditConfig(), max_megapixels=178)
    cluster = audit.table.set_index("path").cluster
    found = cluster[[f"{folder}/{p}" for p in copies.path]].to_numpy() == cluster[copies.original].to_numpy()
    by_change = {change: float(rows.mean()) for change, rows in pd.Series(found).groupby(copies.change.to_numpy())}
    own = audit.table[~audit.table.path.str.startswith(folder)]
    others = own.groupby("cluster").pixels.nunique()
    return {
        "images": len(source.table),
        "copies of each change": COPIES,
        "recall": {change: by_change[change] for change in CHANGES if change in by_change},
        "clusters of the set's own images": int((others > 1).sum()),
    }


def main() -> None:
    """Measure the drawn set, and the real ones where they are."""
    drawn = synthetic(None, classes=4, images=3000, size=180, seed=7)
    lesions = drawn.table.drop_duplicates("lesion")  # two views of a lesion are alike, rightly
    sources = {"drawn lesions": Source(drawn.root, lesions.reset_index(drop=True), drawn.classes)}
    data = os.environ.get("MELANOMA_DATA")
    for name in ("isic9", "melanoma10k") if data else ():
        sources[name] = class_folders(open_path(f"{data}/{name}.zip", ArchiveConfig()))
    wanted = sys.argv[1:] or list(sources)
    results = {name: measure(sources[name]) for name in wanted}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    table = Table("change", *results, title="Recall of planted copies", title_justify="left")
    for change in CHANGES:
        table.add_row(change, *(f"{r['recall'].get(change, float('nan')):.2f}" for r in results.values()))
    table.add_row(
        "clusters of the set's own images", *(str(r["clusters of the set's own images"]) for r in results.values())
    )
    Console().print(table)


if __name__ == "__main__":
    main()
