"""From a command line, as people and `mlflow run` write it, to Hydra's overrides."""

import re
import shlex
from collections.abc import Collection

from melanoma.errors import ConfigError
from melanoma.paths import user_path

__all__ = ["normalise", "overrides_in", "quoted", "search_path_in"]

# Not --run, Hydra's default: `mlflow run . -P run=ID` means the key.
_HYDRA_SWITCHES = {
    "--help", "-h", "--hydra-help", "--version", "-r", "--multirun", "-m", "--resolve", "--shell-completion", "-sc",
}  # fmt: skip
_HYDRA_OPTIONS = {
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
    "--info", "-i", "--experimental-rerun",
}  # fmt: skip


def normalise(arguments: list[str], texts: Collection[str] = ()) -> list[str]:
    """Rewrite a command's arguments as Hydra expects them.

    `--a.b c` (how `mlflow run` passes a parameter it does not know) becomes `a.b=c`; `--overrides "a=1 b=2"`
    is split like a shell line; a value that Hydra's grammar cannot read, such as a path with brackets, is quoted.

    Args:
        arguments: the command line after the command.
        texts: keys whose values are text and are taken as typed, also where Hydra's grammar would read a number, a
            list or a sweep, as in a path with a comma.

    Raises:
        ConfigError: `--overrides` has a quote that does not end.
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


def overrides_in(arguments: list[str]) -> list[str]:
    """The `key=value` words among normalised arguments."""
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
    """Folders given by `--config-dir`."""
    found = []
    for position, word in enumerate(arguments):
        option, separator, value = word.partition("=")
        if option in ("--config-dir", "-cd") and (separator or position + 1 < len(arguments)):
            found.append(value if separator else arguments[position + 1])
    return [str(user_path(folder).resolve()) for folder in found]


def quoted(value: str) -> str:
    """A text as Hydra's grammar reads it back, whatever is in it."""
    # In Hydra's quoted strings a backslash stands for itself, but before a quote.
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", "\\'"), value) + "'"


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise ConfigError([f"--overrides cannot be split into words: {error}. Received: {line}"]) from error


def _readable(override: str, texts: Collection[str]) -> str:
    """The override itself, or with its value quoted where Hydra's grammar would not read it as meant."""
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
