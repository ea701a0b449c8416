"""Serving: a packaged model against the plain loop of `model.predict` for each file, on real or drawn images.

`python -m benchmarks.serving [model] [override ...]` (default binary150), with MELANOMA_DATA for melanoma10k. Each way
is measured in turns, several rounds, of which the median is told. All start from files, so that decoding is part of
each, but for `network`: the Keras model alone on pixels that are there, the limit that computing sets.
"""

import json
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import keras
import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import machine
from melanoma.config.launch import register_resolvers
from melanoma.models.build import build_network, with_probabilities
from melanoma.paths import conf_dir
from melanoma.serving.classifier import LesionClassifier
from melanoma.serving.export import convert, runner
from melanoma.workflows.stages import build

RESULTS = Path(__file__).parent / "serving.json"
ROUNDS, SINGLE, BATCH, PLAIN = 5, 200, 1024, 100


def files_in(folder: Path, count: int) -> list[Path]:
    """Test images of melanoma10k, written to a folder; drawn ones without the real."""
    archive = Path(os.environ.get("MELANOMA_DATA", "")) / "melanoma10k.zip"
    if archive.is_file():
        with zipfile.ZipFile(archive) as opened:
            names = [name for name in opened.namelist() if name.lower().endswith(".jpg")][-count:]
            return [Path(opened.extract(name, folder)) for name in names]
    rng = np.random.default_rng(0)
    files = [folder / f"{i}.jpg" for i in range(count)]
    for file in files:
        keras.utils.save_img(file, rng.integers(0, 256, (300, 300, 3)))
    return files


def classifier_of(model: str, overrides: Sequence[str] = ()) -> LesionClassifier:
    """A network of this project with the weights it begins with: speed does not depend on them."""
    register_resolvers()
    with initialize_config_dir(str(conf_dir())):
        config = compose("train", [f"model={model}", "data=melanoma10k", "data.path=none", *overrides])
    known = ("name", "classes", "epochs", "weights", "warmup_epochs", "finetune_factor")
    options = {key: value for key, value in OmegaConf.to_container(config.model).items() if key not in known}
    network = build_network(
        partial(build, "model", options), image_size=config.data.image_size, classes=2, policy="float32"
    )
    facts = {
        "classes": ["benign", "malignant"], "image_size": config.data.image_size, "resize": "stretch",
        "max_megapixels": 50, "operating_points": {"malignant": 0.5}, "binary_tasks": {}, "run_id": "none",
        "prediction_sets": {"coverage": 0.9, "threshold": 0.9}, "abstention": {"share": 0.1, "threshold": 0.6},
    }  # fmt: skip
    return LesionClassifier(with_probabilities(network), facts, "benchmark")


def milliseconds(call: Callable[[Path], object], files: list[Path]) -> list[float]:
    """Time for each file alone."""
    times = []
    for file in files:
        start = time.perf_counter()
        call(file)
        times.append(1000 * (time.perf_counter() - start))
    return times


def ways(classifier: LesionClassifier, folder: Path, files: list[Path]) -> tuple[dict, dict]:
    """What is called for one file, and for all of them, by way."""
    size = classifier.facts["image_size"]
    runners = {}
    for kind, suffix in (("onnx", ".onnx"), ("litert", ".tflite")):
        (folder / f"model{suffix}").write_bytes(convert(classifier, kind)[0])
        runners[kind] = runner(folder / f"model{suffix}")

    def plain(file: Path) -> np.ndarray:
        image = keras.utils.img_to_array(keras.utils.load_img(file, target_size=(size, size)))
        return classifier.model.predict(image[None], verbose=0)

    def by(kind: str, paths: list[Path]) -> None:
        for pixels in classifier.decoded(paths):
            classifier.decided(runners[kind](pixels.astype(np.float32)))

    single = {
        "plain": plain,
        "keras": lambda file: classifier.predict(pd.DataFrame({"image": [file]})),
        "onnx": lambda file: by("onnx", [file]),
        "litert": lambda file: by("litert", [file]),
    }
    many = {
        "keras": lambda: classifier.predict(pd.DataFrame({"image": files})),
        "onnx": lambda: by("onnx", files),
        "litert": lambda: by("litert", files),
    }
    pixels = np.concatenate(list(classifier.decoded(files)))
    many["network"] = lambda: [classifier.probabilities(pixels[i : i + 64]) for i in range(0, len(pixels), 64)]
    return single, many


def main() -> None:
    """Measure, print and write `benchmarks/serving.json`."""
    model, *overrides = sys.argv[1:] or ["binary150"]
    folder = Path(tempfile.mkdtemp(prefix="melanoma-serving-"))
    files = files_in(folder, BATCH)
    classifier = classifier_of(model, overrides)
    single, many = ways(classifier, folder, files)
    times: dict[str, list[float]] = {way: [] for way in single}
    rates: dict[str, list[float]] = {way: [] for way in (*single, *many)}
    for call in single.values():
        milliseconds(call, files[:5])
    for _ in range(ROUNDS):
        for way, call in single.items():
            found = milliseconds(call, files[: PLAIN if way == "plain" else SINGLE])
            times[way] += found
            if way == "plain":
                rates[way].append(1000 * len(found) / sum(found))
        for way, run in many.items():
            start = time.perf_counter()
            run()
            rates[way].append(len(files) / (time.perf_counter() - start))
    result: dict[str, dict] = {
        way: {"images_per_second": round(median(found), 1), "rounds": [round(rate, 1) for rate in found]}
        for way, found in rates.items()
    }
    for way, found in times.items():
        p50, p95 = (round(float(np.quantile(found, q)), 2) for q in (0.5, 0.95))
        result[way] |= {
            "p50_ms": p50,
            "p95_ms": p95,
            "latency_ratio": round(result["plain"].get("p50_ms", p50) / p50, 1),
        }
    for row in result.values():
        row["throughput_ratio"] = round(row["images_per_second"] / result["plain"]["images_per_second"], 1)
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    RESULTS.write_text(
        json.dumps(
            {
                **known,
                " ".join([model, *overrides]): {
                    "machine": machine(),
                    "image_size": classifier.facts["image_size"],
                    **result,
                },
            },
            indent=2,
        )
        + "\n"
    )
    table = Table("way", "one image, p50 ms", "p95 ms", "in batch, images/s", "times plain", "plain's p50 / p50")
    for way, row in result.items():
        shown = ("p50_ms", "p95_ms", "images_per_second", "throughput_ratio", "latency_ratio")
        table.add_row(way, *(str(row.get(name, "")) for name in shown))
    Console().print(table)


if __name__ == "__main__":
    main()
