"""Other names of configuration keys: short ones, and old ones that work, with a warning, until the next version."""

import logging
from collections.abc import Iterable, MutableMapping
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

__all__ = ["move_renamed", "short_names", "with_full_names", "with_new_names"]

log = logging.getLogger("melanoma")

# Section of the configuration: old key, new key.
_RENAMED = {"data": {"views": "binary_tasks"}, "registry": {"views": "binary_tasks"}}

# Names that people type, of keys of `melanoma train`.
_SHORT = {
    "lr": "optimizer.learning_rate",
    "learning_rate": "optimizer.learning_rate",
    "optimizer.lr": "optimizer.learning_rate",
    "training.learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "epochs": "training.epochs",
    "epoch": "training.epochs",
    "training.num_epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "training.bs": "training.batch_size",
    "image_size": "data.image_size",
    "img_size": "data.image_size",
    "patience": "training.early_stopping.patience",
    "run_name": "tracking.run_name",
}
_FIND = "training.find_learning_rate=true"


def short_names(keys: Iterable[str]) -> set[str]:
    """Return the short names of some keys."""
    wanted = set(keys)
    return {short for short, full in _SHORT.items() if full in wanted}


def with_full_names(arguments: Iterable[str]) -> list[str]:
    """Replace short names of keys in the arguments of `melanoma train` or a sweep, and say so."""
    found = []
    for word in arguments:
        key, separator, value = word.partition("=")
        full = _SHORT.get(key) if separator else None
        if value == "find" and (full or key) == "optimizer.learning_rate":
            _note(word, _FIND)
            found.append(_FIND)
            continue
        if full is not None:
            _note(key, full)
        found.append(word if full is None else f"{full}={value}")
    return found


def with_new_names(arguments: Iterable[str]) -> list[str]:
    """Replace the old names of keys in command-line arguments."""
    return [_with_new_name(word) for word in arguments]


def move_renamed(config: MutableMapping[Any, Any], overrides: Iterable[str] = ()) -> None:
    """Move values from old keys to new keys, in a composed configuration or in the stored configuration of a run.

    Args:
        config: Configuration, changed in place.
        overrides: Command-line overrides with new names. They take precedence over values that files set under old
            names.
    """
    for section, names in _RENAMED.items():
        node = config.get(section)
        for old, new in names.items():
            if not isinstance(node, MutableMapping | DictConfig) or old not in node:
                continue
            if not isinstance(node, DictConfig):
                node[new] = node.pop(old)
                continue
            _warn(f"{section}.{old}", f"{section}.{new}")
            with open_dict(node):
                given = node.pop(old)
                node[new] = None if given is None else {**(node.get(new) or {}), **given}
            _apply(config, f"{section}.{new}", overrides)


def _apply(config: Any, key: str, overrides: Iterable[str]) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for override in OverridesParser.create().parse_overrides(list(overrides)):
        name = override.key_or_group
        if override.is_sweep_override() or not (name == key or name.startswith(f"{key}.")):
            continue
        if not override.is_delete():
            OmegaConf.update(config, name, override.value(), force_add=True)
            continue
        parent, _, last = name.rpartition(".")
        node = OmegaConf.select(config, parent)
        with open_dict(node):
            node.pop(last, None)


def _with_new_name(word: str) -> str:
    key, separator, value = word.partition("=")
    sign, bare = key[: len(key) - len(key.lstrip("+~"))], key.lstrip("+~")
    for section, names in _RENAMED.items():
        for old, new in names.items():
            if bare == f"{section}.{old}" or bare.startswith(f"{section}.{old}."):
                _warn(f"{section}.{old}", f"{section}.{new}")
                bare = bare.replace(f"{section}.{old}", f"{section}.{new}", 1)
                # A file may define the task under the old name, so that the new key does not exist yet.
                sign = "++" if separator and sign != "~" and bare.startswith(f"{section}.{new}.") else sign
    return f"{sign}{bare}{separator}{value}"


@cache  # once per key
def _note(short: str, full: str) -> None:
    log.warning("%s is short for %s", short, full)


@cache  # warn once per key
def _warn(old: str, new: str) -> None:
    log.warning("The key %s was renamed to %s; the old name works in this version only", old, new)
