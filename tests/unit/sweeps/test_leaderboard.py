"""Which trial is the best, and in which order they are listed."""

from collections.abc import Sequence

import optuna
import pytest
from optuna.trial import TrialState

from melanoma.sweeps.report import best_trial, leaderboard


def study(directions: Sequence[str], *told: Sequence[float] | TrialState) -> optuna.Study:
    """A study whose trials ended with these values, or in this state."""
    made = optuna.create_study(directions=list(directions))
    for end in told:
        trial = made.ask()
        if isinstance(end, TrialState):
            made.tell(trial, state=end)
        else:
            made.tell(trial, list(end))
    return made


@pytest.mark.parametrize(("direction", "expected"), [("maximize", [3, 1, 2, 0]), ("minimize", [1, 2, 3, 0])])
def test_the_best_is_first_and_what_failed_last(direction: str, expected: list[int]):
    trials = study([direction], TrialState.FAIL, [0.2 if direction == "minimize" else 0.7], [0.6], [0.9])
    table = leaderboard(trials, ["validation/auc"])
    assert table.trial.tolist() == expected
    assert table.state.tolist() == ["complete"] * 3 + ["fail"]
    assert best_trial(trials).number == expected[0]


def test_of_two_metrics_the_best_of_the_pareto_front_by_the_first():
    # Trial 1 has the AUC of trial 2 at a higher latency, so it is not on the front.
    trials = study(["maximize", "minimize"], [0.7, 5.0], [0.9, 40.0], [0.9, 20.0], TrialState.FAIL, [0.8, 10.0])
    assert best_trial(trials).number == 2
    table = leaderboard(trials, ["validation/auc", "model/latency_ms"])
    assert table.trial.tolist() == [2, 1, 4, 0, 3]
    assert table["validation/auc"].tolist()[:4] == [0.9, 0.9, 0.8, 0.7]
    assert table["model/latency_ms"].tolist()[:4] == [20.0, 40.0, 10.0, 5.0]
    assert best_trial(study(["minimize", "maximize"], [2.0, 0.5], [1.0, 0.4], [1.0, 0.6])).number == 2


def test_of_equal_trials_the_first_is_the_best():
    trials = study(["maximize"], [0.5], [0.5])
    assert best_trial(trials).number == leaderboard(trials, ["validation/auc"]).trial[0] == 0


def test_without_a_finished_trial_none_is_the_best():
    trials = study(["maximize"], TrialState.FAIL, TrialState.PRUNED)
    assert best_trial(trials) is None
    assert leaderboard(trials, ["validation/auc"]).state.tolist() == ["fail", "pruned"]


def test_a_trial_that_waits_is_not_listed():
    trials = study(["maximize"], [0.5])
    trials.enqueue_trial({})
    assert leaderboard(trials, ["validation/auc"]).trial.tolist() == [0]
