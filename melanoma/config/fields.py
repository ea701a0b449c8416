"""Schema fields with a valid range, and the check of all ranges of a configuration."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from melanoma.config.annotations import dataclass_in

__all__ = ["Range", "is_number", "number", "range_faults"]


@dataclass(frozen=True)
class Range:
    """Range of finite numbers.

    Attributes:
        least: Lower bound, inclusive.
        above: Lower bound, exclusive.
        most: Upper bound, inclusive.
        below: Upper bound, exclusive.
        kind: Kind of number, such as `a share`, for the error message.
        note: Text after the bounds in the error message, such as a unit.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    kind: str = ""
    note: str = ""

    def holds(self, value: float) -> bool:
        """Return whether a number is in the range."""
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.above is not None and self.below == math.inf:
            bounds = f"above {self.above} and finite"
        elif self.above is not None and self.below is not None:
            bounds = f"between {self.above} and {self.below}"
        elif self.above is not None:
            bounds = f"above {self.above}" + (f" and at most {self.most}" if self.most is not None else "")
        elif self.most is None and self.below is None:
            bounds = f"at least {self.least}"
        else:
            bounds = f"from {self.least} to {self.most if self.below is None else f'below {self.below}'}"
        return " ".join(filter(None, [self.kind, bounds])) + self.note


def number(default: float | None, **bounds: Any) -> Any:
    """Return a schema field with a default and the bounds of a `Range`."""
    return field(default=default, metadata={"range": Range(**bounds)})


def range_faults(schema: type, config: DictConfig, prefix: str = "") -> list[str]:
    """Return errors for numbers outside their range and for empty texts in a whole configuration."""
    faults: list[str] = []
    for one in fields(schema):
        key, value, nested = f"{prefix}{one.name}", _value(config, one.name), dataclass_in(one.type)
        if nested is not None:
            faults += range_faults(nested, value, f"{key}.") if isinstance(value, DictConfig) else []
        elif value == "" and one.type in (str, str | None):
            faults.append(f"{key} must not be empty; is a shell variable unset? Received: {key}=")
        elif "range" in one.metadata and is_number(value) and not one.metadata["range"].holds(value):
            null = ", or null" if type(None) in get_args(one.type) else ""
            faults.append(f"{key} must be {one.metadata['range']}{null}. Received: {key}={value}")
    return faults


def is_number(*values: Any) -> bool:
    """Return whether all values are numbers. Booleans do not count as numbers."""
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _value(config: DictConfig, key: str) -> Any:
    try:
        return config.get(key)
    except OmegaConfBaseException:
        return None  # `schema_faults` reports wrong types and missing values
