"""The learning rate that `lr=find` chooses, beside a grid: the primary metric on validation after short trainings.

`python -m benchmarks.learning_rate` (needs MELANOMA_DATA): for each of three networks and data sets, one training with
the chosen learning rate and one with each of five others.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import melanoma
from benchmarks.__main__ import machine

RESULTS = Path(__file__).parent / "learning_rate.json"
GRID = (1e-5, 1e-4, 3e-4, 1e-3, 1e-2)
SEEDS = (0, 1)


def setups(data: Path) -> dict[str, dict[str, object]]:
    """The trainings by name: short enough that the learning rate matters."""
    common = {"data.image_size": 64, "tracking.figures": False, "evaluation.bootstrap": 0}
    real = {name: {"data": name, "data.path": str(data / f"{name}.zip")} for name in ("melanoma10k", "isic9")}
    return {
        "m1, drawn lesions, adam": {**common, "model": "m1", "training.epochs": 6},
        "resnet_small_fast, melanoma10k, adamw": {
            **common, **real["melanoma10k"], "model": "resnet_small_fast", "training.epochs": 4,
        },
        "m3, isic9, adam": {**common, **real["isic9"], "model": "m3", "balance": "none", "training.epochs": 8},
    }  # fmt: skip


def main() -> None:
    """Train all of them, and write the table."""
    folder = os.environ.get("MELANOMA_DATA")
    if not folder:
        sys.exit("MELANOMA_DATA must name the folder of melanoma10k.zip and isic9.zip")
    rows = []
    with tempfile.TemporaryDirectory() as store:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{store}/mlflow.db"
        for name, words in setups(Path(folder)).items():
            for seed in SEEDS:
                for rate in ("find", *GRID):
                    run = melanoma.train(**words, seed=seed, lr=rate)
                    used = float(run.record.params["optimizer.learning_rate"])
                    value = float(run.metrics.value[f"validation/{run.primary_metric}"])
                    rows.append({"training": name, "seed": seed, "asked": rate, "used": used, "validation": value})
                    sys.stdout.write(f"{name}, seed {seed}: {rate} ({used:g}): {run.primary_metric} {value:.3f}\n")
                    sys.stdout.flush()
    RESULTS.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
