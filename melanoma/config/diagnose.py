"""Detection of all errors in a configuration at once, each with a suggested fix."""

import difflib
from dataclasses import fields
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from melanoma.config.annotations import dataclass_in
from melanoma.config.renamed import move_renamed
from melanoma.paths import conf_dir

__all__ = ["compose_config", "diagnose", "schema_faults"]


def compose_config(config_name: str, overrides: list[str], search_path: list[str] | None = None) -> DictConfig:
    """Compose `conf/<config_name>.yaml` with overrides. Errors of Hydra are not caught."""
    with initialize_config_dir(str(conf_dir())):
        return compose(config_name, [*_search_override(search_path), *overrides])


def diagnose(
    config_name: str,
    schema: type,
    overrides: list[str],
    search_path: list[str] | None = None,
    *,
    multirun: bool = False,
) -> tuple[DictConfig | None, list[str]]:
    """Compose a configuration and list all errors in the overrides and in the types of values.

    Returns:
        The composed config, or None if it could not be composed, and the list of errors.
    """
    parsed, faults = _parse(overrides, multirun)
    extra = _search_override(search_path)
    with initialize_config_dir(str(conf_dir())):
        loader = GlobalHydra.instance().config_loader()
        groups, values = [], []
        for override in parsed:
            key = override.key_or_group.partition("@")[0]
            options = loader.get_group_options(key, config_name=config_name, overrides=extra) if "." not in key else []
            if not options:
                values.append(override)
            else:
                faults_here = _choice_faults(override, options)
                faults += faults_here
                if not faults_here:
                    groups.append(override)
        try:
            base = compose(config_name, [*extra, *(_first(o) for o in groups)])
        except (HydraException, OmegaConfBaseException) as error:
            return None, [*faults, str(error).strip()]
        known = []
        for override in values:
            fault = _key_fault(override, base)
            if fault:
                faults.append(fault)
            else:
                known.append(override)
        try:
            config = compose(config_name, [*extra, *(_first(o) for o in [*groups, *known])])
        except (HydraException, OmegaConfBaseException) as error:
            return None, [*faults, str(error).strip()]
    move_renamed(base)
    move_renamed(config, [_first(override) for override in known])
    return config, faults + schema_faults(schema, config, base)


def schema_faults(schema: type, config: DictConfig, base: DictConfig, prefix: str = "") -> list[str]:
    """Return errors for the keys and types in `config` that do not match the dataclass `schema`.

    `base` is the config before single values were overridden. Its YAML files define the types of the arguments of a
    node with a `_target_`. Values in `config` that can be converted to the type in the schema are converted in place,
    for example the folder name 2024 to text.
    """
    faults: list[str] = []
    structured = OmegaConf.structured(schema)
    needed = {key.partition(".")[0] for key in OmegaConf.missing_keys(structured)}
    for key in sorted(needed - set(map(str, config))):
        faults.append(f"{prefix}{key} must be given. Received: nothing")
    names = {f.name: f.type for f in fields(schema)}
    open_ended = "_target_" in names
    for key in map(str, config):
        path = f"{prefix}{key}"
        if OmegaConf.is_missing(config, key):
            faults.append(f"{path} must be given, as in {path}=VALUE. Received: nothing")
            continue
        try:
            value = config[key]
        except InterpolationToMissingValueError:
            continue  # the missing value is a fault itself
        except OmegaConfBaseException as error:
            faults.append(f"{path} cannot be resolved: {str(error).splitlines()[0]}")
            continue
        kind = dataclass_in(names.get(key))
        before = _before(base, key)
        if key not in names:
            if not open_ended:
                faults.append(f"{path} is not a key of the configuration.{_closest(key, names)} Received: {path}")
            else:
                faults += _argument_faults(path, value, before)
        elif kind is not None and isinstance(value, DictConfig):
            faults += schema_faults(kind, value, before if isinstance(before, DictConfig) else value, f"{path}.")
        elif isinstance(value, DictConfig) and isinstance(before, DictConfig):
            faults += _argument_faults(path, value, before)
        else:
            faults += _type_faults(path, structured, config, key)
    return faults


def _before(base: Any, key: str) -> Any:
    """Return the value that the YAML files set; None if they leave it to the user."""
    try:
        return base.get(key) if isinstance(base, DictConfig) and not OmegaConf.is_missing(base, key) else None
    except InterpolationToMissingValueError:
        return None


