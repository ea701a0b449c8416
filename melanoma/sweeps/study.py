"""The memory of a sweep: a study of Optuna's, which outlives the process."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, OptunaError, StorageInternalError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from melanoma.config.checks import as_list
from melanoma.config.schema import SweepConfig
from melanoma.errors import ConfigError
from melanoma.paths import project_root
from melanoma.tracking.store import without_password

__all__ = ["open_study", "pruner_of", "storage_address"]

_ABOUT = "melanoma"


def storage_address(configured: str | None, tracking: str) -> str:
    """`sweep.storage`, else `sweeps.db` beside a SQLite tracking store, else in the project's root."""
    if configured is not None:
        return configured
    beside = Path(tracking.removeprefix("sqlite:///")).parent if tracking.startswith("sqlite:///") else project_root()
    return f"sqlite:///{beside.absolute() / 'sweeps.db'}"


def open_study(settings: SweepConfig, name: str, address: str, about: Mapping[str, Any]) -> optuna.Study:
    """A new study, or with `sweep.resume` the one of that name.

    Args:
        settings: of the sweep.
        name: of the study.
        address: of Optuna's store.
        about: what must be the same when the study is resumed: the space, the data, the other overrides.

    Raises:
        ConfigError: the store cannot be used, the name is taken, or there is no such study, or it is about something
            else.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if urlsplit(address).scheme == "sqlite":
        Path(address.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    try:
        storage = RDBStorage(address, engine_kwargs=_patient(address))
        known = {study.study_name for study in optuna.get_all_study_summaries(storage, include_best_trial=False)}
        if settings.resume is not None and name not in known:
            raise ConfigError(
                [f"There is no such study. Known: {', '.join(sorted(known)) or 'none'}. Received: sweep.resume={name}"]
            )
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            sampler=_sampler(settings),
            pruner=pruner_of(settings.pruner, settings.startup_trials),
            directions=as_list(settings.direction),
            load_if_exists=settings.resume is not None,
        )
    except DuplicatedStudyError as error:
        raise ConfigError(
            [f"A study has this name already; go on with it by sweep.resume={name}, or give another. "
             f"Received: sweep.name={name}"]
        ) from error  # fmt: skip
    except (SQLAlchemyError, StorageInternalError, OptunaError, ImportError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            [f"Optuna's store cannot be used ({reason}). Received: {without_password(address)}"]
        ) from error
    if settings.resume is None:
        study.set_user_attr(_ABOUT, json.dumps(about))
    else:
        _refuse_changes(json.loads(study.user_attrs.get(_ABOUT, "{}")), about, name)
    return study


def pruner_of(name: str, startup_trials: int) -> BasePruner:
    """Optuna's pruner by the name of `sweep.pruner`."""
    if name == "median":
        return MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=1)
    return HyperbandPruner() if name == "hyperband" else NopPruner()


def _sampler(settings: SweepConfig) -> BaseSampler:
    seed, startup = settings.seed, settings.startup_trials
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if settings.sampler == "tpe":
            return TPESampler(
                seed=settings.seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True
            )
        if settings.sampler == "cmaes":
            return CmaEsSampler(seed=seed, n_startup_trials=max(startup, 1))
        return NSGAIISampler(seed=seed) if settings.sampler == "nsga2" else RandomSampler(seed=seed)


def _refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    changed = [
        f"{key}: {json.dumps(before.get(key))} became {json.dumps(now.get(key))}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise ConfigError(
            [
                "The study was about something else; give what it was begun with, or begin another with sweep.name. "
                f"Received: sweep.resume={name} with {'; '.join(changed)}"
            ]
        )


def _patient(address: str) -> dict[str, Any]:
    """Several processes write into one SQLite file."""
    return {"connect_args": {"timeout": 60}} if address.startswith("sqlite") else {}
