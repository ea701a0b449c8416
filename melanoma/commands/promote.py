"""`melanoma promote`."""

from pathlib import Path

from omegaconf import DictConfig

from melanoma.config.checks import promote_faults
from melanoma.config.command_schema import PromoteConfig
from melanoma.config.launch import launch, typed

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Check the configuration, then promote the best run, if it deserves it."""
    arguments = ["dry_run=true" if word in ("--dry-run", "--dry_run") else word for word in arguments]
    launch("promote", PromoteConfig, promote_faults, _promote, arguments)


def _promote(config: DictConfig, overrides: list[str], folder: Path) -> None:  # noqa: ARG001
    from melanoma.terminal import log_to_terminal, quiet_native_imports
    from melanoma.tracking.store import explained, open_store

    log_to_terminal()
    settings: PromoteConfig = typed(PromoteConfig, config)
    uri = open_store(settings.tracking.uri)
    with quiet_native_imports():
        from melanoma.registry.promote import promote

    with explained():
        promote(settings, uri)
