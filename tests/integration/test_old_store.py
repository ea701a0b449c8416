"""A store that version 0.1 of November 2026 wrote is read, compared, promoted, evaluated and served by today's code.

`data/store_0_1.zip` holds three runs of 120 drawn lesions in three classes, with `data.views`, as that version called
binary tasks: `better`, `worse`, whose model is the champion, and `published`. Figures were taken out.
"""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from melanoma.data.sources import synthetic
from melanoma.lineage.protocol import Shortcut
from melanoma.serving.package import load_package
from melanoma.serving.server import package_folder
from melanoma.tracking.records import RunRecord, ancestry, find_runs

ARCHIVE = Path(__file__).parents[1] / "data" / "store_0_1.zip"
MADE_IN = "/tmp/fxs"  # addresses in it are below this folder
# Its test set is too small for any interval: it has eight groups of images.
EASY = ("registry.floors={test/auc: null}", "registry.ceilings={test/ece: null}", "registry.subgroups.floor=null")
NAME = "melanoma-synthetic"
DRAWN = {
    "images": 120, "size": 48, "seed": 0, "imbalance": 1.0, "test_share": 0.0, "duplicates": 0, "near_duplicates": 0,
    "conflicts": 0, "leaks": 0, "unreadable": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("old")
    shutil.unpack_archive(ARCHIVE, folder)
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        for (table,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for column in [row[1] for row in store.execute(f"PRAGMA table_info({table})")]:
                store.execute(
                    f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE typeof({column}) = 'text'",
                    (MADE_IN, str(folder)),
                )
        store.commit()
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    return uri


def runs(uri: str) -> dict[str, RunRecord]:
    mlflow.set_tracking_uri(uri)
    return {record.name: record for record in find_runs("melanoma")}


def test_its_runs_are_read_with_their_hashes(old: str):
    found = runs(old)
    assert {"better", "worse", "published"} <= set(found)
    for record in found.values():
        assert record.is_hashed("config/resolved.yaml")
        assert record.binary_tasks == {"malignant": ["melanoma", "basal cell carcinoma"]}
        assert "views" not in record.config["data"]
        assert len(record.predictions("test")) == len(record.split[record.split.part == "test"])
    assert found["better"].protocol.is_clean
    assert Shortcut.PUBLISHED in found["published"].protocol
    assert ancestry(found["better"].id).complete


def test_its_runs_are_compared(old: str, run_here):
    found = runs(old)
    done = run_here("compare", found["better"].id, found["worse"].id, "--tracking-uri", old)
    assert done.returncode == 0, done.stderr
    assert "test/malignant/auc" in done.stdout


def test_a_run_is_evaluated_to_the_same_numbers(old: str, run_here):
    better = runs(old)["better"]
    done = run_here(
        "evaluate", f"run={better.id}", f"tracking.uri={old}", "tracking.experiment=again", "evaluation.bootstrap=200"
    )
    assert done.returncode == 0, done.stderr
    [again] = find_runs("again")
    names = ["test/accuracy", "test/auc", "test/malignant/auc", "test/operating_point/malignant/sensitivity"]
    expected = {name: better.metrics[name] for name in names}  # its intervals were made in another way
    assert {name: again.metrics[name] for name in names} == pytest.approx(expected, abs=1e-6)
    assert "test/auc_ci_low" in better.metrics
    assert "test/auc_ci_low" not in again.metrics  # of eight groups of images
    assert again.tags["melanoma.evaluated_run"] == better.id
    assert again.protocol.is_clean


def test_its_champion_predicts_as_its_run_did(old: str, run_here, tmp_path: Path):
    """The package's files are read by today's classifier, which knows its binary tasks by their old name."""
    predictions = runs(old)["worse"].predictions("test")
    images = synthetic(None, classes=3, **DRAWN).root
    output = tmp_path / "out.csv"
    model = f"model=models:/{NAME}@champion"
    done = run_here("predict", model, f"input={images}", f"output={output}", f"tracking.uri={old}")
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(output)
    found.index = found.path.str.removeprefix(f"{images}/")
    columns = [column for column in predictions if column.startswith("probability/")]
    np.testing.assert_allclose(found.loc[predictions.path, columns], predictions[columns], atol=1e-5)
    positive = predictions["probability/melanoma"] + predictions["probability/basal cell carcinoma"]
    np.testing.assert_allclose(found.loc[predictions.path, "score/malignant"], positive, atol=1e-5)
    assert set(found.model_version) == {f"{NAME}/1"}


def test_its_champion_is_served(old: str):
    """By MLflow, with the code inside the package."""
    mlflow.set_tracking_uri(old)
    image = next(synthetic(None, classes=3, **DRAWN).root.rglob("*.jpg"))
    model = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    [answer] = model.predict(pd.DataFrame({"image": [image.read_bytes()]})).to_dict("records")
    with package_folder(None) as folder:
        [today] = load_package(folder).predict(pd.DataFrame({"image": [image.read_bytes()]})).to_dict("records")
    assert answer == today


def test_a_run_of_it_replaces_its_champion_and_back(old: str, run_here):
    found = runs(old)
    words = (f"tracking.uri={old}", *EASY, "registry.champion.rule=none", "registry.smoke_test=false")
    refused = run_here("promote", *words, f"run={found['published'].id}")
    assert refused.returncode == 5
    assert "protocol: published" in refused.stderr
    small = run_here("promote", *words, "registry.floors={test/auc: 0.0}")
    assert small.returncode == 5
    assert "of 7 groups of images of nevus, 4 groups of images of melanoma" in small.stderr
    done = run_here("promote", *words, "registry.views={malignant: [melanoma, basal cell carcinoma]}")
    assert done.returncode == 0, done.stderr
    champion = mlflow.MlflowClient().get_model_version_by_alias(NAME, "champion")
    assert (champion.version, champion.run_id) in ((2, found["better"].id), ("2", found["better"].id))
    assert champion.tags["melanoma.gate.binary tasks"].startswith("passed")
    done = run_here("rollback", f"tracking.uri={old}")
    assert done.returncode == 0, done.stderr
    assert mlflow.MlflowClient().get_model_version_by_alias(NAME, "champion").run_id == found["worse"].id
