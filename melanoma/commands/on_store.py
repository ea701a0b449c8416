"""What the commands share that work on a tracking store which is there already."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig

from melanoma.config.checks import range_faults
from melanoma.config.launch import launch, typed

__all__ = ["launch_on_store"]


def launch_on_store(
    command: str,
    schema: type,
    arguments: list[str],
    module: str,
    task: Callable[[ModuleType, Any, str], object],
    *,
    faults_of: Callable[[DictConfig], list[str]] = range_faults,
    rename: dict[str, str] | None = None,
) -> None:
    """Check the configuration, open the store, import what does the work, and say in one sentence what MLflow refuses.

    Args:
        command: see `launch`.
        schema: see `launch`.
        arguments: see `launch`.
        module: is imported only then, as it takes seconds.
        task: is called with that module, the settings and the store's address.
        faults_of: see `launch`.
        rename: see `launch`.
    """

    def run(config: DictConfig, overrides: list[str], folder: Path) -> None:  # noqa: ARG001
        from melanoma.terminal import log_to_terminal, quiet_native_imports
        from melanoma.tracking.store import explained, open_store

        log_to_terminal()
        settings: Any = typed(schema, config)
        uri = open_store(settings.tracking.uri)
        with quiet_native_imports():
            loaded = importlib.import_module(module)
        with explained():
            task(loaded, settings, uri)

    launch(command, schema, faults_of, run, arguments, rename=rename)
