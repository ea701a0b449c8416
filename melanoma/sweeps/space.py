"""The search space of a sweep: parse dimensions from YAML and from Hydra overrides, and convert values to overrides."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from melanoma.config.arguments import quoted
from melanoma.errors import ConfigError

if TYPE_CHECKING:
    from optuna.trial import Trial

__all__ = ["Dimension", "combinations", "dimension_of", "ordered", "read_space", "suggested"]


@dataclass(frozen=True)
class Dimension:
    """One key of the configuration and the values it may take.

    Attributes:
        key: Key as in an override: `optimizer.learning_rate`, or a group such as `model`.
        choices: Values as written in an override; empty for a range.
        low: Lower bound of a range, inclusive.
        high: Upper bound of a range, inclusive.
        step: Step between the values of a range; None for a continuous range.
        whole: Whether the values are integers.
        log: Whether a range is searched on a logarithmic scale.
        when: Values of other keys under which this key is varied.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    whole: bool = False
    log: bool = False
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def applies(self, chosen: Mapping[str, str]) -> bool:
        """Return whether this key is varied, given the values of other keys."""
        return all(chosen.get(key) in values for key, values in self.when.items())

    def values(self) -> list[str] | None:
        """Return all values as written in an override; None for a range without steps."""
        if self.choices:
            return list(self.choices)
        step = self.step or (1 if self.whole else None)
        if step is None or self.log:
            return None
        count = int((self.high - self.low) / step + 1e-9) + 1
        return [_written(self.low + position * step, self.whole) for position in range(count)]


def read_space(space: Mapping[str, Any]) -> list[Dimension]:
    """Parse the dimensions of `sweep.space`: for each key a list of values, or `low`, `high` and further settings.

    Raises:
        ConfigError: If the space has faults; the message lists all of them.
    """
    found, faults = [], []
    for key, given in space.items():
        try:
            found.append(_dimension(str(key), given))
        except ValueError as error:
            faults.append(f"sweep.space.{key} {error}. Received: {given}")
    by_key = {dimension.key: dimension for dimension in found}
    for dimension in found:
        for key, values in dimension.when.items():
            known = by_key[key].choices if key in by_key else ()
            if not known or not set(values) <= set(known):
                faults.append(
                    f"sweep.space.{dimension.key}.when must name values of another key of the space that is a list. "
                    f"Received: {key}: {list(values)}"
                )
    if faults:
        raise ConfigError(faults)
    return ordered(found)


def dimension_of(override: Override) -> Dimension:
    """Convert a sweep override of the command line to a dimension: `a,b`, `choice()`, `range()` or `interval()`.

    Raises:
        ConfigError: If the range is empty or invalid, or if it is another kind of sweep.
    """
    key, value = str(override.get_key_element()), override.value()
    tags = set(getattr(value, "tags", ()) or ())
    if isinstance(value, IntervalSweep):
        given = {"low": value.start, "high": value.end, "log": "log" in tags, "int": "int" in tags}
        try:
            return _dimension(key, given)
        except ValueError as error:
            raise ConfigError([f"{key} {error}. Received: {override.input_line}"]) from error
    if not isinstance(value, ChoiceSweep | RangeSweep):
        raise ConfigError([f"A sweep takes a,b or choice(), range() and interval(). Received: {override.input_line}"])
    choices = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not choices:
        raise ConfigError([f"The range has no values. Received: {override.input_line}"])
    return Dimension(key, choices=choices)


def combinations(dimensions: Sequence[Dimension]) -> list[dict[str, str]]:
    """Return all combinations of values, by key, without the dimensions that do not apply.

    Raises:
        ConfigError: If a range has no step or is logarithmic.
    """
    found: list[dict[str, str]] = [{}]
    for dimension in dimensions:
        values = dimension.values()
        if values is None:
            raise ConfigError(
                [
                    "A grid needs values, or a range with a step that is not logarithmic; give these, or "
                    f"sweep=optuna. Received: {dimension.key} from {dimension.low:g} to {dimension.high:g}"
                ]
            )
        found = [
            {**one, dimension.key: value} if dimension.applies(one) else one
            for one in found
            for value in (values if dimension.applies(one) else [""])
        ]
    return found


def suggested(trial: "Trial", dimensions: Sequence[Dimension]) -> dict[str, str]:
    """Suggest values for an Optuna trial, by key, as written in an override."""
    chosen: dict[str, str] = {}
    for one in dimensions:
        if not one.applies(chosen):
            continue
        if one.choices:
            chosen[one.key] = str(trial.suggest_categorical(one.key, one.choices))
        elif one.whole:
            whole = trial.suggest_int(one.key, int(one.low), int(one.high), step=int(one.step or 1), log=one.log)
            chosen[one.key] = _written(whole, True)
        else:
            number = trial.suggest_float(one.key, one.low, one.high, step=one.step, log=one.log)
            if one.step is None:  # four significant digits are precise enough and easy to read
                number = min(max(float(f"{number:.4g}"), one.low), one.high)
            chosen[one.key] = _written(number, False)
    return chosen


def _dimension(key: str, given: Any) -> Dimension:
    if isinstance(given, list):
        given = {"choices": given}
    if not isinstance(given, dict):
        raise ValueError("must be a list of values, or have low and high")
    unknown = set(given) - {"choices", "low", "high", "step", "log", "int", "when"}
    if unknown:
        raise ValueError(f"takes choices, low, high, step, log, int and when, not {', '.join(sorted(unknown))}")
    when = {
        str(other): tuple(map(_text, values if isinstance(values, list) else [values]))
        for other, values in (given.get("when") or {}).items()
    }
    if "choices" in given:
        if not given["choices"]:
            raise ValueError("has no values")
        return Dimension(key, choices=tuple(dict.fromkeys(map(_text, given["choices"]))), when=when)
    low: Any = given.get("low")
    high: Any = given.get("high")
    step, log = given.get("step"), bool(given.get("log"))
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high)) or not low < high:
        raise ValueError("must have a low that is below its high")
    if log and (low <= 0 or step is not None):
        raise ValueError("with log must start above 0 and have no step")
    if step is not None and not 0 < step <= high - low:
        raise ValueError("must have a step above 0 that fits into its range")
    whole = bool(given.get("int")) or all(isinstance(x, int) for x in (low, high, step or 0))
    if whole and not all(float(x).is_integer() for x in (low, high, step or 1)):
        raise ValueError("with int must have whole ends and steps")
    return Dimension(key, low=float(low), high=float(high), step=step, whole=whole, log=log, when=when)


def ordered(dimensions: Sequence[Dimension]) -> list[Dimension]:
    """Sort dimensions so that each follows the keys in its `when`."""
    placed: list[Dimension] = []
    rest = list(dimensions)
    while rest:
        ready = [one for one in rest if set(one.when) <= {other.key for other in placed}]
        if not ready:
            raise ConfigError([f"sweep.space has circular `when` conditions. Received: {rest[0].key}"])
        placed += ready
        rest = [one for one in rest if one not in ready]
    return placed


def _text(value: Any) -> str:
    """Format a value for an override."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str) or re.fullmatch(r"[\w.\-+/:@]+", value):
        return str(value)
    return quoted(value)


def _written(number: float, whole: bool) -> str:
    return str(round(number)) if whole else repr(float(number))
