"""Sweeps, as a user starts them: real processes, a real store."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from tests.commands import Started, run_melanoma
from tests.integration.conftest import all_runs, client, copied_store, measured, trained_here

TINY = (
    "data.source.images=40", "data.source.size=32", "data.image_size=32", "model=m1", "training.epochs=1",
    "training.batch_size=16", "evaluation.bootstrap=0", "tracking.system_metrics=false", "tracking.figures=false",
)  # fmt: skip


def family(uri: str) -> tuple[mlflow.entities.Run, list[mlflow.entities.Run]]:
    """The sweep's run and those of its trials, by trial number."""
    runs = all_runs(uri)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return parent, sorted(trials, key=lambda run: int(run.data.tags["melanoma.trial"]))


def under_way(*arguments: str) -> Started:
    """A sweep whose first trial has started."""
    sweep = Started(*arguments)
    sweep.until(lambda: "Trial 0 starts" in sweep.err)
    return sweep


def artifact(uri: str, run: mlflow.entities.Run, path: str) -> str:
    mlflow.set_tracking_uri(uri)
    return mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/{path}")


@pytest.fixture(scope="module")
def mixed(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, subprocess.CompletedProcess]:
    """A grid of two at once, one of whose trials blows up."""
    uri = copied_store(empty_store, tmp_path_factory.mktemp("sweep"))
    done = run_melanoma(
        "train", "-m", *TINY, "optimizer.learning_rate=1e-3,1e30,1e-4", "sweep.name=mixed", "launcher.workers=2",
        f"tracking.uri={uri}",
    )  # fmt: skip
    return uri, done


def test_a_failed_trial_does_not_end_the_sweep(mixed):
    uri, done = mixed
    assert done.returncode == 4, done.stderr
    assert "1 of 3 trials failed" in done.stderr
    assert "Traceback" not in done.stderr
    parent, trials = family(uri)
    assert parent.info.status == "FINISHED"
    assert [run.info.status for run in trials] == ["FINISHED", "FAILED", "FINISHED"]
    assert "no longer a finite number" in trials[1].data.tags["melanoma.error"]
    assert "no longer a finite number" in artifact(uri, trials[1], "error.txt")


def test_trials_are_named_by_what_was_varied(mixed):
    uri, _ = mixed
    _, trials = family(uri)
    assert [run.info.run_name for run in trials] == [
        f"optimizer.learning_rate={value}" for value in ("0.001", "1e+30", "0.0001")
    ]
    assert [run.data.params["optimizer.learning_rate"] for run in trials] == ["0.001", "1e+30", "0.0001"]


def test_the_parent_has_leaderboard_figures_and_the_best(mixed):
    uri, done = mixed
    parent, trials = family(uri)
    table = pd.read_csv(
        Path(mlflow.artifacts.download_artifacts(f"runs:/{parent.info.run_id}/sweep/leaderboard.csv", tracking_uri=uri))
    )
    assert table.state.tolist() == ["complete", "complete", "fail"]
    metric = "validation/auc"
    assert table[metric].dropna().is_monotonic_decreasing
    best = {run.info.run_id: run for run in trials}[table.run[0]]
    assert measured(best)[metric] == pytest.approx(table[metric][0])
    assert [run.info.run_id for run in trials if "melanoma.best" in run.data.tags] == [best.info.run_id]
    assert parent.data.tags["melanoma.best_run"] == best.info.run_id
    assert parent.data.tags["melanoma.sweep"] == "mixed"
    assert f"melanoma train {' '.join(TINY)} tracking.uri={uri} optimizer.learning_rate=" in done.stdout
    assert f" --html report.html --tracking-uri {uri}" in done.stdout
    figures = {item.path for item in client(uri).list_artifacts(parent.info.run_id, "figures")}
    assert "figures/optimization_history.png" in figures
    assert measured(parent)["sweep/failed"] == 1


def test_a_finished_sweep_is_not_run_again_and_another_one_is_refused(mixed):
    uri, _ = mixed
    arguments = ["sweep", *TINY, "optimizer.learning_rate=1e-3,1e30,1e-4", f"tracking.uri={uri}"]
    again = run_melanoma(*arguments, "sweep.resume=mixed")
    assert again.returncode == 4
    assert "starts" not in again.stderr
    assert len(family(uri)[1]) == 3
    taken = run_melanoma(*arguments, "sweep.name=mixed")
    assert taken.returncode == 2
    assert "sweep.resume=mixed" in taken.stderr
    other = run_melanoma(
        "sweep", *TINY, "optimizer.learning_rate=1e-3,1e-5", f"tracking.uri={uri}", "sweep.resume=mixed"
    )
    assert other.returncode == 2
    assert '"1e-05"' in other.stderr
    data = run_melanoma(*arguments, "data.source.seed=9", "sweep.resume=mixed")
    assert data.returncode == 2
    assert "data: " in data.stderr


def test_a_killed_sweep_takes_its_trials_along_and_is_resumed(store: str):
    arguments = ["sweep", *TINY, "seed=0,1", f"tracking.uri={store}"]
    process = under_way(*arguments, "sweep.name=killed")
    process.until(lambda: len(all_runs(store)) == 2)  # that of the sweep and of its first trial
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = run_melanoma(*arguments, "sweep.resume=killed")
    assert done.returncode == 0, done.stderr
    assert "another one goes on with it" in done.stderr
    _, trials = family(store)
    assert [run.data.tags["melanoma.overrides"] for run in trials] == ["seed=1", "seed=0"]  # it is trial 2 now
    assert [run.info.status for run in trials] == ["FINISHED", "FINISHED"]


