"""Launch of a command: parse the arguments, check the configuration, call the function that does the work."""

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf

from melanoma.config.annotations import dataclass_in, mapping_keys, text_keys
from melanoma.config.arguments import normalise, overrides_in, search_path_in, with_new_entries
from melanoma.config.diagnose import diagnose, schema_faults
from melanoma.config.fields import range_faults
from melanoma.config.renamed import move_renamed, short_names, with_full_names, with_new_names
from melanoma.errors import ConfigError, MelanomaError
from melanoma.paths import conf_dir, outputs_dir, user_path

__all__ = ["composed", "launch", "register_resolvers", "typed"]


T = TypeVar("T")

# Arguments of data sources that are names, which may contain commas, brackets or only digits.
_COLUMNS = ("image", "label", "lesion", "patient", "age", "sex", "site", "skin_tone")
_SOURCE_TEXTS = {"data.source.table", *(f"data.source.{name}_column" for name in _COLUMNS)}


def register_resolvers() -> None:
    """Register the resolvers of the YAML files.

    `${melanoma_outputs:}` is the folder for log files. `${melanoma_name:PATH}` is the name of a folder or an archive.
    """
    OmegaConf.register_resolver("melanoma_outputs", lambda: str(outputs_dir()), replace=True)
    OmegaConf.register_resolver("melanoma_name", _name_of, replace=True)


def _name_of(path: object) -> str:
    name = re.sub(r"\.zip$", "", user_path(str(path)).absolute().name, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "_", name).strip("_.") or "folder"


def typed(schema: type[T], config: DictConfig) -> T:
    """Return the resolved config as an instance of its schema, without the arguments of a `_target_`."""
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    return cast(T, _instance(schema, resolved))


def composed(
    command: str,
    schema: type,
    arguments: list[str],
    *,
    checks: Callable[[DictConfig], list[str]] | None = None,
    rename: Mapping[str, str] | None = None,
) -> tuple[DictConfig, list[str]]:
    """Compose and check the configuration of a command without Hydra's application, for the Python API.

    Returns:
        The configuration, and the overrides as Hydra reads them. The arguments are those of `launch`.

    Raises:
        ConfigError: If the configuration has errors. The exception contains all of them.
    """
    register_resolvers()
    rename = rename or {}
    words = _words(command, schema, normalise(arguments, _typed_texts(schema, rename)), rename)
    return _checked(command, schema, partial(_faults, schema, checks), words, rename), overrides_in(words)


def launch(
    command: str,
    schema: type,
    task: Callable[[DictConfig, list[str], Path], object],
    arguments: list[str],
    *,
    checks: Callable[[DictConfig], list[str]] | None = None,
    rename: Mapping[str, str] | None = None,
) -> None:
    """Check the whole configuration, then run the command with Hydra.

    Args:
        command: Name of the command and of its config in `conf/`.
        schema: Dataclass of the whole config.
        task: Function that receives the composed config, the overrides, and the folder for the files of this run.
        arguments: Command-line arguments after the name of the command.
        checks: Function that returns errors for contradictions between keys.
        rename: Keys that users type, mapped to keys of the config. Needed if a typed key is also the name of a config
            group, because Hydra would treat it as a choice from that group.

    Raises:
        ConfigError: If the configuration has errors. The exception contains all of them.
    """
    register_resolvers()
    rename = rename or {}
    multirun = not {"-m", "--multirun", "hydra.mode=MULTIRUN"}.isdisjoint(normalise(arguments))
    # In a sweep, a comma separates values, even values of text keys.
    texts = set() if multirun else _typed_texts(schema, rename)
    arguments = _words(command, schema, normalise(arguments, texts), rename)

    faults_of = partial(_faults, schema, checks)
    if not {"--help", "-h", "--hydra-help"} & set(arguments):
        _checked(command, schema, faults_of, arguments, rename, multirun=multirun)

    import hydra
    from hydra.core.hydra_config import HydraConfig

    failures: list[MelanomaError] = []
    started = []

    def run(config: DictConfig) -> None:
        started.append(config)
        try:
            move_renamed(config, HydraConfig.get().overrides.task)
            # This also converts values to their types, and the first check covered only the first values of a sweep.
            if faults := schema_faults(schema, config, config) + faults_of(config):
                raise ConfigError(faults)
            task(config, list(HydraConfig.get().overrides.task), Path(HydraConfig.get().runtime.output_dir))
        except MelanomaError as error:
            failures.append(error)  # Hydra would print a traceback and stop a sweep

    sys.argv = [f"melanoma {command}", *arguments]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # otherwise Hydra prints its own traceback and exits
    try:
        hydra.main(config_path=str(conf_dir()), config_name=command)(run)()
    except OSError as error:
        if started or isinstance(error, BrokenPipeError):
            raise
        raise ConfigError(
            [f"The folder for this run's files cannot be created ({error.strerror}). Received: {error.filename}"]
        ) from error
    if failures:
        raise failures[0]


def _faults(schema: type, checks: Callable[[DictConfig], list[str]] | None, config: DictConfig) -> list[str]:
    return range_faults(schema, config) + (checks(config) if checks is not None else [])


def _checked(
    command: str,
    schema: type,
    faults_of: Callable[[DictConfig], list[str]],
    arguments: list[str],
    rename: Mapping[str, str],
    *,
    multirun: bool = False,
) -> DictConfig:
    config, faults = diagnose(command, schema, overrides_in(arguments), search_path_in(arguments), multirun=multirun)
    if config is not None:
        faults += faults_of(config)
    if config is None or faults:
        typed_keys = {key: word for word, key in rename.items()}
        raise ConfigError([_with_typed_keys(fault, typed_keys) for fault in faults])
    return config


def _typed_texts(schema: type, rename: Mapping[str, str]) -> set[str]:
    """Return the keys with text values, under all names that users type."""
    groups = {key for key in text_keys(schema) if (conf_dir() / key).is_dir()}  # such as preset
    texts = text_keys(schema) - groups | _SOURCE_TEXTS
    return texts | short_names(texts) | {word for word, key in rename.items() if key in texts}


def _words(command: str, schema: type, arguments: list[str], rename: Mapping[str, str]) -> list[str]:
    """Return the arguments with the names of keys that the configuration has."""
    result = []
    for word in arguments:
        key, separator, value = word.partition("=")
        result.append(f"{rename[key]}{separator}{value}" if separator and key in rename else word)
    result = with_new_names(with_full_names(result) if command == "train" else result)
    return with_new_entries(result, mapping_keys(schema))


def _with_typed_keys(fault: str, typed_keys: dict[str, str]) -> str:
    for key, word in typed_keys.items():
        fault = fault.replace(key, word)
    return fault


def _instance(schema: type, values: dict[str, Any]) -> Any:
    arguments = {}
    for field in fields(schema):
        if field.name in values:
            value, kind = values[field.name], dataclass_in(field.type)
            arguments[field.name] = _instance(kind, value) if kind is not None and isinstance(value, dict) else value
    return schema(**arguments)
