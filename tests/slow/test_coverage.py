"""The coverage of intervals, in a reduced form of `python -m benchmarks.coverage`."""

import pytest

from benchmarks.coverage import SETTINGS, Setting, coverage
from benchmarks.decisions import drift, equal_runs, seeds

SIMULATIONS = 200
LEAST = 0.89  # 95% less four standard errors


@pytest.mark.slow
@pytest.mark.parametrize("setting", [SETTINGS[1], SETTINGS[11], SETTINGS[12]], ids=lambda setting: setting.name)
def test_intervals_contain_the_truth(setting: Setting):
    found = coverage(setting, SIMULATIONS)
    assert {"accuracy", "balanced_accuracy", "macro_f1", "mcc", "log_loss", "brier", "auc"} <= set(found)
    low = {name: row["coverage"] for name, row in found.items() if row["shown"] > 0.5 and row["coverage"] < LEAST}
    assert low == {}
    assert all(row["no_width"] == 0 for row in found.values())


@pytest.mark.slow
def test_equal_runs_are_seldom_called_different():
    found = [equal_runs(seed) for seed in range(60)]
    assert sum(one["compare: 10 equal runs, one called different by any metric"] for one in found) <= 8


@pytest.mark.slow
def test_intervals_over_seeds_hold_for_other_seeds():
    found = [seeds(number) for number in range(60)]
    shares = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
    assert shares["3 seeds: the interval contains the expected AUC"] >= 0.88
    assert shares["3 seeds: the interval for these seeds only contains it"] < 0.93
    assert shares["3 seeds each of equal recipes, called different by the AUC"] <= 0.1
    assert shares["1 seed each of equal recipes, called different by the AUC"] > 0.2


@pytest.mark.slow
def test_margins_do_not_add_up():
    careful, free = zip(*(drift(seed).values() for seed in range(10)), strict=True)
    assert max(careful) < 0.06
    assert sum(careful) < sum(free) / 2
