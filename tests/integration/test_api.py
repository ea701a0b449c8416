"""The Python API: a user's way from images to a promoted model, without a command line."""

import shlex
from pathlib import Path

import mlflow
import pandas as pd
import pytest

import melanoma
from melanoma.errors import ConfigError, DataError, ModelError, PromotionRefused
from tests.commands import run_melanoma
from tests.integration.conftest import SMALL, copied_store

KEYS = dict(word.split("=") for word in SMALL if not word.startswith("model=")) | {
    "data.source.images": "160",
    "split.test": 0.3,
    "split.validation": 0.4,
}


@pytest.fixture(scope="module")
def uri(empty_store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return copied_store(empty_store, tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def run(uri: str) -> "melanoma.api.results.Run":
    return melanoma.train(model="m1", **KEYS | {"tracking.uri": uri, "tracking.figures": True})


def test_a_run_has_its_results_as_tables_and_figures(run):
    assert run.metrics.loc["test/auc", ["ci_low", "value", "ci_high"]].is_monotonic_increasing
    assert run.metrics.columns.tolist() == ["value", "ci_low", "ci_high"]
    assert list(run.history.index) == [1, 2]
    assert {"train/loss", "val/auc", "learning_rate"} <= set(run.history)
    assert set(run.predictions.part) == {"validation", "test"}
    assert run.figure("roc")._repr_png_().startswith(b"\x89PNG")
    assert (run.protocol, run.primary_metric, run.name) == ("clean", "auc", "m1-synthetic-s0")
    gap = run.metrics.value["training/auc"] - run.metrics.value["validation/auc"]
    assert run.metrics.value["gap/auc"] == pytest.approx(gap)
    assert run.metrics.ci_low["gap/auc"] <= gap <= run.metrics.ci_high["gap/auc"]
    assert f"a gap of {gap:+.3f}" in run.model_card
    assert run.model_card.startswith("# Model card: m1 on synthetic")
    with pytest.raises(ModelError, match=r"The run has the figures .*roc.*Received: nothing"):
        run.figure("nothing")


def test_a_notebook_shows_a_run_with_intervals_and_figures(run):
    page = run._repr_html_()
    value = run.metrics.loc["test/auc", "value"]
    assert page.index("<td>auc</td>") < page.index("<td>accuracy</td>")  # the primary metric first
    assert f"<td>{value:.3f} [" in page
    assert page.count("data:image/png;base64,") == 3
    assert "not a medical device" in page


def test_the_command_line_of_a_run_does_the_same(run, uri: str):
    words = shlex.split(run.command)
    assert words[:2] == ["melanoma", "train"]
    done = run_melanoma(*words[1:])
    assert done.returncode == 0, done.stderr
    again = next(line.split()[-1] for line in done.stdout.splitlines() if line.startswith("Run "))
    found = melanoma.compare(run, again, tracking_uri=uri)
    repeated = melanoma.compare((one for one in [run, again, run]), tracking_uri=uri)  # the reference twice
    pd.testing.assert_frame_equal(repeated.tests, found.tests)
    assert (found.tests.difference == 0).all()
    assert found.metrics.loc["auc"].nunique() == 1
    assert "No difference in auc" in found._repr_html_()


def test_images_are_predicted_by_a_loaded_model(run, tmp_path: Path):
    model = melanoma.load(run)
    assert model.classes == ["benign", "malignant"]
    root = melanoma.audit("synthetic", **{"data.source.images": 80, "data.source.size": 48, "audit.output": tmp_path})
    assert root.counts["images"] == 80
    assert root.page.is_file()
    assert str(root.page) in root._repr_html_()
    listed = [root.audit.root / path for path in root.audit.table.path[:3]]
    table = melanoma.predict(model, listed)
    assert table.path.tolist() == [str(path) for path in listed]
    pd.testing.assert_frame_equal(table, melanoma.predict(run, listed))
    with pytest.raises(DataError, match="No images found"):
        model.predict(tmp_path / "nothing")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="No image could be read"):
        model.predict(tmp_path / "broken.png")
    for wrong in (None, 3, [], [3]):
        with pytest.raises(DataError, match="Expected a path, a glob pattern or a list of paths"):
            model.predict(wrong)


def test_a_run_that_does_not_exist_or_failed_is_a_clear_error(uri: str):
    missing = melanoma.api.results.Run("0" * 32, uri)
    for use in (lambda: missing.figures, lambda: missing.predictions, lambda: missing.metrics):
        with pytest.raises(ModelError, match="There is no such run"):
            use()
    mlflow.set_tracking_uri(uri)
    failed = mlflow.MlflowClient().create_run("0").info.run_id
    with pytest.raises(ModelError, match="The run has no predictions; did it finish"):
        _ = melanoma.api.results.Run(failed, uri).predictions


def test_a_run_is_evaluated_and_promoted(run):
    again = melanoma.evaluate(run, **{"tracking.uri": run.uri, "evaluation.bootstrap": 50})
    assert again.metrics.loc["test/auc", "value"] == pytest.approx(run.metrics.loc["test/auc", "value"])
    assert again.name == "m1-synthetic-s0 on synthetic"
    with pytest.raises(PromotionRefused, match="intervals"):
        melanoma.promote(run=run, dry_run=True, **{"registry.smoke_test": False})


def test_a_sweep_has_its_trials_and_the_best(uri: str):
    keys = KEYS | {"tracking.uri": uri, "training.epochs": 1, "optimizer.learning_rate": [1e-3, 1e-4]}
    found = melanoma.sweep(model="m1", **keys)
    assert found.trials.state.tolist() == ["complete", "complete"]
    assert found.best.id == found.trials.run[0]
    assert found.best.name == found.trials.overrides[0]
    assert "optimizer.learning_rate=0.001,0.0001" in found.command


def test_faults_are_errors_with_the_message_of_the_command(tmp_path: Path):
    with pytest.raises(ConfigError, match="There is no model named 'm9'"):
        melanoma.train(model="m9")
    with pytest.raises(DataError, match=r"data\.path does not exist"):
        melanoma.train(data=tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"training\.epochs must be at least 1"):
        melanoma.train(**{"training.epochs": 0})
    for name in ("ok", "sick"):
        (tmp_path / "two" / name).mkdir(parents=True)
        (tmp_path / "two" / name / "a.jpg").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"Add data\.positive=ok or data\.positive=sick"):
        melanoma.train(data=tmp_path / "two")
