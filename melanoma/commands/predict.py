"""`melanoma predict`."""

from pathlib import Path

from omegaconf import DictConfig

from melanoma.config.checks import range_faults
from melanoma.config.command_schema import PredictConfig
from melanoma.config.launch import launch

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Check the configuration, then print and write class probabilities."""
    launch("predict", PredictConfig, range_faults, _predict, arguments, rename={"model": "saved_model"})


def _predict(config: DictConfig, overrides: list[str], folder: Path) -> None:  # noqa: ARG001
    from melanoma.inference import predict_files

    predict_files(
        model=config.saved_model,
        pattern=config.input,
        output=config.output,
        batch_size=config.batch_size,
        uri=config.tracking.uri,
    )