def _type_faults(path: str, structured: DictConfig, config: DictConfig, key: str) -> list[str]:
    value = config[key]
    try:
        OmegaConf.update(structured, key, value)
    except OmegaConfBaseException as error:
        return [f"{path}: {str(error).splitlines()[0]}. Received: {path}={value}"]
    if type(structured[key]) is not type(value):
        config[key] = structured[key]
    return []


def _argument_faults(path: str, value: Any, before: Any) -> list[str]:
    """Return errors for arguments of a `_target_` whose type differs from that in the YAML file."""
    if isinstance(value, DictConfig) and isinstance(before, DictConfig):
        faults = []
        for key in map(str, value):
            if OmegaConf.is_missing(value, key):
                faults.append(f"{path}.{key} must be given, as in {path}.{key}=VALUE. Received: nothing")
            elif not OmegaConf.is_missing(before, key):
                faults += _argument_faults(f"{path}.{key}", value[key], before.get(key))
        return faults
    if before is None or value is None:
        return []
    same = isinstance(value, type(before)) and isinstance(value, bool) == isinstance(before, bool)
    widened = isinstance(before, float) and isinstance(value, int) and not isinstance(value, bool)
    if same or widened:
        return []
    wanted = "a list" if isinstance(before, ListConfig) else type(before).__name__
    return [f"{path} must be of type {wanted}, such as {before}. Received: {path}={value}"]


def _parse(overrides: list[str], multirun: bool) -> tuple[list[Override], list[str]]:
    parser, parsed, faults = OverridesParser.create(), [], []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            faults.append(
                "An argument cannot be read; expected key=value or group=choice, in quotes if it has spaces. "
                f"Received: {text}"
            )
            continue
        parsed.append(override)
        if override.is_sweep_override() and not multirun:
            faults.append(f"Several values for one key need `melanoma sweep`. Received: {text}")
    faults += _learning_rate_faults(parsed)
    return parsed, faults


def _learning_rate_faults(parsed: list[Override]) -> list[str]:
    """Refuse a learning rate that is given and found, too, because the given one would not be used."""
    given = {override.key_or_group: override for override in parsed}
    find, rate = (given.get(key) for key in ("training.find_learning_rate", "optimizer.learning_rate"))
    if find is None or rate is None or find.value() is False:
        return []
    return [
        "lr=find chooses the learning rate, so that it cannot be given, too; remove one of them. "
        f"Received: {find.input_line} {rate.input_line}"
    ]


def _choice_faults(override: Override, options: list[str]) -> list[str]:
    if override.is_delete():
        return []
    group = override.key_or_group.partition("@")[0]
    if override.is_sweep_override():
        chosen = list(override.sweep_string_iterator())
    else:
        chosen = [override.get_value_element_as_str()]
    own = " Your own images: data=folder data.path=FOLDER." if group == "data" else ""
    return [
        f"There is no {group} named '{c}'.{_closest(c, options)}{own} Choices: {', '.join(options)}. "
        f"Received: {group}={c}"
        for c in chosen
        if c not in options
    ]


def _key_fault(override: Override, base: DictConfig) -> str | None:
    key = override.key_or_group
    if key.split(".")[0] == "hydra" or override.is_add() or override.is_force_add():
        return None
    node: Any = base
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in list(node):
            return f"There is no key '{key}'.{_closest(key, _leaves(base))} Received: {override.input_line}"
        # Not resolved, because a default such as that of data.name needs a value that may be missing.
        node = None if OmegaConf.is_missing(node, part) else node._get_node(part)
    return None


def _leaves(node: DictConfig, prefix: str = "") -> list[str]:
    found = []
    for key in map(str, node):
        path = f"{prefix}{key}"
        found.append(path)
        value = None if OmegaConf.is_missing(node, key) else node._get_node(key)
        if isinstance(value, DictConfig):
            found += _leaves(value, f"{path}.")
    return found


def _first(override: Override) -> str:
    """Return the override as text; for a sweep, with its first value."""
    if override.is_sweep_override():
        return f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
    return str(override.input_line)


def _closest(word: str, candidates: Any) -> str:
    """Return ` Did you mean 'x'?` or an empty text. Keys are compared as a whole, then by their last part."""
    candidates = [str(c) for c in candidates]
    close = difflib.get_close_matches(word, candidates, n=1, cutoff=0.75)
    if not close:
        last = {c.rsplit(".", 1)[-1]: c for c in reversed(candidates)}
        close = [last[c] for c in difflib.get_close_matches(word.rsplit(".", 1)[-1], last, n=1, cutoff=0.8)]
    return f" Did you mean '{close[0]}'?" if close else ""


def _search_override(search_path: list[str] | None) -> list[str]:
    if not search_path:
        return []
    return [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in search_path)}]"]
