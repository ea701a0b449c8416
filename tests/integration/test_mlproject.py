"""`mlflow run .`: the run that MLflow made is the run that is used."""

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import yaml

from melanoma.cli import COMMANDS
from melanoma.config.schema import TrackingConfig
from melanoma.errors import ConfigError
from melanoma.tracking.run import tracked_run
from tests.integration.conftest import SMALL, client, measured

ROOT = Path(__file__).resolve().parents[2]


def mlflow_run(uri: str, *arguments: str, manager: str = "local") -> subprocess.CompletedProcess:
    binaries = Path(sys.executable).parent
    return subprocess.run(
        [str(binaries / "mlflow"), "run", str(ROOT), "--env-manager", manager, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri, "PATH": f"{binaries}:{os.environ['PATH']}"},
        timeout=1500,
        check=False,
    )


def test_parameters_reach_hydra_and_the_run_is_mlflows_own(store: str):
    small = [word for word in SMALL if not word.startswith(("model", "training.epochs"))]
    done = mlflow_run(
        store, "--experiment-name", "project", "-P", "model=m3", "-P", "training.epochs=1", "-P", "balance=none",
        "-P", f"overrides={' '.join(small)} data.source.seed=5 tracking.run_name='a name'",
        "-P", "data.image_size=64",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert client(store).get_experiment_by_name("melanoma") is None
    assert "for tracking.experiment=melanoma add --experiment-name melanoma" in done.stderr
    (run,) = _runs(store, "project")
    assert (run.info.status, run.info.run_name) == ("FINISHED", "a name")
    assert run.data.params["model.name"] == "m3"
    assert run.data.params["augmentation.name"] == "flip_rotate"
    assert run.data.params["balance.name"] == "none"
    assert run.data.params["data.source.seed"] == "5"
    assert run.data.params["training.epochs"] == "1"
    assert run.data.tags["mlflow.project.entryPoint"] == "main"
    assert "test/accuracy" in measured(run)


def test_every_entry_point_is_a_command():
    points = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]
    assert {"main", "sweep", "promote", "predict"} <= set(points) <= {"main", *COMMANDS}
    for name, point in points.items():
        assert point == {
            "parameters": {"overrides": {"type": "string", "default": ""}},
            "command": f"python -m melanoma {'train' if name == 'main' else name} --overrides {{overrides}}",
        }


def test_the_audit_is_an_entry_point(store: str, tmp_path: Path):
    done = mlflow_run(store, "-e", "audit", "-P", "data.source.images=40", "-P", f"audit.output={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "audit.json").is_file()


def test_a_wrong_parameter_fails_the_run_with_the_message(store: str):
    done = mlflow_run(store, "-P", "training.epoch=1")
    assert done.returncode != 0
    assert "Did you mean 'training.epochs'?" in done.stderr
    (run,) = _runs(store, "Default")
    assert run.info.status == "FAILED"


def test_a_run_that_mlflow_made_stays_in_its_store(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    with (
        pytest.raises(ConfigError, match=r"(?s)MLFLOW_TRACKING_URI.*Received: tracking\.uri=.*other\.db"),
        tracked_run(other, TrackingConfig(experiment="any", system_metrics=False), tags={}, name="any"),
    ):
        pass
    assert not (tmp_path / "other.db").exists()


def test_a_command_that_makes_no_run_obeys_tracking_uri(store: str, tmp_path: Path):
    done = mlflow_run(store, "-e", "promote", "-P", f"tracking.uri=sqlite:///{tmp_path / 'other.db'}")
    assert done.returncode != 0
    assert "There is no tracking store yet; train first, or name another" in done.stderr
    assert f"{tmp_path / 'other.db'}" in done.stderr


def test_a_parameter_called_run_is_the_key(store: str):
    done = mlflow_run(store, "-e", "evaluate", "-P", f"run={'0' * 32}")
    assert done.returncode != 0
    assert f"{'0' * 32}/model" in done.stderr


@pytest.mark.slow
def test_uv_makes_the_environment(store: str):
    """Installs all of conda.yaml, from the network or uv's cache."""
    done = mlflow_run(store, "-P", f"overrides={' '.join(SMALL)}", manager="uv")
    assert done.returncode == 0, done.stderr
    (run,) = _runs(store, "Default")
    assert run.info.status == "FINISHED"


def _runs(uri: str, experiment: str) -> list[mlflow.entities.Run]:
    store = client(uri)
    return store.search_runs([store.get_experiment_by_name(experiment).experiment_id])
