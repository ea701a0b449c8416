"""Helpers that read the type annotations of a schema."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin

__all__ = ["dataclass_in", "leaf_keys", "mapping_keys", "text_keys"]


def dataclass_in(annotation: Any) -> type | None:
    """Return the dataclass in an annotation, including one in `X | None`, or None if there is none."""
    if isinstance(annotation, type) and is_dataclass(annotation):
        return annotation
    if get_origin(annotation) is not None:
        return next((a for a in get_args(annotation) if isinstance(a, type) and is_dataclass(a)), None)
    return None


def leaf_keys(schema: type) -> list[str]:
    """Return the dotted keys of a dataclass, including those of nested dataclasses."""
    return [key for key, _ in _leaves(schema)]


def text_keys(schema: type) -> set[str]:
    """Return the dotted keys of all text fields of a dataclass, including those of nested dataclasses."""
    return {key for key, annotation in _leaves(schema) if annotation in (str, str | None)}


def mapping_keys(schema: type) -> set[str]:
    """Return the dotted keys of all dictionaries of a dataclass, including those of nested dataclasses."""
    return {
        key
        for key, annotation in _leaves(schema)
        if dict in (get_origin(annotation), *map(get_origin, get_args(annotation)))
    }


def _leaves(schema: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in fields(schema):
        kind = dataclass_in(field.type)
        if kind is not None:
            yield from _leaves(kind, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field.type
