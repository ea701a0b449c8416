"""`melanoma export`."""

from melanoma.commands.on_store import launch_on_store
from melanoma.config.command_schema import ExportConfig

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Write a model in another format."""
    launch_on_store(
        "export",
        ExportConfig,
        arguments,
        "melanoma.registry.export",
        lambda module, settings, _uri: module.export_model(settings.saved_model, settings.format, settings.output),
        rename={"model": "saved_model"},
    )
