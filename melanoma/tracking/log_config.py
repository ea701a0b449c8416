"""Logging of a configuration; a separate module so that a sweep can log its own without importing TensorFlow."""

import platform
from collections.abc import Sequence
from typing import Any

import yaml

from melanoma.tracking.names import Artifact
from melanoma.tracking.run import Run, flattened
from melanoma.tracking.source import git_diff, installed_packages
from melanoma.tracking.store import without_password

__all__ = ["log_config"]


def log_config(run: Run, config: dict[str, Any], overrides: Sequence[str]) -> None:
    """Log the resolved configuration as parameters and artifact, with the packages and the state of the code."""
    run.log_params({key: without_password(str(value)) for key, value in flattened(config).items()})
    resolved = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    run.log_evidence(without_password(resolved), Artifact.CONFIG)
    run.log_text(without_password(yaml.safe_dump(list(overrides), allow_unicode=True)), Artifact.OVERRIDES)
    run.log_text(f"# Python {platform.python_version()}\n{installed_packages()}", Artifact.REQUIREMENTS)
    diff = git_diff()
    if diff:
        run.log_text(diff, Artifact.DIFF)
