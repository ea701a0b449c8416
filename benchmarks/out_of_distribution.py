"""How many images of other kinds the out-of-distribution score flags, and how many of the same kind.

`python -m benchmarks.out_of_distribution` (needs MELANOMA_DATA). Each network is trained for some epochs on one of the
real sets, with seed 0. The images of other kinds are the other set, drawn lesions, crops of three photographs that show
no skin, noise, and the model's own test images after changes: another order of the colour channels, three times the
contrast, 40% of the light, and blur with a radius of 5% of a side.
"""

import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import cbook
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score

import melanoma
from benchmarks.__main__ import machine
from melanoma.data.sources import synthetic
from melanoma.serving.classifier import LesionClassifier
from melanoma.serving.package import load_classifier

RESULTS = Path(__file__).parent / "out_of_distribution.json"
IMAGES = 400  # of each kind, at most
NETWORKS = {
    "m1, 64 px": {"model": "m1", "data.image_size": 64, "training.epochs": 6},
    "resnet_small, 96 px": {"model": "resnet_small", "data.image_size": 96, "training.epochs": 4},
}
SETS = ("melanoma10k", "isic9")
Pictures = list[Image.Image]
CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "channels in another order": lambda image: Image.merge("RGB", image.split()[::-1]),
    "three times the contrast": lambda image: ImageEnhance.Contrast(image).enhance(3),
    "40% of the light": lambda image: ImageEnhance.Brightness(image).enhance(0.4),
    "blurred, radius 5% of a side": lambda image: image.filter(ImageFilter.GaussianBlur(0.05 * min(image.size))),
}


def photographs(rng: np.random.Generator) -> Pictures:
    """Square crops of a temple, a flower and a portrait."""
    wholes = [Image.fromarray(one) for one in load_sample_images().images]
    wholes.append(Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB"))
    found = []
    for whole in wholes:
        for _ in range(IMAGES // 8):
            side = int(min(whole.size) * rng.uniform(0.3, 1))
            left, top = (int(rng.integers(0, length - side + 1)) for length in whole.size)
            found.append(whole.crop((left, top, left + side, top + side)))
    return found


def drawings() -> Pictures:
    """Drawn lesions."""
    source = synthetic(None, images=IMAGES // 2, size=128, seed=3)
    return [Image.open(source.root / path).convert("RGB") for path in source.table.path]


def some_of(archive: Path, names: list[str], rng: np.random.Generator) -> Pictures:
    """Images of an archive, drawn at random."""
    with zipfile.ZipFile(archive) as file:
        drawn = [names[i] for i in rng.permutation(len(names))[:IMAGES]]
        return [Image.open(file.open(name)).convert("RGB") for name in drawn]


def names_in(archive: Path, wanted: set[str] | None = None) -> list[str]:
    """Names of the images of an archive; with `wanted`, only those that end in one of these paths."""
    with zipfile.ZipFile(archive) as file:
        names = [name for name in file.namelist() if name.endswith(".jpg")]
    if wanted is None:
        return names
    return [name for name in names if any(part in wanted for part in endings(name))]


def endings(name: str) -> list[str]:
    """All paths that a name ends in."""
    parts = name.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def scores(model: LesionClassifier, pictures: Pictures) -> NDArray:
    """Out-of-distribution scores of pictures."""
    return model.predict(pd.DataFrame({"image": [np.asarray(one) for one in pictures]}))["ood_score"].to_numpy()


def measure(model: LesionClassifier, tested: Pictures, kinds: dict[str, Pictures]) -> dict[str, dict[str, float]]:
    """Share of flagged images, and the AUC of the score against the model's own test images."""
    own = scores(model, tested)
    found = {"own test images": {"images": len(own), "flagged": float((own > 1).mean())}}
    changed = {name: [change(one) for one in tested] for name, change in CHANGES.items()}
    for name, pictures in {**kinds, **changed}.items():
        other = scores(model, pictures)
        labels = np.repeat([0, 1], [len(own), len(other)])
        auc = float(roc_auc_score(labels, np.concatenate([own, other])))
        found[name] = {"images": len(other), "flagged": float((other > 1).mean()), "auc": auc}
    return found


def main() -> None:
    """Measure all networks on both sets, and write the file."""
    folder = os.environ.get("MELANOMA_DATA")
    if not folder:
        sys.exit("MELANOMA_DATA must name the folder of melanoma10k.zip and isic9.zip")
    archives = {name: Path(folder) / f"{name}.zip" for name in SETS}
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8)) for _ in range(IMAGES // 4)]
    with tempfile.TemporaryDirectory() as store:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{store}/mlflow.db"
        same = {"drawn lesions": drawings(), "photographs, no skin": photographs(rng), "noise": noise}
        measured = {}
        for name, keys in NETWORKS.items():
            for own, other in (SETS, SETS[::-1]):
                common = {"split.test": 0.2, "tracking.figures": False, "tracking.system_metrics": False}
                run = melanoma.train(data=own, **keys, **common, **{"data.path": str(archives[own])})
                split = run.record.split
                tested = some_of(archives[own], names_in(archives[own], {*split.path[split.part == "test"]}), rng)
                kinds = {f"{other} images": some_of(archives[other], names_in(archives[other]), rng), **same}
                found = measure(load_classifier(run.id), tested, kinds)
                auc = float(run.metrics.value["test/auc"])
                measured[f"{name}, {own}"] = {"test_auc": auc, **found}
                sys.stdout.write(f"{name}, {own}: {json.dumps(measured[f'{name}, {own}'])}\n")
                sys.stdout.flush()
    RESULTS.write_text(json.dumps({"machine": machine(), "share": 0.01, "measured": measured}, indent=2) + "\n")


if __name__ == "__main__":
    main()
