"""Stopping a trial that has fallen behind, from inside its own process."""

import json
import os
from collections.abc import Callable

from melanoma.errors import RunPruned

__all__ = ["PRUNING", "pruning_check", "pruning_order"]

PRUNING = "MELANOMA_PRUNING"  # environment of a trial: what the sweep tells it


def pruning_order(
    *, storage: str, study: str, trial_id: int, pruner: str, startup_trials: int, metric: str, sign: int
) -> str:
    """What a trial has to know, as the value of the environment variable."""
    order = {"storage": storage, "study": study, "trial_id": trial_id, "pruner": pruner}
    return json.dumps({**order, "startup_trials": startup_trials, "metric": metric, "sign": sign})


def pruning_check() -> Callable[[int, dict[str, float]], None] | None:
    """What to call after each epoch with its number and metrics; None outside of a sweep that prunes.

    The call raises `RunPruned` when the other trials were better at that epoch.
    """
    text = os.environ.pop(PRUNING, None)
    if text is None:
        return None
    import optuna

    from melanoma.sweeps.study import pruner_of, storage_at

    order = json.loads(text)
    pruner = pruner_of(order["pruner"], order["startup_trials"])
    study = optuna.load_study(study_name=order["study"], storage=storage_at(order["storage"]), pruner=pruner)
    trial = optuna.trial.Trial(study, order["trial_id"])

    def check(epoch: int, metrics: dict[str, float]) -> None:
        value = metrics[order["metric"]]
        trial.report(order["sign"] * value, epoch)
        if trial.should_prune():
            raise RunPruned(f"{order['metric']} of {value:.4f} after epoch {epoch + 1} is behind the other trials")

    return check
