"""How often comparisons, gates and subgroups decide wrongly, and what recalibration, prediction sets and seeds hold.

`python -m benchmarks.decisions [--simulations 300]`

Each row is a situation in which the truth is known, decided as `melanoma compare` and `melanoma promote` do. Scores are
normal; the errors of the models on an image have a correlation of 0.7. Writes `benchmarks/decisions.json` and prints a
table.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri, softmax

from benchmarks.__main__ import machine
from melanoma.config.command_schema import ChampionGateConfig, SubgroupGateConfig
from melanoma.config.schema import EvaluationConfig
from melanoma.evaluation.calibration import fit_recalibration
from melanoma.evaluation.intervals import intervals_of
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.paired import compare_predictions, corrected
from melanoma.evaluation.predictions import Bootstrap, Predictions
from melanoma.evaluation.proportions import quantile, widened
from melanoma.evaluation.seeds import compare_over_seeds, over_seeds
from melanoma.evaluation.subgroups import as_columns, measure_subgroups
from melanoma.evaluation.uncertain import fit_prediction_sets
from melanoma.registry.gates import champion_gate, subgroup_gate
from melanoma.tracking.looks import attempt_level

LIKENESS = 0.7
SEEDS_AUC, SEEDS_STD = 0.85, 0.03
CLASSES = ["benign", "malignant"]


def models(
    targets: NDArray[np.integer], aucs: Sequence[float | NDArray], rng: np.random.Generator
) -> list[Predictions]:
    """Draw predictions of models with given AUCs, of all images together or of each image's subgroup."""
    common = rng.normal(size=len(targets))
    found = []
    for auc in aucs:
        distance = ndtri(auc) * np.sqrt(2)
        scores = np.sqrt(LIKENESS) * common + np.sqrt(1 - LIKENESS) * rng.normal(size=len(targets))
        place = distance * (targets - 0.5) + scores
        positive = expit(ndtri(0.85) * np.sqrt(2) * place + logit(targets.mean()))
        found.append(Predictions(targets, np.stack([1 - positive, positive], axis=1), CLASSES))
    return found


def drawn_targets(images: int, share: float, rng: np.random.Generator) -> NDArray[np.integer]:
    """Draw classes, with at least ten images of each."""
    while True:
        targets = (rng.random(images) < share).astype(int)
        if 10 <= targets.sum() <= images - 10:
            return targets


def equal_runs(seed: int) -> dict[str, bool]:
    """Compare ten equal models on 500 images, 10% positive."""
    rng = np.random.default_rng(seed)
    first, *others = models(drawn_targets(500, 0.1, rng), [0.85] * 10, rng)
    tests = {str(i): compare_predictions(one, first, Bootstrap(400, seed=seed)) for i, one in enumerate(others)}
    found = [one for tested in corrected(tests, "auc").values() for one in tested]
    return {
        "compare: 10 equal runs, one called different by the primary metric": any(
            one.is_shown for one in found if one.metric == "auc"
        ),
        "compare: 10 equal runs, one called different by any metric": any(one.is_shown for one in found),
        "compare: 10 equal runs, the same without correction": any(one.p_value < 0.05 for one in found),
    }


def attempts(seed: int) -> dict[str, bool]:
    """Try to promote 20 models whose AUC is the floor, on one test set of 500 images, 10% positive."""
    rng = np.random.default_rng(seed)
    passed, unspent = False, False
    for attempt, one in enumerate(models(drawn_targets(500, 0.1, rng), [0.85] * 20, rng), start=1):
        value, (low, _) = measure(one)["auc"], intervals_of(one, Bootstrap(20))["auc"]
        factor = quantile(attempt_level(attempt)) / quantile(0.95)
        passed |= widened(value, low, factor) >= 0.85
        unspent |= low >= 0.85
    return {
        "floor gate: 20 attempts on one test set at the floor, one passes": passed,
        "floor gate: the same, each by its 95% interval": unspent,
    }


