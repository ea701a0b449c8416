"""Conversion of command-line arguments, as written by users and by `mlflow run`, to Hydra overrides."""

import re
import shlex
from collections.abc import Collection
from typing import Any

from melanoma.errors import ConfigError
from melanoma.paths import user_path

__all__ = ["flattened", "normalise", "overrides_in", "quoted", "search_path_in", "with_new_entries"]

# Excludes --run, Hydra's default mode, because `mlflow run . -P run=ID` passes --run as a key.
_HYDRA_SWITCHES = {
    "--help", "-h", "--hydra-help", "--version", "-r", "--multirun", "-m", "--resolve", "--shell-completion", "-sc",
}  # fmt: skip
_HYDRA_OPTIONS = {
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
    "--info", "-i", "--experimental-rerun",
}  # fmt: skip


def normalise(arguments: list[str], texts: Collection[str] = ()) -> list[str]:
    """Convert the arguments of a command to the form that Hydra expects.

    `--a.b c` (the form in which `mlflow run` passes undeclared parameters) becomes `a.b=c`. `--overrides "a=1 b=2"`
    is split like a shell command. A value that Hydra's grammar cannot parse, such as a path with brackets, is quoted.

    Args:
        arguments: Command-line arguments after the name of the command.
        texts: Keys with text values. Their values are used exactly as typed, even if Hydra's grammar would parse them
            as a number, a list or a sweep, such as a path with a comma.

    Raises:
        ConfigError: If `--overrides` contains an unclosed quote.
    """
    result: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in _HYDRA_SWITCHES or any(word.startswith(f"{option}=") for option in _HYDRA_OPTIONS):
            result.append(word)
        elif word in _HYDRA_OPTIONS:
            result += [word, *rest[:1]]
            rest = rest[1:]
        elif word.startswith("--") and len(word) > 2:
            key, separator, value = word[2:].partition("=")
            if not separator:
                value = rest.pop(0) if rest else ""
            if key == "overrides":
                result += normalise(_split(value), texts)
            else:
                result.append(_readable(f"{key}={value}", texts))
        else:
            result.append(_readable(word, texts))
    return result


def with_new_entries(arguments: list[str], mappings: Collection[str]) -> list[str]:
    """Let `key={name: value}` add entries to a dictionary, which Hydra allows only as `++key={name: value}`."""
    found = []
    for word in arguments:
        key, _, value = word.partition("=")
        found.append(f"++{word}" if key in mappings and value.startswith("{") else word)
    return found


def overrides_in(arguments: list[str]) -> list[str]:
    """Return the `key=value` words among normalised arguments."""
    words, skip = [], False
    for word in arguments:
        if skip:
            skip = False
        elif word in _HYDRA_OPTIONS:
            skip = True
        elif not word.startswith("-"):
            words.append(word)
    return words


def search_path_in(arguments: list[str]) -> list[str]:
    """Return the absolute paths of the folders given by `--config-dir`."""
    found = []
    for position, word in enumerate(arguments):
        option, separator, value = word.partition("=")
        if option in ("--config-dir", "-cd") and (separator or position + 1 < len(arguments)):
            found.append(value if separator else arguments[position + 1])
    return [str(user_path(folder).resolve()) for folder in found]


def quoted(value: str) -> str:
    """Quote a text so that Hydra's grammar parses it back unchanged."""
    # In quoted strings of Hydra, a backslash is literal except before a quote.
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", "\\'"), value) + "'"


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise ConfigError([f"--overrides cannot be split into words: {error}. Received: {line}"]) from error


def _readable(override: str, texts: Collection[str]) -> str:
    """Return the override, with its value quoted if Hydra's grammar would otherwise misread it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import QuotedString
    from hydra.errors import HydraException

    key, separator, value = override.partition("=")
    if not separator:
        return override
    parser = OverridesParser.create()
    as_text = f"{key}={quoted(value)}"
    try:
        read = parser.parse_override(override)
    except HydraException:
        try:
            parser.parse_override(as_text)
        except HydraException:
            return override
        return as_text
    as_typed = isinstance(read._value, QuotedString) or read._value is None or read._value == value
    return override if as_typed or key.lstrip("+") not in texts else as_text


def flattened(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dictionaries, and of lists of dictionaries, by dotted key."""
    if isinstance(config, dict) and config:
        items: Any = config.items()
    elif isinstance(config, list) and any(isinstance(item, dict) for item in config):
        items = enumerate(config)
    else:
        return {prefix: config}
    leaves: dict[str, Any] = {}
    for key, value in items:
        leaves.update(flattened(value, f"{prefix}.{key}" if prefix else str(key)))
    return leaves
