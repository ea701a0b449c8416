"""`melanoma rollback`."""

from melanoma.commands.on_store import launch_on_store
from melanoma.config.command_schema import RollbackConfig

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Go back to the champion before."""
    launch_on_store(
        "rollback",
        RollbackConfig,
        arguments,
        "melanoma.registry.history",
        lambda module, settings, uri: module.rollback(settings.task, uri),
    )
