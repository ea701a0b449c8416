"""`melanoma serve`."""

from pathlib import Path

from omegaconf import DictConfig

from melanoma.config.checks import range_faults
from melanoma.config.command_schema import ServeConfig
from melanoma.config.launch import launch

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Check the configuration, then serve a packaged model."""
    launch("serve", ServeConfig, range_faults, _run, arguments, rename={"model": "saved_model"})


def _run(config: DictConfig, overrides: list[str], folder: Path) -> None:  # noqa: ARG001
    from melanoma.terminal import log_to_terminal, quiet_native_imports
    from melanoma.tracking.store import explained, open_store

    log_to_terminal()
    open_store(config.tracking.uri)
    with quiet_native_imports():
        from melanoma.registry.serve import serve

    with explained():
        serve(config.saved_model, config.host, config.port)
