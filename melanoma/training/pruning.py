"""Stopping a trial that has fallen behind, from inside its own process."""

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

PRUNING_VARIABLE = "MELANOMA_PRUNING"  # environment of a trial: what the sweep tells it


@dataclass(frozen=True)
class PruningOrder:
    """What a sweep tells a trial that it may stop.

    Attributes:
        storage: address of Optuna's store.
        study: name of the study.
        trial_number: of the trial in the study.
        pruner: as in `sweep.pruner`.
        startup_trials: that are never stopped by `median`.
        metric: of each epoch, that is compared.
        sign: -1 where the study's direction is not that of the metric.
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
    """Optuna's store; of SQLite one that waits while other processes write."""
    from optuna.storages import RDBStorage

    if not address.startswith("sqlite:///"):
        return RDBStorage(address)
    Path(address.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return RDBStorage(address, engine_kwargs={"connect_args": {"timeout": 60}})


def pruner_of(name: str, startup_trials: int) -> "BasePruner":
    """Optuna's pruner by the name of `sweep.pruner`."""
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if name == "median":
        return MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=1)
    return HyperbandPruner() if name == "hyperband" else NopPruner()


def pruning_check() -> Callable[[int, dict[str, float]], None] | None:
    """What to call after each epoch with its number and metrics; None outside of a sweep that prunes.

    The call raises `RunPruned` when the other trials were better at that epoch.
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
