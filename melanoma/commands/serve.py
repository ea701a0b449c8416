"""`melanoma serve`."""

from melanoma.commands.on_store import launch_on_store
from melanoma.config.command_schema import ServeConfig

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Serve a packaged model."""
    launch_on_store(
        "serve",
        ServeConfig,
        arguments,
        "melanoma.registry.serve",
        lambda module, settings, _uri: module.serve(settings.saved_model, settings.host, settings.port),
        rename={"model": "saved_model"},
    )
