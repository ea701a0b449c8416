"""The plan of a sweep, read from its command line: search space, fixed overrides, sampler and launcher."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from melanoma.config.annotations import mapping_keys
from melanoma.config.arguments import normalise, overrides_in, search_path_in, with_new_entries
from melanoma.config.command_schema import LauncherConfig, SweepCommandConfig, SweepConfig
from melanoma.config.diagnose import diagnose
from melanoma.config.fields import range_faults
from melanoma.config.launch import register_resolvers, typed
from melanoma.config.renamed import with_full_names, with_new_names
from melanoma.config.schema import FOLDED, TrainConfig
from melanoma.errors import ConfigError
from melanoma.sweeps.space import Dimension, dimension_of, ordered, read_space
from melanoma.workflows.checks import sweep_faults, train_faults

__all__ = ["Plan", "is_sweep", "is_sweep_key", "read_plan", "resolved_plan"]

_SWITCHES = {"-m", "--multirun"}
_OURS = ("sweep", "launcher")


@dataclass(frozen=True)
class Plan:
    """The plan of a sweep.

    Attributes:
        sweep: Settings of the search and its end.
        launcher: Settings of the launcher.
        space: Search space; empty for the folds of a cross-validation.
        fixed: Overrides that all trials share, as typed.
        search_path: Additional configuration folders.
        config: Configuration of a trial with the first value of each key.
        words: Arguments of the command.
    """

    sweep: SweepConfig
    launcher: LauncherConfig
    space: list[Dimension]
    fixed: list[str]
    search_path: list[str]
    config: DictConfig
    words: list[str]

    def trial_arguments(self, chosen: Sequence[str]) -> list[str]:
        """Return the arguments of a trial, after `melanoma train`."""
        folders = [word for folder in self.search_path for word in ("--config-dir", folder)]
        return [*folders, *self.fixed, *chosen]


def is_sweep(arguments: list[str]) -> bool:
    """Return whether the arguments of `melanoma train` request a sweep."""
    words = normalise(arguments)
    requested = not {*_SWITCHES, "hydra.mode=MULTIRUN"}.isdisjoint(words)
    return requested or any(is_sweep_key(word) for word in overrides_in(words))


def read_plan(arguments: list[str]) -> Plan:
    """Read the plan of a sweep, and check it before any trial runs.

    Raises:
        ConfigError: If the configuration has faults.
    """
    register_resolvers()
    words = [word for word in normalise(arguments) if word not in _SWITCHES and word != "hydra.mode=MULTIRUN"]
    words = with_new_entries(with_new_names(with_full_names(words)), mapping_keys(TrainConfig))
    search_path, overrides = search_path_in(words), overrides_in(words)
    resumed = [word for word in overrides if word.lstrip("+").startswith("resume=")]
    if resumed:
        raise ConfigError([f"A sweep is resumed by its name, as in sweep.resume=NAME. Received: {resumed[0]}"])
    config, faults = diagnose(
        "sweep", SweepCommandConfig, [word for word in overrides if is_sweep_key(word)], search_path
    )
    if config is not None:
        faults += range_faults(SweepCommandConfig, config) + sweep_faults(config)
    if config is None or faults:
        raise ConfigError(faults)
    settings: SweepCommandConfig = typed(SweepCommandConfig, config)
    fixed, varied = _fixed_and_varied([word for word in overrides if not is_sweep_key(word)])
    given = dict(word.lstrip("+").split("=", 1) for word in fixed if "=" in word)
    space = ordered([*_remaining(read_space(settings.sweep.space or {}), varied, given), *varied])
    space = _grid(space) if settings.sweep.sampler == "grid" else space
    if not space and given.get("split") in FOLDED and "split.fold" not in given:
        _refuse_search_of_folds(settings.sweep)
    elif not space:
        raise ConfigError(
            ["Nothing is varied; give a key several values, as in model=m1,m2, or a space, as sweep=resnet_small. "
             f"Received: {' '.join(arguments) or 'nothing'}"]
        )  # fmt: skip
    several = [f"{one.key}={','.join(one.choices) if one.choices else _first(one)}" for one in space if not one.when]
    config, faults = diagnose("train", TrainConfig, [*fixed, *several], search_path, multirun=True)
    if config is not None:
        faults += range_faults(TrainConfig, config) + train_faults(config)
    if config is None or faults:
        raise ConfigError(faults)
    return Plan(settings.sweep, settings.launcher, space, fixed, search_path, config, arguments)


def _fixed_and_varied(overrides: Sequence[str]) -> tuple[list[str], list[Dimension]]:
    parser = OverridesParser.create()
    fixed, varied = [], []
    for word in overrides:
        try:
            parsed = parser.parse_override(word)
        except HydraException:
            fixed.append(word)  # `diagnose` reports it with all other faults
            continue
        if parsed.is_sweep_override():
            varied.append(dimension_of(parsed))
        else:
            fixed.append(word)
    return fixed, varied


def _remaining(space: Sequence[Dimension], varied: Sequence[Dimension], given: Mapping[str, str]) -> list[Dimension]:
    """Return the dimensions of a space that are not set on the command line and whose conditions can hold."""
    left = []
    for one in space:
        fixed = {key: values for key, values in one.when.items() if key in given}
        taken = one.key in given or one.key in {other.key for other in varied}
        if not taken and all(given[key] in values for key, values in fixed.items()):
            left.append(replace(one, when={key: values for key, values in one.when.items() if key not in fixed}))
    return left


def _refuse_search_of_folds(sweep: SweepConfig) -> None:
    """Refuse settings under which not every fold is trained exactly once and completely."""
    if sweep.sampler != "grid" or sweep.n_trials is not None or sweep.pruner != "none":
        raise ConfigError(
            ["A sweep over folds trains all of them: sweep.sampler=grid, sweep.pruner=none, no "
             f"sweep.n_trials. Received: {sweep.sampler}, {sweep.pruner}, {sweep.n_trials}"]
        )  # fmt: skip


def _grid(space: Sequence[Dimension]) -> list[Dimension]:
    """Replace ranges with steps by lists of their values."""
    return [replace(one, choices=tuple(one.values() or ())) for one in space]


def _first(dimension: Dimension) -> str:
    return str(round(dimension.low)) if dimension.whole else repr(dimension.low)


def is_sweep_key(word: str) -> bool:
    """Return whether an override configures the sweep itself and not its trials."""
    key = word.partition("=")[0].lstrip("+~")
    return key.partition(".")[0] in _OURS


def resolved_plan(plan: Plan) -> dict:
    """Return the plan as logged to the sweep's run."""
    return {
        "sweep": asdict(plan.sweep),
        "launcher": asdict(plan.launcher),
        "space": {one.key: one.choices or [one.low, one.high] for one in plan.space},
    }
