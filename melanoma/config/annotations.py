"""What the type annotations of a schema say."""

from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin

__all__ = ["dataclass_in", "text_keys"]


def dataclass_in(annotation: Any) -> type | None:
    """The dataclass that an annotation names, also as `X | None`."""
    if isinstance(annotation, type) and is_dataclass(annotation):
        return annotation
    if get_origin(annotation) is not None:
        return next((a for a in get_args(annotation) if isinstance(a, type) and is_dataclass(a)), None)
    return None


def text_keys(schema: type, prefix: str = "") -> set[str]:
    """Dotted keys of a dataclass, and of those in it, whose values are text."""
    found = set()
    for field in fields(schema):
        kind = dataclass_in(field.type)
        if kind is not None:
            found |= text_keys(kind, f"{prefix}{field.name}.")
        elif field.type in (str, str | None):
            found.add(f"{prefix}{field.name}")
    return found
