"""Seconds from the start of the process to the accuracy that a plain Keras script reaches at its best.

The task is that of `experiment=binary150`, as it was done: 10 epochs, validated on the test images, for which every
fifth image of melanoma10k stands here. `python -m benchmarks.time_to_accuracy` measures the script, then `melanoma
train` from the same folders, each time with an empty cache: its own audit and decoding count.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.__main__ import machine
from benchmarks.training import BATCH, SIZE, plain_generator, plain_network

EPOCHS = 10
RESULTS = Path(__file__).parent / "time_to_accuracy.json"
WAYS = {
    "binary150": [],
    "binary150, another recipe": ["augmentation=flip_rotate", "schedule=cosine"],
    "resnet_small": [
        "model=resnet_small", "model.patch=4", "data.image_size=96", "augmentation=flip_rotate", "training.epochs=9",
    ],
}  # fmt: skip
Curve = list[tuple[float, float]]  # seconds since the start, validation accuracy; one of each epoch


def unpack(folder: Path) -> None:
    """The images of melanoma10k, every fifth of each class under `test`."""
    with zipfile.ZipFile(Path(os.environ["MELANOMA_DATA"]) / "melanoma10k.zip") as archive:
        archive.extractall(folder)
    for label in ("benign", "malignant"):
        (folder / "test" / label).mkdir(parents=True)
        for image in sorted((folder / "train" / label).iterdir())[::5]:
            image.rename(folder / "test" / label / image.name)


def plain(folder: Path) -> None:
    """As tutorials write it: ImageDataGenerator over class folders, float32. Prints one line of JSON an epoch."""
    import keras
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    keras.utils.set_random_seed(0)
    chosen = {"target_size": (SIZE, SIZE), "batch_size": BATCH, "class_mode": "binary"}
    train = plain_generator().flow_from_directory(folder / "train", **chosen)
    test = ImageDataGenerator(rescale=1 / 255).flow_from_directory(folder / "test", **chosen)
    model = plain_network()
    told = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda _, logs: print(json.dumps({"accuracy": logs["val_accuracy"]}), flush=True)
    )
    model.fit(train, validation_data=test, epochs=EPOCHS, callbacks=[told], verbose=0)


def plain_curve(folder: Path) -> Curve:
    """The script, in a process of its own."""
    start = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.time_to_accuracy", "plain", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert process.stdout is not None
    curve = [(time.time() - start, json.loads(line)["accuracy"]) for line in process.stdout if line.startswith("{")]
    if process.wait() or len(curve) != EPOCHS:
        sys.exit("The plain script failed.")
    return curve


def our_curve(folder: Path, scratch: Path, cache: Path, overrides: list[str]) -> Curve:
    """`melanoma train`; its epochs are read from the tracking store."""
    import mlflow

    uri = f"sqlite:///{scratch / f'{time.time_ns()}.db'}"
    start = time.time()
    done = subprocess.run(
        [Path(sys.executable).parent / "melanoma", "train", "experiment=binary150", "protocol=published",
         f"data.path={folder}", f"tracking.uri={uri}", *overrides],
        cwd=scratch, capture_output=True, text=True, check=False,
        env={**os.environ, "MELANOMA_CACHE_DIR": str(cache)},
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"melanoma train failed:\n{done.stderr[-3000:]}")
    client = mlflow.MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'binary150'")
    (run,) = client.search_runs([experiment.experiment_id])
    epochs = sorted(client.get_metric_history(run.info.run_id, "val/accuracy"), key=lambda metric: metric.step)
    return [(metric.timestamp / 1000 - start, metric.value) for metric in epochs]


def seconds_to(curve: Curve, accuracy: float) -> float | None:
    """When an epoch ended that was as good, or None."""
    return next((seconds for seconds, reached in curve if reached >= accuracy), None)


def best(*curves: Curve) -> float:
    """The highest accuracy that each of them has in some epoch."""
    return min(max(accuracy for _, accuracy in curve) for curve in curves)


def compared(theirs: Curve, ours: Curve, accuracy: float) -> dict[str, float | None]:
    """Seconds of both to an accuracy that theirs reaches, and how many times less ours are, if it does."""
    script, seconds = seconds_to(theirs, accuracy), seconds_to(ours, accuracy)
    times = script / seconds if script and seconds else None
    return {"accuracy": accuracy, "script": script, "seconds": seconds, "times": times}


def main() -> None:
    """Measure, print and write `benchmarks/time_to_accuracy.json`."""
    with tempfile.TemporaryDirectory(prefix="melanoma-benchmark-") as name:
        scratch = Path(name)
        images = scratch / "images"
        unpack(images)
        curves = {"plain": plain_curve(images)}
        for way, overrides in WAYS.items():
            curves[way] = our_curve(images, scratch, scratch / f"cache of {way}", overrides)
    theirs = curves["plain"]
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "to_the_best_of_the_script": {way: compared(theirs, curves[way], best(theirs)) for way in WAYS},
        "to_the_best_of_both": {way: compared(theirs, curves[way], best(theirs, curves[way])) for way in WAYS},
        "overrides": WAYS,
        "epochs": curves,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    plain(Path(sys.argv[2])) if sys.argv[1:2] == ["plain"] else main()
