"""`melanoma app`."""

from melanoma.commands.on_store import launch_on_store
from melanoma.config.command_schema import ServeConfig

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Show a page to try a model."""
    launch_on_store(
        "app",
        ServeConfig,
        arguments,
        "melanoma.registry.app",
        lambda module, settings, _uri: module.show_app(settings.saved_model, settings.host, settings.port),
        rename={"model": "saved_model"},
    )
