"""`melanoma cache list|check|clear`."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from melanoma.data.cache import CHECKPOINTS, KINDS, CacheEntry, clear, damaged_file, entries
from melanoma.errors import MelanomaError
from melanoma.paths import cache_dir
from melanoma.terminal import out

__all__ = ["main"]

_USAGE = f"""melanoma cache: decoded images, audits and augmented files, keyed by content.
Cleared entries are made again when needed.

Usage: melanoma cache list
       melanoma cache check             compare all files with their checksums, and remove damaged entries
       melanoma cache clear [KIND] [--older-than DAYS] [--keep-gigabytes NUMBER]

KIND: {", ".join(KINDS)}
Checkpoints of interrupted runs cannot be made again, and are cleared only by their name.
--older-than DAYS         only entries that were not used in these days
--keep-gigabytes NUMBER   only the entries that were not used for longest, so that at most NUMBER GB stay

The folder is MELANOMA_CACHE_DIR, else the user's cache folder."""


_MOST = 100_000


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise MelanomaError(f"{message}.\n{_USAGE}")


def main(arguments: list[str]) -> None:
    """List, check or clear the cache."""
    if {"--help", "-h"} & {*arguments}:
        out().print(_USAGE, markup=False)
        return
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("action", choices=("list", "check", "clear"), nargs="?", default="list")
    parser.add_argument("kind", choices=KINDS, nargs="?")
    parser.add_argument("--older-than", type=_number, metavar="DAYS")
    parser.add_argument("--keep-gigabytes", type=_number, metavar="NUMBER")
    given = parser.parse_args(arguments)
    narrowed = (given.kind, given.older_than, given.keep_gigabytes)
    if given.action != "clear" and narrowed != (None, None, None):
        parser.error(f"Only clear takes a kind, --older-than and --keep-gigabytes; received {' '.join(arguments)}")
    if given.action == "list":
        _list()
    elif given.action == "check":
        _check()
    else:
        removed = clear(given.kind, unused_days=given.older_than, keep_gigabytes=given.keep_gigabytes)
        out().print(f"Removed {_summary(removed)}, from {cache_dir()}", soft_wrap=True)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= _MOST:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to {_MOST}; received {text}")
    return value


def _list() -> None:
    from rich.table import Table

    found = entries()
    table = Table("kind", "key", "size", "last used (UTC)")
    for entry in found:
        table.add_row(entry.kind, entry.key, _size(entry.bytes), f"{entry.last_used:%Y-%m-%d %H:%M}")
    out().print(table)
    out().print(f"{_summary(found)}, in {cache_dir()}", soft_wrap=True)


def _check() -> None:
    found = [folder for entry in entries() if entry.path.is_dir() for folder in _folders(entry)]
    damaged = 0
    for folder in found:
        damage = damaged_file(folder, thoroughly=True)
        if damage is not None:
            damaged += 1
            shutil.rmtree(folder)
            out().print(f"Damaged: {damage} in {folder}; removed", soft_wrap=True)
    out().print(f"{len(found)} entries checked, {damaged} damaged, in {cache_dir()}", soft_wrap=True)


def _folders(entry: CacheEntry) -> list[Path]:
    """Return the folders that have checksums: the entry itself, or each of the checkpoints of a run."""
    return sorted(entry.path.glob("[0-9]*-*")) if entry.kind == CHECKPOINTS else [entry.path]


def _summary(found: Sequence[CacheEntry]) -> str:
    return f"{len(found)} entries, {_size(sum(entry.bytes for entry in found))}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
