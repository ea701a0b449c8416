"""The studies of pretrained networks, with weights made here: from a file, and on from the registry."""

from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest

from melanoma.config.diagnose import compose_config
from melanoma.config.launch import register_resolvers
from melanoma.data.synthetic import write_synthetic
from melanoma.models.build import load_model_file
from melanoma.models.features import network_of
from tests.commands import run_melanoma
from tests.integration.conftest import copied_store, measured, only_run, trained_here

SHORT = (
    "model.family=MobileNet", "data.image_size=32", "training.epochs=2", "model.warmup_epochs=1",
    "evaluation.bootstrap=0", "tracking.system_metrics=false", "tracking.figures=false",
)  # fmt: skip


def drawn(folder: Path, classes: list[str], images: int) -> Path:
    folder.mkdir()
    write_synthetic(folder, classes=classes, images=images, size=48, seed=len(classes))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `keras.applications.MobileNet(include_top=False).save_weights(...)` gives, but for ImageNet."""
    keras.utils.set_random_seed(7)
    network = keras.applications.MobileNet(input_shape=(32, 32, 3), include_top=False, weights=None)
    path = tmp_path_factory.mktemp("weights") / "MobileNet.weights.h5"
    network.save_weights(path)
    return path


@pytest.fixture(scope="module")
def tuned(weights: Path, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The address of a store, and the run of a network that began from the file."""
    folder = tmp_path_factory.mktemp("tuned")
    uri = copied_store(empty_store, folder)
    words = [
        "experiment=melanoma10k_backbone", *SHORT, f"model.weights={weights}", f"tracking.uri={uri}",
        f"data.path={drawn(folder / 'two', ['benign', 'malignant'], 60)}",
    ]  # fmt: skip
    run_id = trained_here(words, folder)
    assert f"weights from {weights}" in (folder / "train.log").read_text()
    return uri, run_id


def stem(model: keras.Model) -> np.ndarray:
    backbone = network_of(model).get_layer("backbone")
    return np.array(next(layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)).kernel)


def test_a_study_begins_from_a_file(weights: Path, tuned: tuple[str, str]):
    uri, run_id = tuned
    run = mlflow.MlflowClient(uri).get_run(run_id)
    assert run.data.tags["melanoma.protocol"] == "pretraining_unknown"
    assert measured(run)["fit/epochs"] == 2
    mlflow.set_tracking_uri(uri)
    [file] = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/model")).rglob("model.keras")
    given = keras.applications.MobileNet(input_shape=(32, 32, 3), include_top=False, weights=None)
    given.load_weights(weights)
    theirs = next(layer for layer in given.layers if isinstance(layer, keras.layers.Conv2D)).kernel
    assert np.corrcoef(stem(load_model_file(file)).ravel(), np.ravel(theirs))[0, 1] > 0.99


def test_another_study_goes_on_from_the_registry(tuned: tuple[str, str], tmp_path: Path):
    uri, run_id = tuned
    register_resolvers()
    classes = list(compose_config("train", ["data=isic9"]).data.classes)
    mlflow.set_tracking_uri(uri)
    version = mlflow.register_model(f"runs:/{run_id}/model", "pretrained")
    mlflow.MlflowClient().set_registered_model_alias("pretrained", "champion", version.version)
    done = run_melanoma(
        "train", "experiment=isic9_backbone", *SHORT, "model.weights=models:/pretrained@champion",
        f"data.path={drawn(tmp_path / 'nine', classes, 180)}", f"tracking.uri={uri}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "head new: other classes" in done.stderr
    tags = only_run(uri, "isic9_backbone").data.tags
    assert tags["melanoma.weights_version"] == "pretrained/1"
    assert tags["melanoma.weights_run"] == run_id
    assert tags["melanoma.protocol"] == "pretraining_unknown"  # as that of the model it began from
