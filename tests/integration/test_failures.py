"""A run that goes wrong ends with the right status, exit code and one message, and keeps what was logged."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import COMMAND, run_melanoma
from tests.integration.conftest import SMALL, client, only_run


def test_nan_loss_fails_the_run(store: str):
    done = run_melanoma("train", *SMALL, "optimizer.learning_rate=1e30", f"tracking.uri={store}")
    assert done.returncode == 1
    assert "no longer a finite number" in done.stderr
    assert "Traceback" not in done.stderr
    run = only_run(store)
    assert run.info.status == "FAILED"
    assert "learning_rate" in run.data.tags["melanoma.error"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_kills_the_run_and_keeps_what_was_logged(store: str, number: int, code: int):
    process = subprocess.Popen(
        [str(COMMAND), "train", *SMALL, "training.epochs=100000", f"tracking.uri={store}"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    for line in process.stderr:
        if "epoch 2/" in line:
            break
    process.send_signal(number)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == code
    assert "Traceback" not in rest
    run = only_run(store)
    assert run.info.status == "KILLED"
    assert len(client(store).get_metric_history(run.info.run_id, "val/loss")) >= 2
    assert "logs/train.log" in {a.path for a in client(store).list_artifacts(run.info.run_id, "logs")}


def test_too_many_unreadable_images_stop_the_run(store: str):
    done = run_melanoma("train", *SMALL, "data.source.unreadable=20", f"tracking.uri={store}")
    assert done.returncode == 2
    assert "20 of 100 images cannot be read" in done.stderr
    assert only_run(store).info.status == "FAILED"


def test_a_wrong_path_leaves_no_run(store: str, tmp_path: Path):
    done = run_melanoma("train", "data=folder", f"data.path={tmp_path / 'nothing here'}", f"tracking.uri={store}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / "nothing here") in done.stderr
    assert not Path(store.removeprefix("sqlite:///")).exists()


def test_a_class_count_that_shows_only_in_the_data(store: str):
    done = run_melanoma(
        "train", *SMALL, "data.classes=[nevus,melanoma,dermatofibroma]", "model=binary150", f"tracking.uri={store}"
    )
    assert done.returncode == 2
    assert "for 2 classes" in done.stderr


def test_backbone_without_weights_offline_says_what_to_do(store: str):
    start = time.monotonic()
    done = run_melanoma(
        "train", *SMALL, "model=backbone", "model.family=MobileNetV3Small", "model.warmup_epochs=1",
        f"tracking.uri={store}", KERAS_HOME=str(Path(store.removeprefix("sqlite:///")).parent / "keras"),
        https_proxy="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9",
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "model.weights=FILE" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - start < 300


def test_unknown_experiment_state_is_explained(store: str):
    first = run_melanoma("train", *SMALL, "debug=one_batch", f"tracking.uri={store}")
    assert first.returncode == 0, first.stderr
    experiment = client(store).get_experiment_by_name("melanoma").experiment_id
    client(store).delete_experiment(experiment)
    done = run_melanoma("train", *SMALL, "debug=one_batch", f"tracking.uri={store}")
    assert done.returncode == 2
    assert "mlflow experiments restore" in done.stderr


@pytest.mark.parametrize("argument", ["+data.source.colour=red", "+model.depth=3", "model._target_=no.such.module"])
def test_what_a_target_does_not_take_is_one_message(store: str, argument: str):
    done = run_melanoma("train", *SMALL, argument, f"tracking.uri={store}")
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("melanoma: ")
    assert "Traceback" not in done.stderr
