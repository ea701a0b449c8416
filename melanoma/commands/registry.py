"""`melanoma registry`."""

from pathlib import Path

from omegaconf import DictConfig

from melanoma.config.checks import range_faults
from melanoma.config.command_schema import RollbackConfig
from melanoma.config.launch import launch, typed

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Check the configuration, then show what is registered."""
    launch("registry", RollbackConfig, range_faults, _run, arguments)


def _run(config: DictConfig, overrides: list[str], folder: Path) -> None:  # noqa: ARG001
    from melanoma.terminal import log_to_terminal, quiet_native_imports
    from melanoma.tracking.store import explained, open_store

    log_to_terminal()
    settings: RollbackConfig = typed(RollbackConfig, config)
    open_store(settings.tracking.uri)
    with quiet_native_imports():
        from melanoma.registry.history import show_registry

    with explained():
        show_registry(settings.task)
