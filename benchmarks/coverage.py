"""How often the 95% intervals of metrics contain the truth: `python -m benchmarks.coverage [--simulations 1000]`.

Images are drawn from two models whose metrics are known: scores are normal, one or several images per lesion, and the
number of images of each class varies as in a new sample of patients, but each class occurs. The truth is the value for
a million images. A floor gate passes a model whose metric is exactly the floor as often as the lower bound is above the
truth ("too high").
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
from melanoma.evaluation.decisions import abstention_intervals, set_intervals
from melanoma.evaluation.intervals import intervals_of
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.operating_point import OperatingPoint, measure_at, measure_intervals_at
from melanoma.evaluation.paired import compare_predictions
from melanoma.evaluation.predictions import Bootstrap, Predictions
from melanoma.evaluation.uncertain import Abstention, PredictionSets

RESAMPLES = 400
TRUTH = 1_000_000  # images
LIKENESS = 0.7  # correlation of the errors of the two models
SETS, ABSTENTION = PredictionSets(0.9, 0.8), Abstention(0.1, 0.6)


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
        worse: How much lower the AUC of the second model is.
    """

    name: str
    groups: int
    shares: Sequence[float]
    auc: float = 0.85
    most: int = 1
    likeness: float = 0.0
    worse: float = 0.05


ISIC9 = (16,) * 7 + (3,) * 2
SETTINGS = (
    Setting("100 images, 10% positive", 100, (0.9, 0.1)),
    Setting("118 images, 14% positive", 118, (0.86, 0.14)),
    Setting("500 images, 10% positive", 500, (0.9, 0.1)),
    Setting("100 images, 10% positive, AUC 0.9", 100, (0.9, 0.1), auc=0.9),
    Setting("118 images, 14% positive, AUC 0.9", 118, (0.86, 0.14), auc=0.9),
    Setting("500 images, 10% positive, AUC 0.9", 500, (0.9, 0.1), auc=0.9),
    Setting("500 images, 10% positive, AUC 0.95", 500, (0.9, 0.1), auc=0.95),
    Setting("100 images, 10% positive, AUC 0.95", 100, (0.9, 0.1), auc=0.95),
    Setting("2,000 images, half positive, AUC 0.95", 2000, (0.5, 0.5), auc=0.95),
    Setting("30 images, 40% positive", 30, (0.6, 0.4)),
    Setting("100 images, half positive, equal models", 100, (0.5, 0.5), worse=0.0),
    Setting("100 lesions of 1 to 5 images, 20% positive", 100, (0.8, 0.2), most=5, likeness=0.9),
    Setting("nine classes, as in the test set of isic9", 118, tuple(n / 118 for n in ISIC9)),
    Setting("nine classes, as in isic9, equal models", 118, tuple(n / 118 for n in ISIC9), worse=0.0),
)


def drawn(setting: Setting, groups: int, rng: np.random.Generator) -> tuple[Predictions, Predictions]:
    """Draw lesions and their images, and two models; probabilities are calibrated for the shares of the classes."""
    shares = np.asarray(setting.shares)
    classes = rng.choice(len(shares), size=groups, p=shares)
    sizes = rng.integers(1, setting.most + 1, size=groups)
    of_group = np.repeat(np.arange(groups), sizes)
    targets, k = classes[of_group], len(shares)
    names = ["negative", "positive"] if k == 2 else [f"class {c}" for c in range(k)]
    known = of_group if setting.most > 1 else None
    found, before = [], [np.zeros((len(targets), k)), np.zeros((groups, k))]
    for auc, alike in ((setting.auc, 0.0), (setting.auc - setting.worse, LIKENESS)):
        noise = [alike * old + np.sqrt(1 - alike**2) * rng.normal(size=old.shape) for old in before]
        own, common = noise[0] * np.sqrt(1 - setting.likeness), noise[1][of_group] * np.sqrt(setting.likeness)
        middle = np.eye(k) * ndtri(auc)  # in these directions each pair of classes has the wanted distance
        place = middle[targets] + own + common
        logits = place @ middle.T - (middle**2).sum(axis=1) / 2 + np.log(shares)
        found.append(Predictions(targets, softmax(logits, axis=1), names, groups=known))
        before = noise
    return found[0], found[1]


def point_of(setting: Setting) -> OperatingPoint:
    """Return a threshold that is fixed before the images are drawn."""
    return OperatingPoint("positive", setting.shares[-1], "fixed")


def truths(setting: Setting, rng: np.random.Generator) -> dict[str, float]:
    """Return the values for very many images."""
    model, reference = drawn(setting, TRUTH // max((setting.most + 1) // 2, 1), rng)
    found, other = measure(model), measure(reference)
    targets, probabilities = model.targets, model.probabilities
    parts = {
        "threshold": measure_at(point_of(setting), model),
        "set": SETS.measured(targets, probabilities, model.classes),
        "abstention": ABSTENTION.measured(targets, probabilities),
        "difference": {name: value - other[name] for name, value in found.items()},
    }
    return found | {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}


def intervals(
    setting: Setting, model: Predictions, reference: Predictions, bootstrap: Bootstrap
) -> dict[str, tuple[float, float]]:
    """Return all intervals of a sample, under the names of `truths`."""
    parts = {
        "threshold": measure_intervals_at(point_of(setting), model, bootstrap),
        "set": set_intervals(SETS, model, bootstrap),
        "abstention": abstention_intervals(ABSTENTION, model, bootstrap),
        "difference": {one.metric: (one.low, one.high) for one in compare_predictions(model, reference, bootstrap)},
    }
    found = {f"{part}/{name}": ends for part, values in parts.items() for name, ends in values.items()}
    return intervals_of(model, bootstrap) | found


def coverage(setting: Setting, simulations: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """Return for each metric the truth, and the share of intervals that contain it, are above it, or have no width."""
    rng = np.random.default_rng(seed)
    truth = truths(setting, rng)
    counts: dict[str, NDArray] = {}
    for simulation in range(simulations):
        sample = drawn(setting, setting.groups, rng)
        while len(sample[0].present) < len(sample[0].classes):  # a mean over fewer classes has another truth
            sample = drawn(setting, setting.groups, rng)
        for name, (low, high) in intervals(setting, *sample, Bootstrap(RESAMPLES, seed=simulation)).items():
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
            shown, covered, above = (f"{row[key]:.1%}" for key in ("shown", "coverage", "too_high"))
            print(
                f"  {name:36} truth {row['truth']:.3f}  shown {shown}  covered {covered}  too high {above}", flush=True
            )
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
