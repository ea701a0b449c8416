"""What tracking costs: the share of a training run's time spent in logging figures, metrics, data and the model.

`python -m benchmarks.tracking data=isic9 data.path=... model=m3`: any arguments of `melanoma train`.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.__main__ import machine

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    """Train once with every call into the tracking code timed from outside."""
    from melanoma.config.diagnose import compose_config
    from melanoma.config.launch import register_resolvers

    register_resolvers()
    folder = Path(tempfile.mkdtemp(prefix="melanoma-tracking-"))
    config = compose_config("train", [*sys.argv[1:], f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"])
    start = time.perf_counter()

    from melanoma.tracking import log, log_config, log_decisions, log_evaluation, log_subgroups, models, run
    from melanoma.training import state
    from melanoma.workflows import card
    from melanoma.workflows.train import train

    spent: dict[str, float] = {}

    def timed(name: str, function: Callable) -> Callable:
        def call(*arguments: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - begun

        return call

    # The experiment imports each when it runs, and so finds the timed one.
    log_functions = [(log, name) for name in ("log_audit", "log_dataset", "log_fit", "log_samples")]
    for module, name in [
        *log_functions, (log_config, "log_config"), (log_evaluation, "log_evaluations"), (card, "log_card"),
        (log_decisions, "log_decisions"), (log_subgroups, "log_subgroups"), (models, "save_model"),
    ]:  # fmt: skip
        setattr(module, name, timed(name, getattr(module, name)))
    # Metrics of epochs are logged through the run; those inside the functions above are in their time already.
    whole = run.Run.log_metrics

    def log_epoch(self: run.Run, metrics: dict, step: int | None = None) -> None:
        (timed("log_epoch", whole) if step is not None else whole)(self, metrics, step or 0)

    run.Run.log_metrics = log_epoch
    state.Snapshots.on_epoch_end = timed("checkpoints", state.Snapshots.on_epoch_end)
    train(config, sys.argv[1:], folder)
    total = time.perf_counter() - start
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{name:<16} {seconds:7.2f} s")
    print(f"{'tracking':<16} {sum(spent.values()):7.2f} s of {total:.1f} s: {sum(spent.values()) / total:.2%}")
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "arguments": [word for word in sys.argv[1:] if not word.startswith("data.path")],
        "seconds": {**spent, "tracking": sum(spent.values()), "run": total},
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
