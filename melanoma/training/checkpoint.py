"""Checkpoints of a training on disk: the last two, each a folder that appears whole or not at all."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from melanoma import __version__
from melanoma.data.cache import damaged_file, write_folder
from melanoma.errors import ModelError
from melanoma.paths import cache_dir, user_path

__all__ = ["Checkpoints", "State", "checkpoints_of", "home_of"]

log = logging.getLogger("melanoma")

_FORMAT = 1
_KEPT = 2
_STATE, _ARRAYS = "state.json", "arrays.npz"
_PACKAGES = ("tensorflow", "keras", "numpy")


@dataclass(frozen=True)
class State:
    """The state of a training after some epochs and batches.

    Attributes:
        phase: Number of the phase, from 0.
        epoch: Number of complete epochs.
        step: Number of batches since then.
        over: Whether the phase ended early.
        limit_reached: Whether it did because of the time limit.
        seconds: Time that is used up, if it is limited.
        kept_value: Monitor of the kept weights, with the sign by which lower is better; NaN if none are kept.
        kept_epoch: Epoch, from 0, of the kept weights.
        history: Metrics of each epoch.
        callbacks: Values of the callbacks that have a state.
        arrays: Variables of `network`, `optimizer` and `metrics`, and the weights `kept`.
    """

    phase: int
    epoch: int
    step: int
    over: bool
    limit_reached: bool
    seconds: float
    kept_value: float
    kept_epoch: int
    history: list[dict[str, float]]
    callbacks: list[dict[str, Any]]
    arrays: Mapping[str, Sequence[NDArray]]

    @property
    def place(self) -> str:
        """How far the training is, in words."""
        return _in_words(self.epoch, self.step)


class Checkpoints:
    """The checkpoints of a run in a folder with the ID of the run as its name."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._failed = False

    def save(self, state: State) -> None:
        """Write a checkpoint, and remove all but the last two. If that is not possible, warn and go on."""
        final = self.folder / f"{state.epoch:05d}-{state.step:08d}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if final.exists():
                shutil.rmtree(final)
            write_folder(final, lambda folder: self._write(folder, state), durable=True)
        except OSError as error:
            if not self._failed:
                last = self.last_place
                log.warning(
                    "The checkpoint cannot be written (%s); if the training is interrupted, it can go on %s. Make "
                    "space, or name another folder by training.checkpoint.folder. Received: %s",
                    error.strerror, f"after {last}" if last else "from its beginning only", self.folder,
                )  # fmt: skip
            self._failed = True
            return
        self._failed = False
        for old in self._all()[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self) -> State | None:
        """Return the last state that is not damaged; None if there is none.

        Raises:
            ModelError: If a checkpoint was written by a newer version, or for another run.
        """
        for unfinished in self.folder.glob(".*.tmp"):
            shutil.rmtree(unfinished, ignore_errors=True)
        for folder in reversed(self._all()):
            damage = damaged_file(folder, thoroughly=True)
            if damage is None:
                with suppress(ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile):
                    return self._read(folder)
            log.warning("A checkpoint is damaged, and the one before it is used: %s", folder)
            shutil.rmtree(folder, ignore_errors=True)
        return None

    @property
    def last_place(self) -> str:
        """How far the last checkpoint is, in words; empty if there is none."""
        folders = self._all()
        if not folders:
            return ""
        return _in_words(*map(int, folders[-1].name.split("-")))

    def remove(self) -> None:
        """Remove all checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("[0-9]*-[0-9]*") if path.is_dir())

    def _write(self, folder: Path, state: State) -> None:
        with (folder / _ARRAYS).open("wb") as file:
            arrays: Any = {f"{name}/{i}": one for name, group in state.arrays.items() for i, one in enumerate(group)}
            np.savez(file, **arrays)
        sizes = {name: len(group) for name, group in state.arrays.items()}
        about = {"format": _FORMAT, "run": self.folder.name, "versions": _versions()}
        values = {**asdict(state), "arrays": sizes}
        (folder / _STATE).write_text(json.dumps({**about, "state": values}), encoding="utf-8")

    def _read(self, folder: Path) -> State:
        content = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        if content["format"] > _FORMAT:
            raise ModelError(
                f"The checkpoint was written by a newer version of melanoma ({content['versions']['melanoma']}); "
                f"resume with that version. Received: {folder}"
            )
        if content["run"] != self.folder.name:
            raise ModelError(f"The checkpoint belongs to the run {content['run']}. Received: {folder}")
        own = _versions()
        changed = [f"{name} {old}, now {own[name]}" for name, old in content["versions"].items() if old != own[name]]
        if changed:
            log.warning("The checkpoint was written with %s; numbers may differ in the last digits", ", ".join(changed))
        values = content["state"]
        with np.load(folder / _ARRAYS, allow_pickle=False) as file:
            arrays = {name: [file[f"{name}/{i}"] for i in range(size)] for name, size in values["arrays"].items()}
        return State(**{**values, "arrays": arrays})


def _in_words(epoch: int, step: int) -> str:
    return f"epoch {epoch}" + (f" and {step} batches" if step else "")


def checkpoints_of(folder: str | None, run_id: str) -> Checkpoints:
    """Return the checkpoints of a run.

    Args:
        folder: `training.checkpoint.folder`; None for the cache.
        run_id: ID of the run.
    """
    return Checkpoints(home_of(folder) / run_id)


def home_of(folder: str | None) -> Path:
    """Return the folder of the checkpoints of all runs; the argument is as in `checkpoints_of`."""
    return cache_dir() / "checkpoints" if folder is None else user_path(folder)


def _versions() -> dict[str, str]:
    return {"melanoma": __version__, **{name: version(name) for name in _PACKAGES}}