def drift(seed: int) -> dict[str, float]:
    """Let 13 candidates follow each other on 5,000 images, each truly 0.01 worse than the one before; margin 0.02."""
    rng = np.random.default_rng(seed)
    truth = 0.95 - 0.01 * np.arange(14)
    candidates = models(drawn_targets(5000, 0.5, rng), list(truth), rng)
    ends = {}
    for name, careful in (("of AUC in 13 promotions of -0.01", True), ("without levels and best champion", False)):
        champion, past = 0, [0]
        for attempt, number in enumerate(range(1, 14), start=2):
            level = attempt_level(attempt) if careful else 0.95
            best = max(past, key=lambda one: measure(candidates[one])["auc"])
            compared = {champion, best} if careful else {champion}
            gates = [
                champion_gate(
                    compare_predictions(candidates[number], candidates[one], Bootstrap(20, level)),
                    "champion",
                    ChampionGateConfig(margin=0.02),
                )
                for one in compared
            ]
            if all(gate is not None and gate.passed for gate in gates):
                champion, past = number, [*past, number]
        ends[f"champion gate: loss {name}"] = float(truth[0] - truth[champion])
    return ends


def subgroups(seed: int) -> dict[str, bool]:
    """Judge 13 equal subgroups of 400 images, 10% positive, and six of 900 images, one of which the model fails on."""
    rng = np.random.default_rng(seed)
    targets = drawn_targets(400, 0.1, rng)
    [good] = models(targets, [0.85], rng)
    columns = {"sex": 2, "band": 5, "site": 6}
    rows = pd.DataFrame({name: rng.integers(0, count, 400) for name, count in columns.items()})
    skin = rng.integers(1, 7, 900)
    [bad] = models(drawn_targets(900, 0.2, rng), [np.where(skin == 6, 0.48, 0.85)], rng)
    found = measured(rows, good, list(columns))
    differing = {one.column for one in found if one.p_value is not None and one.p_value < 0.05}
    return {
        "subgroup gate: 13 equal groups of 400 images, refused": not passes(found),
        "subgroups: 13 equal groups in 3 columns, some adjusted p below 0.05": bool(differing),
        "subgroup gate: AUC 0.48 on skin type 6 of 1 to 6, passes": passes(
            measured(pd.DataFrame({"skin": skin}), bad, ["skin"])
        ),
    }


def recalibration(seed: int) -> dict[str, float]:
    """Recalibrate an overconfident model on 50 or 100 images of a site with other frequencies, and a model that fits.

    The excess is the log loss on 20,000 images above that of the true probabilities.
    """
    found, sites = (
        {},
        {"2 classes": [0, -2], "5 classes": [1, 0, 0, -1, -2], "9 classes": [1, 0, 0, -1, -2, 0, 0, 0, 1]},
    )
    for name, shifts in sites.items():
        for fits in (False, True):
            site = (1.0, [0] * len(shifts)) if fits else (0.5, shifts)
            targets, probabilities, true = drawn_site(20_000, *site, np.random.default_rng(1_000_000))
            excess = loss(targets, probabilities) - loss(targets, true)
            for images in (50, 100):
                seen, given, _ = drawn_site(images, *site, np.random.default_rng(seed))
                after = loss(targets, fit_recalibration(seen, given).applied(probabilities)) - loss(targets, true)
                if fits:
                    found[f"recalibration: {name}, {images} images, nothing wrong, excess of log loss"] = after
                else:
                    found[f"recalibration: {name}, {images} images, share of the excess that is left"] = after / excess
    return found


def drawn_site(
    images: int, slope: float, shifts: Sequence[float], rng: np.random.Generator
) -> tuple[NDArray[np.integer], NDArray, NDArray]:
    """Draw classes, a model's probabilities, and the true ones, which differ by a slope and a shift of each class."""
    logits = 1.5 * rng.normal(size=(images, len(shifts)))
    true = softmax(slope * logits + np.asarray(shifts), axis=1)
    return (true.cumsum(axis=1) < rng.random((images, 1))).sum(axis=1), softmax(logits, axis=1), true


