"""What one training run leaves in the tracking store: the contract that users and other tools rely on."""

import json
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import log_loss

from melanoma.config.arguments import flattened
from melanoma.config.diagnose import compose_config
from melanoma.config.launch import register_resolvers
from melanoma.config.schema import TrackingConfig
from melanoma.data.archive import file_sha256
from melanoma.data.decode import decode
from melanoma.evaluation.calibration import Temperature, fit_calibration
from melanoma.evaluation.intervals import scarcity
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.predictions import Predictions
from melanoma.evaluation.uncertain import fit_abstention, fit_prediction_sets
from melanoma.paths import cache_dir
from melanoma.serving.package import load_classifier
from melanoma.tracking.measures import read_measures
from melanoma.tracking.names import stored_name
from melanoma.tracking.page import describe_experiment
from melanoma.tracking.run import tracked_run
from tests.integration.conftest import SMALL, Trained, client, measured

CLASSES = ["benign", "malignant"]


def test_run_is_finished_named_and_tagged(trained: Trained):
    assert trained.run.info.status == "FINISHED"
    assert trained.run.info.run_name == "small"
    assert "\nFigures  " in trained.output
    tags = trained.run.data.tags
    assert tags["melanoma.task"] == "synthetic"
    assert tags["melanoma.protocol"] == "clean"
    assert {"melanoma.data.fingerprint", "melanoma.split.hash", "melanoma.host"} <= set(tags)


def test_every_leaf_of_the_resolved_config_is_a_parameter(trained: Trained):
    params = trained.run.data.params
    assert params["seed"] == "0"
    assert params["training.epochs"] == "2"
    assert params["balance.operations.rotate.probability"] == "0.7"
    assert params["augmentation.layers.0.rotation"] == "72"
    assert not any("${" in value for value in params.values())
    resolved = yaml.safe_load(trained.download("config/resolved.yaml").read_text())
    assert resolved["training"]["epochs"] == 2
    assert {stored_name(key) for key in flattened(resolved)} <= set(params)
    register_resolvers()
    assert set(resolved) == set(compose_config("train", list(SMALL)))
    overrides = yaml.safe_load(trained.download("config/overrides.yaml").read_text())
    assert "model=m1" in overrides


