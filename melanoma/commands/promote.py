"""`melanoma promote`."""

from melanoma.commands.on_store import launch_on_store
from melanoma.config.checks import promote_faults
from melanoma.config.command_schema import PromoteConfig

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Promote the best run, if it deserves it."""
    arguments = ["dry_run=true" if word == "--dry-run" else word for word in arguments]
    launch_on_store(
        "promote",
        PromoteConfig,
        arguments,
        "melanoma.registry.promote",
        lambda module, settings, uri: module.promote(settings, uri),
        faults_of=promote_faults,
    )
