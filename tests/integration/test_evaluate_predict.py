"""Evaluating and predicting with a saved model."""

import json
import os
import shutil
from hashlib import sha256
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_sample_images

from melanoma.data.synthetic import write_synthetic
from melanoma.tracking.records import RunRecord
from melanoma.workflows.evaluate import binary_tasks_of
from tests.commands import run_melanoma
from tests.integration.conftest import SMALL, Trained, all_runs, client, measured


@pytest.fixture(scope="module")
def other_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other") / "hospital ü"
    folder.mkdir()
    write_synthetic(folder, classes=["benign", "malignant"], images=20, size=64, seed=99)
    return folder


def test_the_runs_own_test_images_give_the_runs_own_numbers(trained: Trained):
    before = {run.info.run_id for run in all_runs(trained.uri)}
    done = run_melanoma(
        "evaluate", f"run={trained.run.info.run_id}", f"tracking.uri={trained.uri}", "evaluation.bootstrap=20"
    )
    assert done.returncode == 0, done.stderr
    (run,) = [run for run in all_runs(trained.uri) if run.info.run_id not in before]
    assert run.info.status == "FINISHED"
    assert run.data.tags["melanoma.evaluated_run"] == trained.run.info.run_id
    assert run.data.tags["melanoma.protocol"] == "clean"
    assert measured(run)["test/accuracy"] == pytest.approx(measured(trained.run)["test/accuracy"])
    assert measured(run)["data/seen_left_out"] == 110
    assert "figures/confusion_matrix.png" in {
        a.path for a in client(trained.uri).list_artifacts(run.info.run_id, "figures")
    }


