"""`melanoma registry`."""

from melanoma.commands.on_store import launch_on_store
from melanoma.config.command_schema import RollbackConfig

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Show what is registered."""
    launch_on_store(
        "registry",
        RollbackConfig,
        arguments,
        "melanoma.registry.history",
        lambda module, settings, _uri: module.show_registry(settings.task),
    )
