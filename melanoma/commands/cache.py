"""`melanoma cache list|clear`."""

from melanoma.data.cache import KINDS, clear, entries
from melanoma.errors import MelanomaError
from melanoma.paths import cache_dir
from melanoma.terminal import out

__all__ = ["main"]

_USAGE = f"""melanoma cache: decoded images, audits and augmented files, keyed by content.
Cleared entries are made again when needed.

Usage: melanoma cache list
       melanoma cache clear [KIND]      KIND: {", ".join(KINDS)}

The folder is MELANOMA_CACHE_DIR, else the user's cache folder."""


def main(arguments: list[str]) -> None:
    """List or clear the cache."""
    action, rest = (arguments[0] if arguments else "list"), arguments[1:]
    if action in ("--help", "-h"):
        out().print(_USAGE, markup=False)
    elif action == "list" and not rest:
        _list()
    elif action == "clear" and len(rest) <= 1 and set(rest) <= set(KINDS):
        removed = clear(rest[0] if rest else None)
        out().print(f"Removed {len(removed)} entries, {_size(sum(e.bytes for e in removed))}, from {cache_dir()}")
    else:
        raise MelanomaError(
            f"Expected list, or clear with one kind or none.\n{_USAGE}\nReceived: {' '.join(arguments)}"
        )


def _list() -> None:
    from rich.table import Table

    found = entries()
    table = Table("kind", "key", "size", "last used (UTC)")
    for entry in found:
        table.add_row(entry.kind, entry.key, _size(entry.bytes), f"{entry.last_used:%Y-%m-%d %H:%M}")
    out().print(table)
    out().print(f"{len(found)} entries, {_size(sum(e.bytes for e in found))}, in {cache_dir()}", soft_wrap=True)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
