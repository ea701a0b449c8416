"""Pruning of a trial from within its own process."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from melanoma.errors import RunPruned

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.storages import RDBStorage

__all__ = ["PRUNING_VARIABLE", "PruningOrder", "pruner_of", "pruning_check", "storage_at"]

PRUNING_VARIABLE = "MELANOMA_PRUNING"  # environment variable: the pruning settings of a trial


@dataclass(frozen=True)
class PruningOrder:
    """The pruning settings that a sweep passes to a trial.

    Attributes:
        storage: Address of Optuna's store.
        study: Name of the study.
        trial_number: Number of the trial in the study.
        pruner: Name of the pruner, as in `sweep.pruner`.
        startup_trials: Number of finished trials before the pruner `median` prunes any.
        metric: Metric of each epoch to compare.
        sign: -1 if the direction of the study differs from that of the metric, 1 otherwise.
    """

    storage: str
    study: str
    trial_number: int
    pruner: str
    startup_trials: int
    metric: str
    sign: int

    def __str__(self) -> str:
        return json.dumps(asdict(self))


def storage_at(address: str) -> "RDBStorage":
    """Open Optuna's store; a SQLite store waits up to 60 s while other processes write."""
    from optuna.storages import RDBStorage

    if not address.startswith("sqlite:///"):
        return RDBStorage(address)
    Path(address.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return RDBStorage(address, engine_kwargs={"connect_args": {"timeout": 60}})


def pruner_of(name: str, startup_trials: int) -> "BasePruner":
    """Return the Optuna pruner for `sweep.pruner`."""
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if name == "median":
        return MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=1)
    return HyperbandPruner() if name == "hyperband" else NopPruner()


def pruning_check() -> Callable[[int, dict[str, float]], None] | None:
    """Return a function to call after each epoch with its number and metrics; None if the trial cannot be pruned.

    The function raises `RunPruned` if the pruner decides to prune the trial.
    """
    text = os.environ.pop(PRUNING_VARIABLE, None)
    if text is None:
        return None
    import optuna

    order = PruningOrder(**json.loads(text))
    pruner = pruner_of(order.pruner, order.startup_trials)
    storage = storage_at(order.storage)
    study = optuna.load_study(study_name=order.study, storage=storage, pruner=pruner)
    study_id = storage.get_study_id_from_name(order.study)
    trial = optuna.trial.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, order.trial_number))

    def check(epoch: int, metrics: dict[str, float]) -> None:
        value = metrics[order.metric]
        trial.report(order.sign * value, epoch)
        if trial.should_prune():
            raise RunPruned(f"{order.metric} of {value:.4f} after epoch {epoch + 1} is behind the other trials")

    return check
