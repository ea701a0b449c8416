"""`melanoma evaluate`."""

from pathlib import Path

from omegaconf import DictConfig

from melanoma.config.checks import evaluate_faults
from melanoma.config.command_schema import EvaluateConfig
from melanoma.config.launch import launch

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Check the configuration, then evaluate a saved model into a run of its own."""
    launch("evaluate", EvaluateConfig, evaluate_faults, _evaluate, arguments, rename={"model": "saved_model"})


def _evaluate(config: DictConfig, overrides: list[str], folder: Path) -> None:
    from melanoma.external import evaluate_saved

    evaluate_saved(config, overrides, folder)