@pytest.mark.slow
def test_a_trial_that_is_preempted_goes_on_from_its_checkpoint(store: str):
    process = under_way("sweep", *TINY, "seed=0,1", "training.epochs=15", f"tracking.uri={store}")
    process.until(lambda: any("val/auc" in run.data.metrics for run in all_runs(store)))
    [first] = [run for run in all_runs(store) if "val/auc" in run.data.metrics]
    os.kill(int(first.data.tags["melanoma.owner"].split(":")[1]), signal.SIGTERM)
    assert process.wait(300) == 0, process.err
    assert re.search(r"Trial 0 was ended from outside; another one goes on with it after \d+ epochs", process.err)
    assert "3 of 2" not in process.err
    _, trials = family(store)
    assert [run.data.tags["melanoma.overrides"] for run in trials] == ["seed=1", "seed=0"]  # it is trial 2 now
    assert [run.info.status for run in trials] == ["FINISHED", "FINISHED"]
    assert "melanoma.resumed" in trials[1].data.tags
    steps = [one.step for one in client(store).get_metric_history(trials[1].info.run_id, "val/auc")]
    assert steps == list(range(15))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("in_training", [False, True], ids=["before the trial has opened its run", "in training"])
def test_ctrl_c_ends_the_trials_too(tmp_path: Path, store: str, in_training: bool):
    process = under_way("sweep", *TINY, "seed=0,1", f"tracking.uri={store}", "training.epochs=500")
    if in_training:
        process.until(lambda: any("val/loss" in run.data.metrics for run in all_runs(store)))
    process.send(signal.SIGINT)
    assert process.wait(60) == 130
    parent, trials = family(store)
    assert (parent.info.status, [run.info.status for run in trials]) == ("KILLED", ["KILLED"])
    left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _read(p)]
    assert not left


def test_hopeless_trials_are_pruned_and_the_rest_is_in_the_study(store: str):
    """The first trials are good; one of far too high a learning rate is not."""
    done = run_melanoma(
        "sweep", *TINY, "training.epochs=3", "optimizer.learning_rate=1e-3,5e-4,0.3",
        "sweep.pruner=median", "sweep.startup_trials=2", "sweep.pruning_metric=val/loss",
        f"tracking.uri={store}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    _, trials = family(store)
    assert [run.info.status for run in trials] == ["FINISHED", "FINISHED", "KILLED"], done.stderr
    assert ["melanoma.pruned" in run.data.tags for run in trials] == [False, False, True]
    assert "0 failed" in done.stderr


def test_fail_fast_ends_the_sweep(store: str):
    done = run_melanoma(
        "sweep", *TINY, "optimizer.learning_rate=1e30,1e-3", "sweep.fail_fast=true", f"tracking.uri={store}"
    )
    assert done.returncode == 4
    assert "was ended after 1 failed trials" in done.stderr
    parent, trials = family(store)
    assert (parent.info.status, len(trials)) == ("FAILED", 1)


@pytest.mark.slow
def test_folds_inside_a_sweep_are_ranked_by_their_mean(store: str):
    done = run_melanoma(
        "sweep", *TINY, "split=kfold", "split.folds=2", "training.label_smoothing=0.0,0.1", f"tracking.uri={store}",
        "sweep.max_failures=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "validation/auc_mean" in done.stdout
    runs = all_runs(store)
    assert len(runs) == 1 + 2 + 4


@pytest.mark.slow
def test_folds_run_at_once_and_are_pooled_as_one_after_the_other(tmp_path: Path):
    arguments = [*TINY, "split=kfold", "split.folds=2"]
    stores = {name: f"sqlite:///{tmp_path / name / 'mlflow.db'}" for name in ("at once", "in turn")}
    done = run_melanoma("sweep", *arguments, "launcher.workers=2", f"tracking.uri={stores['at once']}")
    assert done.returncode == 0, done.stderr
    trained_here([*arguments, f"tracking.uri={stores['in turn']}"], tmp_path)
    pooled = []
    for uri in stores.values():
        (parent,) = [run for run in all_runs(uri) if "mlflow.parentRunId" not in run.data.tags]
        pooled.append({k: v for k, v in measured(parent).items() if k.startswith(("test/", "folds"))})
        assert len(all_runs(uri)) == 3
    assert pooled[0] == pytest.approx(pooled[1])


def test_the_run_of_mlflow_run_is_the_parent_and_a_test_metric_is_written_on_all(tmp_path: Path, store: str):
    found = client(store)
    experiment = found.create_experiment("made by mlflow", artifact_location=(tmp_path / "artifacts").as_uri())
    run = found.create_run(experiment)
    done = run_melanoma(
        "sweep", *TINY, "--seed", "0,1", "--sweep.metric", "test/balanced_accuracy",
        MLFLOW_RUN_ID=run.info.run_id, MLFLOW_EXPERIMENT_ID=experiment, MLFLOW_TRACKING_URI=store,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runs = found.search_runs([experiment])
    children = [one for one in runs if one.data.tags.get("mlflow.parentRunId") == run.info.run_id]
    assert len(runs) == 3
    assert len(children) == 2
    assert found.get_run(run.info.run_id).info.status == "FINISHED"
    assert "training.epochs" not in found.get_run(run.info.run_id).data.params
    assert [one.data.tags["melanoma.protocol"] for one in runs] == ["selected_on_test"] * 3
    assert "MELANOMA_SHORTCUTS=selected_on_test melanoma train" in done.stdout


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
