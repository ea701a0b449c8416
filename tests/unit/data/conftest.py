"""Helpers for the data tests: real images in temporary folders, an empty cache, other processes."""

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

NOBODY = 65534


def noise(seed: int, width: int = 20, height: int = 20) -> Image.Image:
    """A picture of smooth random colours: one content for one seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """`write_image(path, seed)` writes a picture of its own; the suffix says the format."""

    def write(path: Path, seed: int = 0, width: int = 20, height: int = 20) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(seed, width, height).save(path)
        return path

    return write


@pytest.fixture
def write_folders(write_image) -> Callable[..., Path]:
    """`write_folders(root, {"train/nevus": 3, ...})` writes so many pictures, all different, into each folder."""

    def write(root: Path, folders: dict[str, int], suffix: str = ".jpg") -> Path:
        seed = 0
        for folder, images in folders.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for i in range(images):
                write_image(root / folder / f"{i:03d}{suffix}", seed)
                seed += 1
        return root

    return write


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A temporary folder that every user may enter and write to; pytest's own are its user's alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def _lose_root() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


@pytest.fixture
def unprivileged() -> Iterator[Callable[..., Any]]:
    """`unprivileged(function, ...)` calls a module's function in a process that file permissions apply to."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), initializer=_lose_root) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result(timeout=60)
