"""Logging of a configuration; a separate module so that a sweep can log its own without importing TensorFlow."""

import platform
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import yaml

from melanoma.config.arguments import flattened
from melanoma.tracking.names import Artifact
from melanoma.tracking.run import Run
from melanoma.tracking.source import git_diff, installed_packages
from melanoma.tracking.store import without_password

__all__ = ["EPOCHS", "LEARNING_RATE", "WARMUP", "environment_text", "found_later", "log_config", "log_found"]

LEARNING_RATE, EPOCHS, WARMUP = "optimizer.learning_rate", "training.epochs", "model.warmup_epochs"


def log_config(run: Run, config: dict[str, Any], overrides: Sequence[str]) -> None:
    """Log the resolved configuration as parameters and artifact, with the packages and the state of the code."""
    params = {key: without_password(str(value)) for key, value in flattened(config).items()}
    later = found_later(config)  # logged once they are found, because a parameter cannot be changed
    run.log_params({key: value for key, value in params.items() if key not in later})
    run.log_text(without_password(yaml.safe_dump(list(overrides), allow_unicode=True)), Artifact.OVERRIDES)
    run.log_text(environment_text(), Artifact.REQUIREMENTS)
    diff = git_diff()
    if diff:
        run.log_text(diff, Artifact.DIFF)
    _log_resolved(run, config)  # at last: a run that has it can be resumed


def environment_text() -> str:
    """Return the version of Python, as a comment, and the installed packages, one per line."""
    return f"# Python {platform.python_version()}\n{installed_packages()}"


def found_later(config: dict[str, Any]) -> set[str]:
    """Return the keys whose values are found just before the training."""
    training = config.get("training") or {}
    found = {
        LEARNING_RATE: training.get("find_learning_rate", False),
        EPOCHS: training.get("max_minutes") is not None,
        WARMUP: training.get("max_minutes") is not None and (config.get("model") or {}).get("warmup_epochs", 0) > 0,
    }
    return {key for key, is_found in found.items() if is_found}


def log_found(run: Run, config: dict[str, Any], found: dict[str, float]) -> None:
    """Log values that were found just before the training: as parameters and in the resolved configuration."""
    run.log_params(found)
    resolved = deepcopy(config)
    for key, value in found.items():
        section, name = key.split(".")
        resolved[section][name] = value
    _log_resolved(run, resolved)


def _log_resolved(run: Run, config: dict[str, Any]) -> None:
    resolved = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    run.log_evidence(without_password(resolved), Artifact.CONFIG)
