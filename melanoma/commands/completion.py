"""`melanoma completion bash|zsh|fish`: a script that completes commands, groups with their choices, and keys."""

import importlib
from collections.abc import Mapping
from typing import Any

import yaml

from melanoma.config.annotations import leaf_keys
from melanoma.config.renamed import short_names
from melanoma.errors import MelanomaError
from melanoma.paths import conf_dir
from melanoma.terminal import out

__all__ = ["completion_script", "main", "words_of"]

_USAGE = """melanoma completion: a script for your shell that completes commands, groups, choices and keys.

Usage: melanoma completion bash >> ~/.bashrc
       melanoma completion zsh >> ~/.zshrc
       melanoma completion fish > ~/.config/fish/completions/melanoma.fish"""

# Commands with a configuration, and their schemas. A sweep also has the groups and keys of a training.
_SCHEMAS = {
    "train": ["melanoma.config.schema:TrainConfig"],
    "sweep": ["melanoma.config.command_schema:SweepCommandConfig", "melanoma.config.schema:TrainConfig"],
    "plan": ["melanoma.config.command_schema:PlanConfig"],
    "evaluate": ["melanoma.config.command_schema:EvaluateConfig"],
    "predict": ["melanoma.config.command_schema:PredictConfig"],
    "promote": ["melanoma.config.command_schema:PromoteConfig"],
    "rollback": ["melanoma.config.command_schema:RollbackConfig"],
    "registry": ["melanoma.config.command_schema:RollbackConfig"],
    "serve": ["melanoma.config.command_schema:ServeConfig"],
    "app": ["melanoma.config.command_schema:ServeConfig"],
    "export": ["melanoma.config.command_schema:ExportConfig"],
    "audit": ["melanoma.config.command_schema:AuditCommandConfig"],
}
_OTHER = {
    "compare": ["--experiment", "--tag", "--part", "--common", "--html", "--tracking-uri"],
    "readers": ["--task", "--threshold", "--html", "--tracking-uri"],
    "runs": ["list", "clean", "--dry-run", "--tracking-uri"],
    "replay": ["--tracking-uri"],
    "report": ["experiments", "--html", "--output", "--tracking-uri"],
    "cache": ["list", "check", "clear"],
    "completion": ["bash", "zsh", "fish"],
}

_BASH = """_melanoma() {{
  local line="${{COMP_LINE:0:COMP_POINT}}" words command
  local cur="${{line##* }}"
  read -r _ command _ <<< "$line"
  case "$command" in
{cases}
    *) words="{commands}" ;;
  esac
  [[ "$line" =~ ^[^\\ ]+\\ +[^\\ ]*$ ]] && words="{commands}"
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  # Bash breaks words at "=" and replaces only what follows.
  if [[ "$cur" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then
    COMPREPLY=("${{COMPREPLY[@]#"${{cur%"${{cur##*=}}"}}"}}")
  fi
  if [[ ${{#COMPREPLY[@]}} == 1 && "${{COMPREPLY[0]}}" == *= ]]; then compopt -o nospace 2> /dev/null; fi
  return 0
}}
complete -o default -F _melanoma melanoma
"""
_ZSH = """_melanoma() {{
  local -a found
  case "${{words[2]}}" in
{cases}
  esac
  (( CURRENT == 2 )) && found=({commands})
  compadd -S '' -- ${{(M)found:#*=}} && return
  compadd -- ${{found:#*=}} && return
  compset -P 1 '*='
  _files
}}
(( $+functions[compdef] )) || {{ autoload -U compinit && compinit }}
compdef _melanoma melanoma
"""


def main(arguments: list[str]) -> None:
    """Print the script for a shell."""
    if arguments in (["--help"], ["-h"]):
        out().print(_USAGE, markup=False)
        return
    if len(arguments) != 1 or arguments[0] not in _OTHER["completion"]:
        raise MelanomaError(f"Expected a shell: bash, zsh or fish.\n{_USAGE}\nReceived: {' '.join(arguments)}")
    out().print(completion_script(arguments[0]), end="", markup=False, soft_wrap=True)


def completion_script(shell: str) -> str:
    """Return the script for `bash`, `zsh` or `fish`."""
    words = {**{command: words_of(command) for command in _SCHEMAS}, **_OTHER}
    if shell == "fish":
        return _fish(words)
    start, end, script = ('words="', '"', _BASH) if shell == "bash" else ("found=(", ")", _ZSH)
    cases = "\n".join(f"    {command}) {start}{' '.join(found)}{end} ;;" for command, found in words.items())
    return script.format(cases=cases, commands=" ".join(words))


def words_of(command: str) -> list[str]:
    """Return what can follow a command: `group=choice` for each choice, and `key=` for each key."""
    found = [f"{group}={choice}" for group, choices in _groups(command).items() for choice in choices]
    for address in _SCHEMAS[command]:
        module, _, name = address.partition(":")
        keys = leaf_keys(getattr(importlib.import_module(module), name))
        found += [f"{'model' if key == 'saved_model' else key}=" for key in keys]
        found += [f"{short}=" for short in sorted(short_names(keys)) if "." not in short]
    return [*found, "--help"]


def _groups(command: str) -> dict[str, list[str]]:
    """Return the choices of each configuration group of a command."""
    found: dict[str, list[str]] = {}
    for name in [command, "train"] if command == "sweep" else [command]:
        content: Any = yaml.safe_load((conf_dir() / f"{name}.yaml").read_text(encoding="utf-8"))
        for entry in content["defaults"]:
            for group in entry if isinstance(entry, Mapping) else ():
                if (conf_dir() / group).is_dir():
                    found[group] = sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))
    return found


def _fish(words: Mapping[str, list[str]]) -> str:
    lines = ["complete -c melanoma -n __fish_use_subcommand -f -a '" + " ".join(words) + "'"]
    lines += [
        f"complete -c melanoma -n '__fish_seen_subcommand_from {command}' -a '{' '.join(found)}'"
        for command, found in words.items()
    ]
    return "\n".join(lines) + "\n"
