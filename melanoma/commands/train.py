"""`melanoma train`: one experiment, or a sweep if values are varied."""

from pathlib import Path

from omegaconf import DictConfig

from melanoma.config.launch import launch
from melanoma.config.schema import TrainConfig
from melanoma.sweeps.plan import is_sweep
from melanoma.workflows.checks import train_faults

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Check the configuration, then run one experiment, or a sweep if values are varied."""
    if is_sweep(arguments):
        from melanoma.commands import sweep

        sweep.main(arguments)
        return
    launch("train", TrainConfig, _train, arguments, checks=train_faults)


def _train(config: DictConfig, overrides: list[str], folder: Path) -> object:
    from melanoma.workflows.train import train

    return train(config, overrides, folder)
