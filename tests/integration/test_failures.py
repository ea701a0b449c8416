"""A run that goes wrong ends with the right status, exit code and one message, and keeps what was logged."""

import os
import resource
import signal
from pathlib import Path

import psutil
import pytest
from mlflow.entities import LoggedModelStatus
from PIL import Image

from melanoma.config.schema import TrackingConfig
from melanoma.data.synthetic import write_synthetic
from melanoma.errors import TrackingError
from melanoma.tracking.model_store import log_model_files
from melanoma.tracking.records import RunRecord
from melanoma.tracking.run import tracked_run
from melanoma.tracking.store import prepare_experiment
from tests.commands import Started, forked, run_melanoma
from tests.integration.conftest import SMALL, all_runs, client, measured, mlflow_server, only_run


def test_nan_loss_fails_the_run(store: str, run_here):
    done = run_here("train", *SMALL, "optimizer.learning_rate=1e30", f"tracking.uri={store}")
    assert done.returncode == 1
    assert "no longer a finite number" in done.stderr
    assert "Traceback" not in done.stderr
    run = only_run(store)
    assert run.info.status == "FAILED"
    assert "learning_rate" in run.data.tags["melanoma.error"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_kills_the_run_and_keeps_what_was_logged(store: str, number: int, code: int):
    training = Started("train", *SMALL, "training.epochs=100000", f"tracking.uri={store}")
    training.until(lambda: "epoch 2/" in training.err)
    training.send(number)
    assert training.wait() == code
    assert "Traceback" not in training.err
    run = only_run(store)
    assert run.info.status == "KILLED"
    assert len(client(store).get_metric_history(run.info.run_id, "val/loss")) >= 2
    assert "logs/train.log" in {a.path for a in client(store).list_artifacts(run.info.run_id, "logs")}


def test_too_many_unreadable_images_stop_the_run(store: str, run_here):
    done = run_here("train", *SMALL, "data.source.unreadable=20", f"tracking.uri={store}")
    assert done.returncode == 2
    assert "20 of 100 images cannot be read" in done.stderr
    assert only_run(store).info.status == "FAILED"


def test_a_wrong_path_leaves_no_run(new_store: str, tmp_path: Path):
    done = run_melanoma("train", "data=folder", f"data.path={tmp_path / 'nothing here'}", f"tracking.uri={new_store}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / "nothing here") in done.stderr
    assert not Path(new_store.removeprefix("sqlite:///")).exists()


def test_a_class_count_that_shows_only_in_the_data(store: str, run_here):
    done = run_here(
        "train", *SMALL, "data.classes=[nevus,melanoma,dermatofibroma]", "model=binary150", f"tracking.uri={store}"
    )
    assert done.returncode == 2
    assert "for 2 classes" in done.stderr


def test_backbone_without_weights_offline_says_what_to_do(store: str):
    done = run_melanoma(
        "train", *SMALL, "model=backbone", "model.family=MobileNetV3Small", "model.warmup_epochs=1",
        f"tracking.uri={store}", KERAS_HOME=str(Path(store.removeprefix("sqlite:///")).parent / "keras"),
        https_proxy="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9",
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "model.weights=FILE" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_experiment_state_is_explained(store: str, run_here):
    client(store).delete_experiment(client(store).create_experiment("melanoma"))
    done = run_here("train", *SMALL, "debug=one_batch", f"tracking.uri={store}")
    assert done.returncode == 2
    assert "mlflow experiments restore" in done.stderr


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("+data.source.colour=red", "unexpected keyword argument 'colour'"),
        ("+model.depth=3", "unexpected keyword argument 'depth'"),
        ("model._target_=no.such.module", "no.such.module"),
    ],
)
def test_what_a_target_does_not_take_is_one_message(store: str, run_here, argument: str, message: str):
    done = run_here("train", *SMALL, argument, f"tracking.uri={store}")
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("melanoma: ")
    assert message in last.partition(" Received: ")[0]
    assert "Traceback" not in done.stderr


def test_a_blow_up_in_the_last_step_fails_the_run_too(store: str, run_here):
    done = run_here("train", *SMALL, "debug=one_batch", "optimizer.learning_rate=1e30", f"tracking.uri={store}")
    assert done.returncode == 1
    assert "no longer finite" in done.stderr
    assert only_run(store).info.status == "FAILED"


def test_two_trainings_at_once_on_a_new_store_and_a_cold_cache(new_store: str, tmp_path: Path):
    words = ["train", *SMALL, "debug=one_batch", f"tracking.uri={new_store}"]
    both = [Started(*words, MELANOMA_CACHE_DIR=str(tmp_path / "cache")) for _ in range(2)]
    for training in both:
        assert training.wait(300) == 0, training.err
    assert [run.info.status for run in all_runs(new_store)] == ["FINISHED", "FINISHED"]


def test_a_classifier_is_not_trained_on_one_class(store: str, tmp_path: Path):
    (tmp_path / "set" / "melanoma").mkdir(parents=True)
    (tmp_path / "set" / "melanoma" / "a.jpg").write_bytes(b"never read")
    done = run_melanoma("train", "data=folder", f"data.path={tmp_path / 'set'}", f"tracking.uri={store}")
    assert done.returncode == 2
    assert "at least two classes" in done.stderr
    assert "Received: melanoma" in done.stderr


def test_a_stale_run_id_of_mlflow_run_is_one_message(store: str, run_here):
    done = run_here("train", *SMALL, MLFLOW_RUN_ID="0" * 32, MLFLOW_TRACKING_URI=store)
    assert done.returncode == 2, done.stderr
    assert "The MLflow run cannot be opened" in done.stderr
    assert "Traceback" not in done.stderr


def test_class_names_that_mlflow_rich_and_matplotlib_read_otherwise(store: str, tmp_path: Path):
    names = ["a+b", "a(b", "[old] $x_1$"]
    for number, name in enumerate(names):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            colour = (40 + 60 * number, 20 * i, 90)
            Image.new("RGB", (48, 48), colour).save(tmp_path / "images" / name / f"{i}.png")
    done = run_melanoma(
        "train", "data=folder", f"data.path={tmp_path / 'images'}", "data.image_size=32", "model=m1", "debug=one_batch",
        "evaluation.bootstrap=5", f"tracking.uri={store}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "sensitivity/[old] $x_1$" in done.stdout
    sensitivities = [
        key for key in measured(only_run(store)) if key.startswith("test/sensitivity/") and "_ci_" not in key
    ]
    assert len(sensitivities) == 3


def test_an_empty_store_file_is_told(new_store: str, tmp_path: Path, run_here):
    file = Path(new_store.removeprefix("sqlite:///"))
    file.parent.mkdir(parents=True)
    file.touch()
    done = run_here("registry", f"tracking.uri={new_store}")
    assert done.returncode == 2
    assert "The tracking store is an empty file" in done.stderr
    done = run_here("train", *SMALL, "training.epochs=1", f"tracking.uri={new_store}")
    assert done.returncode == 0, done.stderr
    assert "was an empty file and is made anew" in " ".join(done.stderr.split())


def _die_before_the_store_is_whole(uri: str) -> None:
    Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    prepare_experiment(uri, "melanoma")


def test_a_process_that_is_killed_while_it_makes_the_store_leaves_none(new_store: str):
    process = forked(_die_before_the_store_is_whole, new_store)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    path = Path(new_store.removeprefix("sqlite:///"))
    assert not path.exists()
    assert prepare_experiment(new_store, "melanoma") is not None
    assert path.is_file()
    assert list(path.parent.glob(".mlflow.db.new*")) == []


@pytest.mark.slow
def test_sigterm_is_obeyed_without_the_tracking_server(store: str, tmp_path: Path):
    """Each request to a server that is gone would be repeated for minutes."""
    with mlflow_server(store, tmp_path / "log") as address:
        training = Started("train", *SMALL, "training.epochs=100000", f"tracking.uri={address}")
        training.until(lambda: "epoch 2/" in training.err)
        port = int(address.rpartition(":")[2])
        listening = [one for one in psutil.net_connections() if one.status == "LISTEN" and one.laddr.port == port]
        for pid in {one.pid for one in listening}:
            os.kill(pid, signal.SIGKILL)
    training.send(signal.SIGTERM)
    assert training.wait(60) == 143, training.err
    run = only_run(store)
    assert f"To go on with this run: melanoma train resume={run.info.run_id} tracking.uri={address}" in training.err
    assert run.info.status == "RUNNING"


def test_a_full_disk_of_the_runs_files_is_one_message(store: str):
    with (
        pytest.raises(TrackingError, match=r"can no longer be written .*No space left on device"),
        tracked_run(store, TrackingConfig(system_metrics=False), tags={}, name="full"),
        open("/dev/full", "w") as file,  # noqa: PTH123
    ):
        file.write("x" * 100_000)
    assert only_run(store).info.status == "FAILED"


def test_a_full_disk_of_the_store_is_one_message(store: str):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with (
            pytest.raises(TrackingError, match=r"can no longer be written .*OperationalError"),
            tracked_run(store, TrackingConfig(system_metrics=False), tags={}, name="full") as run,
        ):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
            run.log_metrics({"a": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert only_run(store).info.status == "RUNNING"  # its end could not be written; `melanoma runs clean` ends it


def test_a_model_whose_saving_is_interrupted_is_not_left_pending(store: str):
    def interrupted(path: str, **_: object) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / "half").write_text("written")
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        tracked_run(store, TrackingConfig(system_metrics=False), tags={}, name="interrupted"),
    ):
        log_model_files("model", interrupted)
    run = only_run(store)
    assert run.info.status == "KILLED"
    [model] = client(store).search_logged_models([run.info.experiment_id])
    assert model.status == LoggedModelStatus.FAILED


def test_a_class_that_looks_like_a_formula_is_none_in_the_tables(store: str, tmp_path: Path, run_here):
    folder = tmp_path / "set"
    folder.mkdir()
    write_synthetic(folder, classes=["nevus", "=cmd|'C'!A0"], images=60, size=32, seed=0)
    done = run_here(
        "train", *(word for word in SMALL if not word.startswith("data.source")), "data=folder",
        f"data.path={folder}", "data.positive=nevus", "training.epochs=1", f"tracking.uri={store}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = RunRecord.read(only_run(store).info.run_id)
    for path in ("evaluation/predictions.csv", "data/split.csv"):
        assert not any(cell.startswith("=") for line in run.text(path).splitlines() for cell in line.split(","))
    assert set(run.predictions().label) == {"nevus", "=cmd|'C'!A0"}
    assert set(run.split.label) == {"nevus", "=cmd|'C'!A0"}
