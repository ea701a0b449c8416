"""How often the 95% intervals of metrics contain the truth: `python -m benchmarks.coverage [--simulations 1000]`.

Images are drawn from models whose metrics are known: scores are normal, one or several images per lesion, and the
number of images of each class varies as in a new sample of patients. The truth is the metric of a million images.
Writes `benchmarks/coverage.json` and prints a table.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, softmax

from benchmarks.__main__ import machine
from melanoma.evaluation.intervals import intervals_of
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.predictions import Bootstrap, Predictions

RESAMPLES = 400
TRUTH = 1_000_000  # images


@dataclass(frozen=True)
class Setting:
    """Images to draw.

    Attributes:
        name: Title of the row.
        groups: Number of lesions.
        shares: Share of each class.
        auc: AUC of each pair of classes.
        most: Images per lesion, from 1 to this number.
        likeness: Share of the variance of scores that images of one lesion have in common.
    """

    name: str
    groups: int
    shares: Sequence[float]
    auc: float = 0.85
    most: int = 1
    likeness: float = 0.0


ISIC9 = (16,) * 7 + (3,) * 2
SETTINGS = (
    Setting("100 images, 10% positive", 100, (0.9, 0.1)),
    Setting("118 images, 14% positive", 118, (0.86, 0.14)),
    Setting("500 images, 10% positive", 500, (0.9, 0.1)),
    Setting("500 images, 10% positive, AUC 0.95", 500, (0.9, 0.1), auc=0.95),
    Setting("100 images, 10% positive, AUC 0.95", 100, (0.9, 0.1), auc=0.95),
    Setting("100 images, half positive", 100, (0.5, 0.5)),
    Setting("100 lesions of 1 to 5 images, 20% positive", 100, (0.8, 0.2), most=5, likeness=0.9),
    Setting("nine classes, as in the test set of isic9", 118, tuple(n / 118 for n in ISIC9)),
)


def drawn(setting: Setting, groups: int, rng: np.random.Generator) -> Predictions:
    """Draw lesions and their images; probabilities are calibrated for the shares of the classes."""
    shares = np.asarray(setting.shares)
    distance = ndtri(setting.auc) * np.sqrt(2)
    classes = rng.choice(len(shares), size=groups, p=shares)
    sizes = rng.integers(1, setting.most + 1, size=groups)
    of_group = np.repeat(np.arange(groups), sizes)
    targets = classes[of_group]
    # In these directions each pair of classes has the wanted distance.
    middle = np.eye(len(shares)) * distance / np.sqrt(2)
    own = rng.normal(size=(len(targets), len(shares))) * np.sqrt(1 - setting.likeness)
    common = rng.normal(size=(groups, len(shares)))[of_group] * np.sqrt(setting.likeness)
    place = middle[targets] + own + common
    logits = place @ middle.T - (middle**2).sum(axis=1) / 2 + np.log(shares)
    names = ["negative", "positive"] if len(shares) == 2 else [f"class {c}" for c in range(len(shares))]
    return Predictions(targets, softmax(logits, axis=1), names, groups=of_group if setting.most > 1 else None)


def coverage(setting: Setting, simulations: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """Return for each metric the truth, and the share of intervals that contain it, are above it, or have no width."""
    rng = np.random.default_rng(seed)
    truth = measure(drawn(setting, TRUTH // max((setting.most + 1) // 2, 1), rng))
    counts: dict[str, NDArray] = {}
    for simulation in range(simulations):
        found = intervals_of(drawn(setting, setting.groups, rng), Bootstrap(RESAMPLES, seed=simulation))
        for name, (low, high) in found.items():
            if name in truth:
                one = np.array([1, low <= truth[name] <= high, low > truth[name], high == low, high - low])
                counts[name] = counts.get(name, 0) + one
    return {
        name: {
            "truth": round(truth[name], 4),
            "shown": count / simulations,
            "coverage": round(covered / count, 4),
            "too_high": round(above / count, 4),
            "no_width": round(flat / count, 4),
            "width": round(width / count, 4),
        }
        for name, (count, covered, above, flat, width) in counts.items()
    }


def main() -> None:
    """Simulate all settings, write the JSON file and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    started, found = time.perf_counter(), {}
    for setting in SETTINGS:
        found[setting.name] = coverage(setting, options.simulations)
        print(f"\n{setting.name}")
        for name, row in found[setting.name].items():
            covered, above = (f"{row[key]:.1%}" for key in ("coverage", "too_high"))
            print(f"  {name:32} truth {row['truth']:.3f}  covered {covered}  too high {above}")
    record = {
        "simulations": options.simulations,
        "resamples": RESAMPLES,
        "seed": 0,
        "machine": machine(),
        "seconds": round(time.perf_counter() - started),
        "settings": found,
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