def seeds(seed: int) -> dict[str, bool]:
    """Train two equal recipes with three seeds each, whose AUC has a standard deviation of 0.03, on 500 images."""
    rng = np.random.default_rng(seed)
    targets = drawn_targets(500, 0.3, rng)
    predictions = models(targets, list(SEEDS_AUC + SEEDS_STD * rng.normal(size=6)), rng)
    first = predictions[:3]
    found = over_seeds(first, [measure(p) for p in first], [intervals_of(p, Bootstrap(20)) for p in first])["auc"]
    several = compare_over_seeds(first, predictions[3:], Bootstrap(20))
    single = compare_predictions(first[0], predictions[3], Bootstrap(20))
    together, alone = (next(one for one in tests if one.metric == "auc") for tests in (several, single))
    return {
        "3 seeds: the interval contains the expected AUC": within(SEEDS_AUC, found.both),
        "3 seeds: the interval for these seeds only contains it": within(SEEDS_AUC, found.sampling),
        "3 seeds each of equal recipes, called different by the AUC": together.is_shown,
        "1 seed each of equal recipes, called different by the AUC": alone.is_shown,
    }


def within(value: float, bounds: tuple[float, float] | None) -> bool:
    """Return whether an interval contains a value."""
    return bounds is not None and bounds[0] <= value <= bounds[1]


def prediction_sets(seed: int) -> dict[str, float]:
    """Fit prediction sets of 90% on 600 images, 5% of the rarest of three classes, with AUC 0.86 of each pair."""
    rng, shares, names = np.random.default_rng(seed), np.array([0.7, 0.25, 0.05]), ["frequent", "middle", "rare"]
    targets = rng.choice(3, size=5600, p=shares)
    probabilities = softmax(1.5 * np.eye(3)[targets] + rng.normal(size=(5600, 3)) + np.log(shares), axis=1)
    found = {}
    for kind, per_class in (("90% together", False), ("90% per class", True)):
        sets = fit_prediction_sets(targets[:600], probabilities[:600], 0.9, per_class=per_class)
        measured = sets.measured(targets[600:], probabilities[600:], names)
        for title, name in (
            ("coverage", "coverage"),
            ("coverage of the rare class", "coverage/rare"),
            ("size", "size"),
        ):
            found[f"prediction sets, {kind}: {title}"] = measured[name]
    return found


def loss(targets: NDArray[np.integer], probabilities: NDArray) -> float:
    """Return the log loss."""
    return float(-np.log(probabilities[np.arange(len(targets)), targets]).mean())


def measured(rows: pd.DataFrame, predictions: Predictions, columns: list[str]) -> list:
    """Return the subgroups of columns."""
    return measure_subgroups(rows, predictions, EvaluationConfig(subgroups=columns), Bootstrap(20))


def passes(found: list) -> bool:
    """Return whether the subgroup gate with a floor of 0.5 passes."""
    table = pd.DataFrame([as_columns(one, "auc") for one in found])
    gate = subgroup_gate(table, [one.column for one in found], SubgroupGateConfig("auc", 0.5))
    return gate is not None and gate.passed


SITUATIONS: dict[Callable[[int], dict], float] = {
    equal_runs: 1,
    attempts: 1,
    drift: 0.1,
    subgroups: 1,
    recalibration: 1,
    prediction_sets: 1,
    seeds: 1,
}


def main() -> None:
    """Simulate all situations, write the JSON file and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    started, found = time.perf_counter(), {}
    with ProcessPoolExecutor() as pool:
        for situation, share in SITUATIONS.items():
            count = max(int(options.simulations * share), 1)
            table = pd.DataFrame(list(pool.map(partial(situation), range(count), chunksize=5)))
            for name, mean in table.mean().items():
                found[name] = {"simulations": count, "mean": round(float(mean), 4)}
                print(f"{name:75} {mean:.3f}", flush=True)
    record = {"machine": machine(), "seconds": round(time.perf_counter() - started), "situations": found}
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
