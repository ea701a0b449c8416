"""From a sweep's command line to its plan: everything that can be known to be wrong is, before anything runs."""

import pytest

from melanoma.errors import ConfigError
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.predictions import Predictions
from melanoma.paths import conf_dir
from melanoma.sweeps.objectives import check_metrics, logged_metrics
from melanoma.sweeps.plan import is_sweep, read_plan

READY = sorted(file.stem for file in (conf_dir() / "sweep").glob("*.yaml"))


@pytest.mark.parametrize(
    ("words", "several"),
    [
        ("model=m1", False),
        ("-m model=m1,m2", True),
        ("--multirun seed=1,2", True),
        ("sweep=optuna", True),
        ("sweep.n_trials=3 seed=1", True),
        ("launcher=ray", True),
        ("data.path=/x/sweep", False),
    ],
)
def test_several_runs_are_asked_for(words: str, several: bool):
    assert is_sweep(words.split()) is several


def test_what_is_varied_and_what_is_fixed():
    plan = read_plan(["-m", "model=m1,m2", "seed=range(0,2)", "training.epochs=3", "sweep.max_failures=2"])
    assert {one.key: one.choices for one in plan.space} == {"model": ("m1", "m2"), "seed": ("0", "1")}
    assert plan.fixed == ["training.epochs=3"]
    assert (plan.sweep.sampler, plan.sweep.max_failures, plan.launcher.name) == ("grid", 2, "local")
    assert plan.trial_arguments(["model=m2"]) == ["training.epochs=3", "model=m2"]
    assert plan.config.training.epochs == 3


@pytest.mark.parametrize("name", READY)
def test_every_ready_space_fits_the_configuration(name: str):
    extra = {
        "grid": ["seed=0,1"],
        "optuna": ["seed=0,1"],
        "backbone": ["model=backbone", "model.weights=none"],
        "melanoma10k_architecture": ["model=resnet_small"],
        "isic9_recipe": ["model=resnet_small"],
        "isic9_start": ["model=resnet_small"],
    }
    plan = read_plan([f"sweep={name}", *extra.get(name, [])])
    assert plan.space


@pytest.mark.parametrize("name", ["local", "ray", "slurm"])
def test_every_launcher_fits(name: str):
    assert read_plan([f"launcher={name}", "seed=0,1"]).launcher.name == name


def test_the_command_line_wins_over_the_space():
    fixed = read_plan(["sweep=reference", "optimizer.learning_rate=1e-3"])
    assert "optimizer.learning_rate" not in {one.key for one in fixed.space}
    varied = read_plan(["sweep=reference", "training.batch_size=8,9"])
    assert {one.key: one.choices for one in varied.space}["training.batch_size"] == ("8", "9")


def test_conditions_follow_the_command_line():
    key = "optimizer.weight_decay"
    fixed = {one.key: one for one in read_plan(["sweep=resnet_small", "optimizer=adamw"]).space}
    assert fixed[key].when == {}
    assert key not in {one.key for one in read_plan(["sweep=resnet_small", "optimizer=sgd"]).space}
    varied = [one.key for one in read_plan(["sweep=resnet_small", "optimizer=sgd,adamw"]).space]
    assert varied.index("optimizer") < varied.index(key)


def test_the_folds_alone_are_trials():
    assert read_plan(["split=kfold", "launcher.workers=2"]).space == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "Nothing is varied"),
        ("seed=1", "Nothing is varied"),
        ("model=m1,m99", "no model named 'm99'"),
        ("modle=m1,m2", "no key 'modle'"),
        ("seed=0,1 sweep.n_trials=0", "at least 1"),
        ("seed=0,1 sweep.sampler=tpe", "n_trials must be given"),
        (
            "seed=0,1 sweep.name=a sweep.resume=b",
            "Give sweep.name for a new sweep or sweep.resume",
        ),
        ("seed=0,1 sweep.metric=[a,a]", "a list of two"),
        ("seed=0,1 sweep=optuna sweep.metric=[a,b]", "nsga2"),
        ("seed=0,1 sweep.metric=[a,b] sweep.direction=maximize", "one for each metric"),
        ("seed=0,1 sweep.pruning_metric=validation/auc", "Did you mean 'val/auc'"),
        ("seed=0,1 sweep=optuna sweep.metric=[a,b] sweep.direction=[maximize,minimize]", "nsga2"),
        ("seed=0,1 sweep.direction=up", "maximize or minimize"),
        ("seed=0,1 sweep.metric=5", "name of a metric"),
        ("split=kfold sweep.n_trials=2", "trains all of them"),
        ("split=kfold split.fold=2 launcher.workers=2", "Nothing is varied"),
        ("seed=0,1 foo", "cannot be read"),
        ("split=kfold sweep=optuna", "trains all of them"),
        ("split=kfold sweep.pruner=median", "trains all of them"),
        ("seed=0,1 sweep=nothing", "no sweep named"),
        ("seed=0,1 launcher.workers=0", "at least 1"),
        ("seed=0,1 training.epochs=0", "at least 1"),
        ("seed=0,1 sweep.space={nosuch.key:[1,2]}", "no key 'nosuch.key'"),
    ],
)
def test_faults_are_told_before_anything_runs(words: str, said: str):
    with pytest.raises(ConfigError, match=said):
        read_plan(words.split())


def test_metrics_that_trials_log_are_known():
    known = logged_metrics(["a", "b", "c"], {"malignant": ["b"]}, folds=False)
    assert {"validation/auc", "test/malignant/partial_auc", "val/auc", "model/latency_ms", "train/loss"} <= known
    folds = logged_metrics(["a", "b"], {}, folds=True)
    assert "validation/auc_mean" in folds
    assert "val/auc" not in folds
    check_metrics(["validation/auc"], known)
    with pytest.raises(ConfigError, match="Did you mean validation/auc"):
        check_metrics(["validation/aucc"], known)


def test_known_metrics_are_those_of_the_evaluation():
    import numpy as np

    targets = np.array([0, 1, 2] * 9)
    probabilities = np.random.default_rng(3).dirichlet(np.ones(3), 27)
    measured = measure(Predictions(targets, probabilities, ["a", "b", "c"], {"q": ["b", "c"]}))
    known = logged_metrics(["a", "b", "c"], {"q": ["b", "c"]}, folds=False)
    assert {f"validation/{name}" for name in measured} <= known
