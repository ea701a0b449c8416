"""Handling of class imbalance by class weights, oversampling or Augmentor, on training images only."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL
from numpy.typing import NDArray
from PIL import Image

from melanoma.config.schema import BalanceConfig
from melanoma.data.cache import cached_folder, content_key
from melanoma.data.decode import open_rgb
from melanoma.data.progress import track
from melanoma.errors import ConfigError

__all__ = ["augment_files", "class_weights", "oversample"]


def class_weights(targets: NDArray[np.integer], classes: int) -> NDArray[np.float32]:
    """Compute class weights inversely proportional to class size, with mean 1 over the images (King & Zeng 2001).

    Args:
        targets: Class index of each training image.
        classes: Number of classes.
    """
    counts = np.bincount(targets, minlength=classes)
    return (len(targets) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)


def oversample(targets: NDArray[np.integer], seed: int) -> NDArray[np.int64]:
    """Return positions of training images in which smaller classes are repeated to the size of the largest class."""
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(targets == c) for c in np.unique(targets)]
    largest = max(len(group) for group in groups)
    positions = []
    for group in groups:
        whole, rest = divmod(largest, len(group))
        positions += [np.tile(group, whole), rng.choice(group, rest, replace=False)]
    return np.concatenate(positions)


def augment_files(root: Path, rows: pd.DataFrame, settings: BalanceConfig, seed: int) -> tuple[Path, pd.DataFrame]:
    """Generate new images of each class with Augmentor, from training images only.

    Augmentor's own `sample` uses a random generator that its threads share, and random file names. This function
    applies the operations to one file at a time with a separate seed per file, so that the same arguments give the
    same bytes.

    Args:
        root: Folder that `rows.path` is relative to.
        rows: Training rows with columns `path`, `label` and `sha256`.
        settings: `images_per_class` files are added to each class by `operations`, which are names of methods of
            `Augmentor.Pipeline` with their arguments, applied in order.
        seed: Seed of the choice of parents and of the operations.

    Returns:
        The folder of the new images, and a table with columns `path` (relative to the folder), `label` and `parent`.

    Raises:
        ConfigError: If Augmentor does not have an operation or does not accept its arguments.
    """
    pipeline = _operations(settings.operations)
    rows = rows.sort_values("path", ignore_index=True)
    made = _plan(rows, settings.images_per_class, seed)
    parents = [list(entry) for entry in rows[["path", "label", "sha256"]].itertuples(index=False)]
    key = content_key("augmentor-2", PIL.__version__, parents, settings.images_per_class, settings.operations, seed)

    def make(folder: Path) -> None:
        for number, row in enumerate(track(list(made.itertuples()), "Augmentor")):
            target = folder / row.path
            target.parent.mkdir(parents=True, exist_ok=True)
            _augment_one(root / row.parent, target, pipeline, f"{seed}/{number}")

    return cached_folder("augmentor", key, make), made


def _plan(rows: pd.DataFrame, images_per_class: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    planned = []
    for number, (label, group) in enumerate(rows.groupby("label", sort=True)):
        parents = group.path.to_numpy()[rng.integers(len(group), size=images_per_class)]
        planned += [(f"{number:03d}/{i:06d}.jpg", label, parent) for i, parent in enumerate(parents)]
    return pd.DataFrame(planned, columns=["path", "label", "parent"])


def _operations(operations: dict[str, dict[str, Any]]) -> Sequence[Any]:
    import Augmentor

    pipeline = Augmentor.Pipeline()
    for name, arguments in operations.items():
        method = getattr(pipeline, name, None)
        before = len(pipeline.operations)
        off = isinstance(arguments, dict) and arguments.get("probability") == 0  # Augmentor rejects this value
        try:
            if name.startswith("_") or not callable(method):
                raise TypeError("Augmentor.Pipeline has no such operation")
            method(**{**arguments, "probability": 1} if off else arguments)
        except Exception as error:
            raise ConfigError([f"balance.operations.{name}: {error}. Received: {name}({arguments})"]) from error
        if len(pipeline.operations) != before + 1:
            raise ConfigError([f"balance.operations.{name} adds no operation to a pipeline. Received: {name}"])
        if off:
            pipeline.operations[-1].probability = 0
    return pipeline.operations


def _augment_one(source: Path, target: Path, operations: Sequence[Any], seed: str) -> None:
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        random.seed(seed)
        np.random.seed(random.getrandbits(32))  # some operations use NumPy's generator
        images = [open_rgb(source, max_pixels=float("inf"))]  # the size of the parents has already been checked
        for operation in operations:
            # Augmentor compares a rounded draw with <=, so that 0.5 applies in 55% of the cases and 0 in 5%.
            if random.random() < operation.probability:
                images = _performed(operation, images, source)
        images[0].save(target, "JPEG", quality=95)
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def _performed(operation: Any, images: list[Image.Image], source: Path) -> list[Image.Image]:
    try:
        return operation.perform_operation(images)
    except Exception as error:
        raise ConfigError(
            [f"balance.operations: {type(operation).__name__} fails with these arguments ({error}). Received: {source}"]
        ) from error
