"""Numbers as text, in a module that imports little, because listing the registry needs nothing else of evaluation."""

import math
from collections.abc import Mapping

__all__ = ["named_bounds", "stored_text", "with_bounds"]


def stored_text(metrics: Mapping[str, float], name: str) -> str:
    """Format a metric of the tracking store with its interval, as `0.785 [0.730, 0.840]`, or `-` if it is absent."""
    if name not in metrics:
        return "-"
    low, high = (metrics.get(f"{name}_ci_{end}", math.nan) for end in ("low", "high"))
    return with_bounds(metrics[name], low, high)


def named_bounds(name: str, low: float, high: float) -> dict[str, float]:
    """Return the bounds of a metric under the names of the tracking store."""
    return {f"{name}_ci_low": low, f"{name}_ci_high": high}


def with_bounds(value: float, low: float, high: float, sign: str = "") -> str:
    """Format a number with its interval, if both bounds are finite; with the sign `+`, as a difference."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"{value:{sign}.3f}" + (f" [{low:{sign}.3f}, {high:{sign}.3f}]" if known else "")
