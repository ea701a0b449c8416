"""`melanoma sweep`, and `melanoma train -m`."""

from datetime import datetime

from melanoma.config.checks import sweep_faults
from melanoma.config.launch import launch
from melanoma.config.schema import SweepCommandConfig
from melanoma.paths import outputs_dir

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Check the whole sweep, then run its trials."""
    if {"--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i"} & set(arguments):
        launch("sweep", SweepCommandConfig, sweep_faults, lambda *_: None, arguments)
        return
    from melanoma.sweeps.plan import read_plan

    plan = read_plan(arguments)
    from melanoma.sweeps.sweep import run_sweep

    run_sweep(plan, outputs_dir() / "sweep" / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}")
