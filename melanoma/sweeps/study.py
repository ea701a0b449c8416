"""The persistent state of a sweep: an Optuna study."""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, OptunaError, StorageInternalError
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, RandomSampler, TPESampler
from sqlalchemy.exc import SQLAlchemyError

from melanoma.config.command_schema import SweepConfig
from melanoma.data.cache import content_key
from melanoma.errors import ConfigError
from melanoma.paths import project_root
from melanoma.tracking.store import without_password
from melanoma.training.pruning import pruner_of, storage_at
from melanoma.workflows.checks import as_list

__all__ = ["check_name", "open_study", "remember", "storage_address", "stored_settings"]

_ABOUT = "melanoma"
_TAKEN = (
    "A sweep has this name already; continue it with sweep.resume={name}, or give another. Received: sweep.name={name}"
)


def storage_address(configured: str | None, tracking: str) -> str:
    """Return `sweep.storage`, or else `sweeps.db` next to a SQLite tracking store or in the project root."""
    if configured is not None:
        return configured
    beside = Path(tracking.removeprefix("sqlite:///")).parent if tracking.startswith("sqlite:///") else project_root()
    return f"sqlite:///{beside.absolute() / 'sweeps.db'}"


def check_name(settings: SweepConfig, name: str, address: str) -> None:
    """Check that the name of a new study is free, or that the study to resume exists.

    Raises:
        ConfigError: If the check fails, or if the store cannot be used.
    """
    with _storage_errors(address):
        known = {
            one.study_name for one in optuna.get_all_study_summaries(storage_at(address), include_best_trial=False)
        }
    if settings.resume is not None and name not in known:
        raise ConfigError(
            [f"There is no such sweep. Known: {', '.join(sorted(known)) or 'none'}. Received: sweep.resume={name}"]
        )
    if settings.resume is None and name in known:
        raise ConfigError([_TAKEN.format(name=name)])


def stored_settings(name: str, address: str) -> dict[str, Any]:
    """Return the settings with which a sweep was started; empty if there is no such sweep.

    Raises:
        ConfigError: If the store cannot be used.
    """
    with _storage_errors(address):
        summaries = optuna.get_all_study_summaries(storage_at(address), include_best_trial=False)
        found = [one.user_attrs.get(_ABOUT, "{}") for one in summaries if one.study_name == name]
    return dict(json.loads(found[0])) if found else {}


@contextmanager
def open_study(settings: SweepConfig, name: str, address: str, about: Mapping[str, Any]) -> Iterator[optuna.Study]:
    """Create a study, or load it with `sweep.resume`. In a SQLite store, only one process can open a study at a time.

    Args:
        settings: Settings of the sweep.
        name: Name of the study.
        address: Address of Optuna's store.
        about: Settings that must not change on resume: the space, the data, and the other overrides.

    Raises:
        ConfigError: If the store cannot be used, if another sweep has taken the name, if the sweep was started with
            other settings, or if it is running.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _study_lock(name, address):
        try:
            with _storage_errors(address):
                study = optuna.create_study(
                    study_name=name,
                    storage=storage_at(address),
                    pruner=pruner_of(settings.pruner, settings.startup_trials),
                    directions=as_list(settings.direction),
                    load_if_exists=settings.resume is not None,
                )
        except DuplicatedStudyError as error:
            raise ConfigError([_TAKEN.format(name=name)]) from error
        if settings.resume is None:
            study.set_user_attr(_ABOUT, json.dumps(about))
        else:
            _refuse_changes(json.loads(study.user_attrs.get(_ABOUT, "{}")), about, name)
        # A resumed sampler must not repeat its earlier draws.
        study.sampler = _sampler(settings, len(study.get_trials(deepcopy=False)))
        yield study


@contextmanager
def _storage_errors(address: str) -> Iterator[None]:
    try:
        yield
    except DuplicatedStudyError:
        raise
    except (SQLAlchemyError, StorageInternalError, OptunaError, ImportError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            [f"Optuna's store cannot be used ({reason}). Received: {without_password(address)}"]
        ) from error


@contextmanager
def _study_lock(name: str, address: str) -> Iterator[None]:
    """Lock a study, as a second process would treat its running trials as dead; a killed process frees its lock."""
    if not address.startswith("sqlite:///"):
        yield
        return
    file = Path(address.removeprefix("sqlite:///"))
    lock = FileLock(file.with_name(f".{file.name}.{content_key(name)}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError([f"This sweep is running in another process. Received: {name}"]) from error
    try:
        yield
    finally:
        lock.release()


def remember(study: optuna.Study, number: int, key: str, value: str, address: str) -> None:
    """Set a user attribute of a trial by the trial's number, such as for a trial of a dead process.

    Args:
        study: Study of the trial.
        number: Number of the trial.
        key: Name of the attribute.
        value: Value of the attribute.
        address: Address of Optuna's store.
    """
    storage = storage_at(address)
    study_id = storage.get_study_id_from_name(study.study_name)
    trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, number)
    storage.set_trial_user_attr(trial_id, key, value)


def _sampler(settings: SweepConfig, drawn: int) -> BaseSampler:
    seed, startup = (settings.seed + drawn) % 2**32, settings.startup_trials
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if settings.sampler == "tpe":
            return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True)
        if settings.sampler == "cmaes":
            return CmaEsSampler(seed=seed, n_startup_trials=max(startup, 1))
        return NSGAIISampler(seed=seed) if settings.sampler == "nsga2" else RandomSampler(seed=seed)


def _refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    changed = [
        f"{key}: {json.dumps(before.get(key))} became {json.dumps(now.get(key))}"
        # Older versions did not store the monitor, which was val/loss unless it was given.
        for key in sorted({*before, *now} - ({"monitor"} - set(before)))
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise ConfigError(
            [
                "The sweep was started with other settings; give the same, or start another with sweep.name. "
                f"Received: sweep.resume={name} with {'; '.join(changed)}"
            ]
        )
