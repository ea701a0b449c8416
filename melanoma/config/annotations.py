"""Helpers that read the type annotations of a schema."""

from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin

__all__ = ["dataclass_in", "text_keys"]


def dataclass_in(annotation: Any) -> type | None:
    """Return the dataclass in an annotation, including one in `X | None`, or None if there is none."""
    if isinstance(annotation, type) and is_dataclass(annotation):
        return annotation
    if get_origin(annotation) is not None:
        return next((a for a in get_args(annotation) if isinstance(a, type) and is_dataclass(a)), None)
    return None


def text_keys(schema: type, prefix: str = "") -> set[str]:
    """Return the dotted keys of all text fields of a dataclass, including those of nested dataclasses."""
    found = set()
    for field in fields(schema):
        kind = dataclass_in(field.type)
        if kind is not None:
            found |= text_keys(kind, f"{prefix}{field.name}.")
        elif field.type in (str, str | None):
            found.add(f"{prefix}{field.name}")
    return found