def rows_of(trained: Trained, part: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """The predictions of a part: as a table, its targets, and the probabilities."""
    predictions = pd.read_csv(trained.download("evaluation/predictions.csv"))
    rows = predictions[predictions.part == part]
    probabilities = rows[["probability/benign", "probability/malignant"]].to_numpy()
    return rows, (rows.label == "malignant").to_numpy().astype(int), probabilities


def test_the_page_of_mlflow_shows_few_metrics_and_the_file_has_all(trained: Trained):
    shown = {name for name in trained.run.data.metrics if not name.startswith("system/")}
    assert len(shown) <= 40
    assert {"train/loss", "val/auc", "validation/auc", "test/auc", "test/auc_ci_low", "test/brier"} < shown
    assert "test/operating_point/malignant/sensitivity" in shown
    of_file = read_measures(trained.download("evaluation/metrics.json").read_text())
    assert {name: of_file[name] for name in shown & set(of_file)} == {
        name: trained.run.data.metrics[name] for name in shown & set(of_file)
    }
    assert len(of_file) > 100
    table = pd.read_csv(trained.download("evaluation/metrics.csv")).set_index("metric")
    assert table.loc["test/specificity/benign", "ci_low"] == of_file["test/specificity/benign_ci_low"]


def test_the_run_and_its_experiment_tell_what_is_best(trained: Trained):
    tags = trained.run.data.tags
    assert (tags["melanoma.primary_metric"], tags["melanoma.positive"]) == ("auc", "malignant")
    assert trained.run.data.params["training.monitor"] == "val/auc"
    experiment = client(trained.uri).get_experiment(trained.run.info.experiment_id)
    assert experiment.tags["mlflow.experiment.primaryMetric.name"] == "validation/auc"
    assert experiment.tags["mlflow.experiment.primaryMetric.greaterIsBetter"] == "True"
    assert "melanoma promote tracking.experiment=" in experiment.tags["mlflow.note.content"]


def test_findings_are_on_the_terminal_the_run_and_the_card(trained: Trained):
    told = trained.run.data.tags["melanoma.findings"].splitlines()
    assert told
    note, card = trained.run.data.tags["mlflow.note.content"], trained.download("model_card.md").read_text()
    for line in told:
        assert f"- {line}" in note
        assert f"- {line}" in card
        assert f"- {line}" in trained.output


def test_the_operating_point_is_chosen_on_validation_and_kept_with_the_model(trained: Trained):
    metrics = measured(trained.run)
    threshold = metrics["operating_point/malignant/threshold"]
    _, targets, probabilities = rows_of(trained, "validation")
    positive = probabilities[targets == 1, 1]
    assert len(positive) < 20  # so that 95% of them are all
    assert threshold == pytest.approx(positive.min())
    assert metrics["validation/operating_point/malignant/sensitivity"] >= 0.95
    assert "test/operating_point/malignant/missed_per_1000" in metrics
    points = json.loads(trained.download("evaluation/operating_points.json").read_text())["points"]
    assert points[0]["threshold"] == pytest.approx(threshold)
    mlflow.set_tracking_uri(trained.uri)
    info = mlflow.models.get_model_info(f"runs:/{trained.run.info.run_id}/model")
    assert info.metadata["operating_points"] == {"malignant": pytest.approx(threshold)}


def test_uncertain_cases_are_fitted_on_validation_and_kept_with_the_model(trained: Trained):
    metrics = measured(trained.run)
    assert {"validation/prediction_set/coverage", "test/prediction_set/size", "test/abstention/share"} <= set(metrics)
    assert "test/prediction_set/coverage/malignant" in metrics
    assert "figures/abstention.png" in trained.artifacts("figures")
    mlflow.set_tracking_uri(trained.uri)
    metadata = mlflow.models.get_model_info(f"runs:/{trained.run.info.run_id}/model").metadata
    assert metadata["prediction_sets"] == {"coverage": 0.9, "threshold": metrics["prediction_set/threshold"]}
    assert metadata["abstention"]["threshold"] == metrics["abstention/threshold"]
    _, targets, probabilities = rows_of(trained, "validation")
    fitted = fit_prediction_sets(targets, probabilities, 0.9).threshold, fit_abstention(probabilities, 0.1).threshold
    assert (metrics["prediction_set/threshold"], metrics["abstention/threshold"]) == pytest.approx(fitted)
    test, _, _ = rows_of(trained, "test")
    sets = test.prediction_set.str.split("; ")
    covered = [label in members for label, members in zip(test.label, sets, strict=True)]
    assert metrics["test/prediction_set/coverage"] == pytest.approx(np.mean(covered))
    assert metrics["test/abstention/share"] == pytest.approx(test.abstained.mean())


def test_out_of_distribution_scores_are_fitted_and_kept_with_the_model(trained: Trained):
    metrics = measured(trained.run)
    validation, test = (rows_of(trained, part)[0] for part in ("validation", "test"))
    # The threshold is the largest distance of 34 validation images.
    assert validation.ood_score.max() == 1
    assert metrics["validation/out_of_distribution/share"] == 0
    assert metrics["test/out_of_distribution/share"] == pytest.approx((test.ood_score > 1).mean())
    assert "test/out_of_distribution/share" not in trained.run.data.metrics
    mlflow.set_tracking_uri(trained.uri)
    root = _root_of(test)
    pixels = np.stack([decode(root / path, size=48) for path in test.path])
    _, scores = load_classifier(trained.run.info.run_id).outputs(pixels)
    assert scores == pytest.approx(test.ood_score.to_numpy(), abs=1e-3)


def test_calibration_is_fitted_on_validation_and_compared_with_none(trained: Trained):
    metrics = measured(trained.run)
    temperature = metrics["calibration/temperature"]
    _, targets, probabilities = rows_of(trained, "validation")
    raw = Temperature(1 / temperature).applied(probabilities)
    assert fit_calibration("temperature", targets, raw).temperature == pytest.approx(temperature, rel=1e-3)
    assert metrics["validation/log_loss_uncalibrated"] == pytest.approx(log_loss(targets, raw), rel=1e-4)
    assert {"test/ece_uncalibrated", "validation/ece_uncalibrated"} <= set(metrics)
    figures = {f"figures/{part}reliability_uncalibrated.png" for part in ("", "validation_")}
    assert figures <= trained.artifacts("figures")


def test_the_model_card_has_the_runs_own_numbers(trained: Trained):
    card = trained.download("model_card.md").read_text()
    metrics = measured(trained.run)
    low, high = (metrics[f"test/accuracy_ci_{end}"] for end in ("low", "high"))
    assert f"{metrics['test/accuracy']:.3f} [{low:.3f}, {high:.3f}]" in card
    assert trained.run.data.tags["melanoma.data.fingerprint"] in card
    assert "| malignant | " in card
    assert "12 training images were added by augmentation" in card
    assert "All images are drawn by the project's own generator" in card
    assert "model_card.html" in trained.artifacts()


@pytest.mark.parametrize(
    "name",
    ["train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/auc", "learning_rate", "seconds_per_epoch",
     "images_per_second"],
)  # fmt: skip
def test_epoch_metrics_have_a_value_each_epoch(trained: Trained, name: str):
    history = client(trained.uri).get_metric_history(trained.run.info.run_id, name)
    assert [point.step for point in history] == [0, 1]
    assert all(np.isfinite(point.value) for point in history)


def test_final_metrics_have_intervals(trained: Trained):
    metrics = measured(trained.run)
    predictions = pd.read_csv(trained.download("evaluation/predictions.csv")).query("part == 'test'")
    probabilities = predictions[["probability/benign", "probability/malignant"]].to_numpy()
    targets = (predictions.label == "malignant").to_numpy().astype(int)
    given = Predictions(targets, probabilities, CLASSES, groups=predictions["group"].to_numpy())
    names, scarce = set(measure(given)), scarcity(given)
    assert {"accuracy", "auc", "mcc", "ece", "sensitivity/malignant", "precision/malignant", "partial_auc"} <= names
    for name in names:
        assert np.isfinite(metrics[f"test/{name}"])
        if name in scarce:
            assert f"test/{name}_ci_low" not in metrics
        elif not name.startswith("support/"):
            assert metrics[f"test/{name}_ci_low"] < metrics[f"test/{name}_ci_high"], name
    assert "auc" not in scarce
    assert "specificity_at_sensitivity_95" in scarce
    assert 0 <= metrics["test/accuracy_ci_low"] < metrics["test/accuracy_ci_high"] <= 1


def test_artifacts_of_the_contract_are_there(trained: Trained):
    figures = {"confusion_matrix", "confusion_matrix_normalized", "roc", "precision_recall", "reliability",
               "decision_curve",
               "score_distributions", "confident_mistakes", "training_curves", "class_distribution", "class_samples",
               "augmentation_samples", "validation_confusion_matrix", "validation_roc"}  # fmt: skip
    assert {f"figures/{name}.png" for name in figures} <= trained.artifacts("figures")
    assert "data/split.csv" in trained.artifacts("data")
    assert {"evaluation/confusion_matrix.json", "evaluation/predictions.csv"} <= trained.artifacts("evaluation")
    assert "logs/train.log" in trained.artifacts("logs")
    packages = trained.download("environment/requirements.txt").read_text()
    assert f"keras=={keras.__version__}" in packages


def test_split_names_parents_and_quarantined(trained: Trained):
    table = pd.read_csv(trained.download("data/split.csv"), keep_default_na=False)
    assert table.part.value_counts().to_dict() == {"train": 88, "validation": 34, "test": 50, "quarantined": 2}
    added = table[table.parent != ""]
    assert len(added) == 12
    assert set(added.part) == {"train"}
    assert set(added.parent) <= set(table.path[(table.part == "train") & (table.parent == "")])
    quarantined = pd.read_csv(trained.download("data/quarantined.csv"))
    assert set(quarantined.path) == set(table.path[table.part == "quarantined"])
    assert measured(trained.run)["data/quarantined"] == 2


def test_confusion_matrix_agrees_with_predictions_and_metrics(trained: Trained):
    found = json.loads(trained.download("evaluation/confusion_matrix.json").read_text())
    predictions = pd.read_csv(trained.download("evaluation/predictions.csv"))
    assert found["classes"] == ["benign", "malignant"]
    for part in ("validation", "test"):
        rows = predictions[predictions.part == part]
        counts = pd.crosstab(rows.label, rows.predicted).reindex(
            index=found["classes"], columns=found["classes"], fill_value=0
        )
        assert found[part]["counts"] == counts.to_numpy().tolist()
        accuracy = (rows.label == rows.predicted).mean()
        assert measured(trained.run)[f"{part}/accuracy"] == pytest.approx(accuracy)
        assert np.sum(found[part]["normalized"], axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_data_sets_are_inputs_with_digests(trained: Trained):
    inputs = trained.run.inputs.dataset_inputs
    contexts = {tag.value: item.dataset for item in inputs for tag in item.tags if tag.key == "mlflow.data.context"}
    assert set(contexts) == {"training", "validation", "test"}
    assert len({dataset.digest for dataset in contexts.values()}) == 3


def test_reloaded_model_gives_the_probabilities_of_the_run(trained: Trained):
    mlflow.set_tracking_uri(trained.uri)
    address = f"runs:/{trained.run.info.run_id}/model"
    model = mlflow.keras.load_model(address)
    info = mlflow.models.get_model_info(address)
    assert info.signature is not None
    assert info.saved_input_example_info is not None
    predictions = pd.read_csv(trained.download("evaluation/predictions.csv"))
    root = _root_of(predictions)
    pixels = np.stack([decode(root / path, size=48) for path in predictions.path]).astype(np.float32)
    probabilities = model.predict(pixels, verbose=0)
    logged = predictions[["probability/benign", "probability/malignant"]].to_numpy()
    np.testing.assert_allclose(probabilities, logged, atol=1e-5)
    np.testing.assert_allclose(model.predict(pixels[:, :, ::-1], verbose=0), logged, atol=1e-5)  # all mirrored views
    assert not any("random" in type(layer).__name__.lower() for layer in model.layers)


def test_the_terminal_says_where_things_are(trained: Trained):
    assert "test (n=50)" in trained.output
    assert f"Run      {trained.run.info.run_id}" in trained.output
    assert "mlflow ui --backend-store-uri" in trained.output
    assert not (trained.folder / "mlruns").exists()


def _root_of(predictions: pd.DataFrame) -> Path:
    """The folder that the predicted images are in, beside those of other tests."""
    image = predictions.iloc[0]
    return next(
        folder
        for folder in (cache_dir() / "synthetic").iterdir()
        if (folder / image.path).is_file() and file_sha256(folder / image.path) == image.sha256
    )


def test_a_description_of_the_users_own_is_kept(store: str):
    mlflow.set_tracking_uri(store)
    own = mlflow.create_experiment("own", tags={"mlflow.note.content": "mine"})
    describe_experiment(own, "auc")
    describe_experiment(own, "accuracy")
    tags = mlflow.get_experiment(own).tags
    assert tags["mlflow.note.content"] == "mine"
    assert tags["mlflow.experiment.primaryMetric.name"] == "validation/auc"
    assert json.loads(tags["mlflow.sharedViewState.melanoma"])["name"] == "Ranking by validation/auc"


@pytest.mark.parametrize(("metrics", "shown"), [("main", {"test/auc"}), ("all", {"test/auc", "test/mcc"})])
def test_mlflow_shows_all_metrics_if_asked_and_a_failed_run_keeps_its_file(store: str, metrics: str, shown: set[str]):
    settings = TrackingConfig(experiment="failing", system_metrics=False, metrics=metrics)
    with (
        pytest.raises(RuntimeError),
        tracked_run(store, settings, tags={"melanoma.primary_metric": "auc"}, name="one") as run,
    ):
        run.log_measures({"test/auc": 0.5, "test/mcc": 0.25})
        raise RuntimeError
    found = client(store).get_run(run.id)
    assert (found.info.status, set(found.data.metrics)) == ("FAILED", shown)
    assert measured(found) == {"test/auc": 0.5, "test/mcc": 0.25}
