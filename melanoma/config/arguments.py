"""From a command line, as people and `mlflow run` write it, to Hydra's overrides."""

import shlex
from pathlib import Path

__all__ = ["normalise", "overrides_in", "search_path_in"]

_HYDRA_SWITCHES = {
    "--help", "-h", "--hydra-help", "--version", "--run", "-r", "--multirun", "-m", "--resolve",
    "--shell-completion", "-sc",
}  # fmt: skip
_HYDRA_OPTIONS = {
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
    "--info", "-i", "--experimental-rerun",
}  # fmt: skip


def normalise(arguments: list[str]) -> list[str]:
    """Rewrite a command's arguments as Hydra expects them.

    `--a.b c` (how `mlflow run` passes a parameter it does not know) becomes `a.b=c`; `--overrides "a=1 b=2"`
    is split like a shell line; a value that Hydra's grammar cannot read, such as a path with brackets, is quoted.
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
                result += normalise(shlex.split(value))
            else:
                result.append(_readable(f"{key}={value}"))
        else:
            result.append(_readable(word))
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
        if option in ("--config-dir", "-cd"):
            found.append(value if separator else arguments[position + 1])
    return [str(Path(folder).expanduser().resolve()) for folder in found]


def _readable(override: str) -> str:
    """The override itself, or with its value quoted where Hydra's grammar cannot read it bare."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, separator, value = override.partition("=")
    if not separator:
        return override
    quoted = f"{key}='{value.replace(chr(92), chr(92) * 2).replace(chr(39), chr(92) + chr(39))}'"
    for candidate in (override, quoted):
        try:
            OverridesParser.create().parse_override(candidate)
            return candidate
        except HydraException:
            continue
    return override