def test_other_images_beside_the_runs_own(run_here, trained: Trained, other_images: Path):
    """The data names its classes in another order than the model."""
    done = run_here(
        "evaluate", f"model=runs:/{trained.run.info.run_id}/model", "data=folder", f"data.path={other_images}",
        "data.classes=[malignant,benign]", f"tracking.uri={trained.uri}", "tracking.experiment=external",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "test (n=20)" in done.stdout
    assert "internal test (n=50)" in done.stdout
    (run,) = all_runs(trained.uri, "external")
    metrics = measured(run)
    assert run.data.tags["melanoma.protocol"] == "clean"
    assert metrics["data/images/test"] == 20
    assert metrics["internal/accuracy"] == measured(trained.run)["test/accuracy"]
    assert "| internal test | 50 |" in run.data.tags["mlflow.note.content"]
    assert {"test/prediction_set/coverage", "test/operating_point/malignant/sensitivity"} <= set(metrics)
    mlflow.set_tracking_uri(trained.uri)
    table = pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/evaluation/predictions.csv"))
    assert (table.label == table.path.map(lambda path: Path(path).parent.name)).all()
    assert metrics["test/accuracy"] == pytest.approx((table.predicted == table.label).mean())
    more_likely = table["probability/malignant"] > table["probability/benign"]
    assert (table.predicted == more_likely.map({True: "malignant", False: "benign"})).all()
    card = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/model_card.md")
    assert "| metric | validation (34 images) | test (50 images) | other images (20 images) |" in card


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of two photographs that show no skin, filed under two classes."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for label, picture in zip(("benign", "malignant"), load_sample_images().images, strict=True):
        (folder / label).mkdir()
        for number in range(15):
            top, left = rng.integers(0, 227), rng.integers(0, 440)
            crop = Image.fromarray(picture[top : top + 200, left : left + 200])
            crop.save(folder / label / f"{number}.png")
    return folder


def test_images_unlike_the_training_images_are_flagged(run_here, trained: Trained, photographs: Path, tmp_path: Path):
    done = run_here(
        "evaluate", f"run={trained.run.info.run_id}", "data=folder", f"data.path={photographs}",
        f"tracking.uri={trained.uri}", "tracking.experiment=photographs",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = all_runs(trained.uri, "photographs")
    metrics = measured(run)
    told = f"{metrics['test/out_of_distribution/share']:.1%} ["
    assert metrics["test/out_of_distribution/share_ci_low"] > 0.5
    for text in (done.stderr, run.data.tags["mlflow.note.content"]):
        assert told in text
        assert "of the test images are unlike the training images, where 1.0% are expected" in " ".join(text.split())
    figures = {a.path for a in client(trained.uri).list_artifacts(run.info.run_id, "figures")}
    assert "figures/out_of_distribution.png" in figures
    card = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/model_card.md")
    assert f"flags {metrics['test/out_of_distribution/share']:.1%} of these images" in " ".join(card.split())
    (photograph,) = (photographs / "benign").glob("0.png")
    output = tmp_path / "found.csv"
    done = run_here(
        "predict", f"model={trained.run.info.run_id}", f"input={photograph}", f"output={output}",
        f"tracking.uri={trained.uri}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = pd.read_csv(output).to_dict("records")
    assert row["ood_score"] > 1
    assert row["out_of_distribution"] is True
    assert "unlike the training images: " in " ".join(done.stdout.replace("│", " ").split())
    assert "1 of 1 images are unlike the training images" in done.stderr


def test_recalibration_for_another_site(run_here, trained: Trained, tmp_path: Path):
    """The new model is saved with its decisions, and does not see again what it was fitted to."""
    (tmp_path / "site").mkdir()
    write_synthetic(tmp_path / "site", classes=["benign", "malignant"], images=120, size=64, seed=97)
    data = ["data=folder", f"data.path={tmp_path / 'site'}", f"tracking.uri={trained.uri}"]
    done = run_here(
        "evaluate", f"run={trained.run.info.run_id}", *data, "recalibrate=40", "tracking.experiment=recalibrated"
    )
    assert done.returncode == 0, done.stderr
    (run,) = all_runs(trained.uri, "recalibrated")
    metrics = measured(run)
    assert (metrics["data/images/validation"], metrics["data/images/test"]) == (40, 80)
    assert metrics["test/log_loss"] != metrics["test/log_loss_uncalibrated"]
    assert metrics["recalibration/intercept/benign"] == pytest.approx(-metrics["recalibration/intercept/malignant"])
    assert "Recalibrated on 40 images of this data, tested on the other 80" in run.data.tags["mlflow.note.content"]
    card = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/model_card.md")
    assert "recalibrated, with its operating points, prediction sets and abstention, on 40 further images" in card
    again = run_here("evaluate", f"run={run.info.run_id}", *data, "tracking.experiment=recalibrated again")
    assert again.returncode == 0, again.stderr
    (other,) = all_runs(trained.uri, "recalibrated again")
    assert measured(other)["data/seen_left_out"] == 40
    assert measured(other)["test/log_loss"] == pytest.approx(metrics["test/log_loss"])
    threshold = "operating_point/malignant/threshold"
    assert measured(other)[threshold] == metrics[threshold] != measured(trained.run)[threshold]
    own = run_here("evaluate", f"run={run.info.run_id}", "recalibrate=40", f"tracking.uri={trained.uri}")
    assert own.returncode == 2
    assert "must be named, as in data=folder" in own.stderr


def test_images_of_one_class_only_where_the_models_own_were_never_audited(
    run_here, trained: Trained, other_images: Path, tmp_path: Path
):
    shutil.copytree(other_images / "malignant", tmp_path / "one" / "malignant")
    done = run_here(
        "evaluate", f"run={trained.run.info.run_id}", "data=folder", f"data.path={tmp_path / 'one'}",
        f"tracking.uri={trained.uri}", "tracking.experiment=one class",
        MELANOMA_CACHE_DIR=str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = all_runs(trained.uri, "one class")
    assert run.data.tags["melanoma.protocol"] == "near_duplicates_ignored"
    assert "run `melanoma audit` of its data set here" in done.stderr
    assert run.data.tags["melanoma.remarks"].startswith("No test image is of benign")
    assert "test/sensitivity/malignant" in measured(run)
    assert not {"test/auc", "test/specificity/malignant"} & set(measured(run))


def test_a_class_that_the_model_does_not_know(run_here, trained: Trained, other_images: Path, tmp_path: Path):
    folder = tmp_path / "more"
    shutil.copytree(other_images, folder)
    (folder / "benign").rename(folder / "harmless")
    done = run_here(
        "evaluate", f"run={trained.run.info.run_id}", "data=folder", f"data.path={folder}",
        f"tracking.uri={trained.uri}",
    )  # fmt: skip
    assert done.returncode == 2
    assert "does not have the classes 'harmless'" in done.stderr


@pytest.fixture(scope="module")
def encoded_anew(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All images of the run's data set as smaller JPEG files, beside as many others."""
    mlflow.set_tracking_uri(trained.uri)
    split = pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{trained.run.info.run_id}/data/split.csv"))
    one = split[split.parent.isna()].iloc[0]
    roots = [path.parent for path in Path(os.environ["MELANOMA_CACHE_DIR"], "synthetic").rglob("benign")]
    root = next(
        root
        for root in roots
        if (root / one.path).is_file() and sha256((root / one.path).read_bytes()).hexdigest() == one.sha256
    )
    folder = tmp_path_factory.mktemp("anew") / "set"
    folder.mkdir()
    write_synthetic(folder, classes=["benign", "malignant"], images=80, size=64, seed=98)
    for number, row in split[split.parent.isna() & split.part.isin(["train", "validation", "test"])].iterrows():
        with Image.open(root / row.path) as image:
            image.convert("RGB").resize((44, 44)).save(folder / row.label / f"again_{number}.jpg", quality=90)
    return folder


def test_copies_of_images_that_the_model_has_seen_are_left_out(run_here, trained: Trained, encoded_anew: Path):
    done = run_here(
        "evaluate", f"model=runs:/{trained.run.info.run_id}/model", "data=folder", f"data.path={encoded_anew}",
        f"tracking.uri={trained.uri}", "tracking.experiment=copies",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = all_runs(trained.uri, "copies")
    assert run.data.tags["melanoma.protocol"] == "clean"
    assert measured(run)["data/seen_left_out"] == pytest.approx(110, abs=4)  # all of training and validation


def test_starting_from_a_model_that_saw_copies_of_the_test_images(run_here, trained: Trained, encoded_anew: Path):
    arguments = [word for word in SMALL if not word.startswith("data.source")]
    done = run_here(
        "train", *arguments, "data=folder", f"data.path={encoded_anew}", "training.epochs=1",
        f"model.weights=runs:/{trained.run.info.run_id}/model", f"tracking.uri={trained.uri}",
        "tracking.experiment=on copies",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = all_runs(trained.uri, "on copies")
    assert run.data.tags["melanoma.protocol"] == "pretrained_on_test"
    assert 5 < measured(run)["data/test_seen_in_pretraining"] < 25
    done = run_here("evaluate", f"run={run.info.run_id}", f"tracking.uri={trained.uri}", "tracking.experiment=own")
    assert done.returncode == 0, done.stderr
    (again,) = all_runs(trained.uri, "own")
    assert again.data.tags["melanoma.protocol"] == "pretrained_on_test"


def test_predict_a_folder(trained: Trained, other_images: Path, tmp_path: Path):
    (other_images / "benign" / "broken.jpg").write_bytes(b"not an image")
    output = tmp_path / "out" / "probabilities.csv"
    done = run_melanoma(
        "predict", f"model={trained.run.info.run_id}", f"input={other_images}", f"output={output}",
        f"tracking.uri={trained.uri}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(output)
    assert len(table) == 21
    good = table[table.error.isna()]
    sums = good["probability/benign"] + good["probability/malignant"]
    assert sums.to_numpy() == pytest.approx(1, abs=1e-5)
    assert set(good.predicted) <= {"benign", "malignant"}
    assert (good.out_of_distribution == (good.ood_score > 1)).all()
    assert table.error.dropna().tolist() == ["not an image"]
    assert "1 of 21 images could not be read" in done.stderr


def test_predictions_that_cannot_be_written_are_refused_at_once(trained: Trained, other_images: Path):
    done = run_melanoma(
        "predict", f"model={trained.run.info.run_id}", f"input={other_images}", "output=/proc/nowhere/out.csv",
        f"tracking.uri={trained.uri}",
    )  # fmt: skip
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Predicting" not in done.stderr


def test_predict_refuses_a_model_that_is_not_there(run_here, trained: Trained, other_images: Path):
    image = next((other_images / "malignant").glob("*.jpg"))
    done = run_here("predict", "model=models:/no-such@champion", f"input={image}", f"tracking.uri={trained.uri}")
    assert done.returncode == 2
    assert "There is no such model" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_stored_run_names_is_not_executed(run_here, trained: Trained, tmp_path: Path):
    """A run's config is read from a store that others can write to."""
    store = client(trained.uri)
    run_id, marker = trained.run.info.run_id, tmp_path / "executed"
    path, hashes = "config/resolved.yaml", json.loads(trained.run.data.tags["melanoma.sha256"])
    text = trained.download("config/resolved.yaml").read_text()
    hostile = yaml.safe_load(text)
    hostile["data"]["source"]["noise"] = {"_target_": "os.system", "command": f"touch {marker}"}
    try:
        changed = yaml.safe_dump(hostile)
        store.log_text(run_id, changed, "config/resolved.yaml")
        refused = run_here("evaluate", f"run={run_id}", f"tracking.uri={trained.uri}")
        store.set_tag(run_id, "melanoma.sha256", json.dumps(hashes | {path: sha256(changed.encode()).hexdigest()}))
        done = run_here("evaluate", f"run={run_id}", f"tracking.uri={trained.uri}")
    finally:
        store.log_text(run_id, text, "config/resolved.yaml")
        store.set_tag(run_id, "melanoma.sha256", json.dumps(hashes))
    assert refused.returncode == 2
    assert "config/resolved.yaml of the run was changed after it was logged" in refused.stderr
    assert done.returncode == 2
    assert "os.system" in done.stderr
    assert not marker.exists()


def test_starting_from_a_model_that_saw_the_test_images_is_written_on_the_run(run_here, trained: Trained):
    done = run_here(
        "train", *SMALL, "seed=5", f"model.weights=runs:/{trained.run.info.run_id}/model", "debug=none",
        "training.epochs=1", f"tracking.uri={trained.uri}", "tracking.experiment=continued",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "head kept" in done.stderr
    (run,) = all_runs(trained.uri, "continued")
    assert run.data.tags["melanoma.protocol"] == "pretrained_on_test"
    assert run.data.tags["melanoma.weights_run"] == trained.run.info.run_id


def test_binary_tasks_are_those_that_the_model_was_tuned_for(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    mlflow.set_tracking_uri(store)
    experiment = client(store).create_experiment("tasks", artifact_location=str(tmp_path / "artifacts"))
    of_data = {"malignant": ["mel"], "pigmented": ["mel", "nv"]}
    for key in ("binary_tasks", "views"):  # the key of runs of old versions
        run = client(store).create_run(experiment).info.run_id
        config = {"data": {key: {"malignant": ["mel", "scc"], "melanoma": ["mel"]}}}
        client(store).log_text(run, yaml.safe_dump(config), "config/resolved.yaml")
        found = binary_tasks_of(RunRecord.read(run), of_data)
        assert found == {"malignant": ["mel", "scc"], "pigmented": ["mel", "nv"], "melanoma": ["mel"]}
    assert "Binary task malignant is that of the model: mel, scc; the data defines it as mel" in caplog.text
    assert binary_tasks_of(None, of_data) == of_data
    bare = client(store).create_run(experiment).info.run_id
    assert binary_tasks_of(RunRecord.read(bare), of_data) == of_data
