"""`melanoma sweep`, and `melanoma train -m`."""

from datetime import datetime

from melanoma.config.command_schema import SweepCommandConfig
from melanoma.config.launch import launch
from melanoma.paths import outputs_dir
from melanoma.workflows.checks import sweep_faults

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Check the whole sweep, then run its trials."""
    from melanoma.sweeps.plan import is_sweep_key, read_plan

    if {"--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i"} & {word.partition("=")[0] for word in arguments}:
        own = [word for word in arguments if "=" not in word or word.startswith("--") or is_sweep_key(word)]
        shown = [word for word in own if word not in ("-m", "--multirun")]
        launch("sweep", SweepCommandConfig, lambda *_: None, shown, checks=sweep_faults)
        return
    plan = read_plan(arguments)
    from melanoma.sweeps.sweep import run_sweep

    run_sweep(plan, outputs_dir() / "sweep" / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}")
