"""`melanoma audit`."""

from pathlib import Path

from omegaconf import DictConfig

from melanoma.config.checks import audit_faults
from melanoma.config.command_schema import AuditCommandConfig
from melanoma.config.launch import launch

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Check the configuration, then audit a data set and write the report."""
    launch("audit", AuditCommandConfig, audit_faults, _audit, arguments)


def _audit(config: DictConfig, overrides: list[str], folder: Path) -> None:  # noqa: ARG001
    from melanoma.auditing import audit_data

    audit_data(config, folder)
