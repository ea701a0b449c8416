"""`melanoma train`."""

from pathlib import Path

from omegaconf import DictConfig

from melanoma.config.checks import train_faults
from melanoma.config.launch import launch
from melanoma.config.schema import TrainConfig

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Check the configuration, then run one experiment; several, where values are to be varied."""
    from melanoma.sweeps.plan import is_sweep

    if is_sweep(arguments):
        from melanoma.commands import sweep

        sweep.main(arguments)
        return
    launch("train", TrainConfig, train_faults, _train, arguments)


def _train(config: DictConfig, overrides: list[str], folder: Path) -> None:
    from melanoma.pipeline import train

    train(config, overrides, folder)
