"""What a model and its ancestors have seen, by their runs in a real store."""

from pathlib import Path
from types import SimpleNamespace

import mlflow
import pandas as pd
import pytest

from melanoma.config.schema import TrackingConfig
from melanoma.lineage.contamination import Seen, contamination
from melanoma.lineage.protocol import CLEAN
from melanoma.tracking.log import log_ancestor
from melanoma.tracking.run import tracked_run
from melanoma.workflows.stages import seen_by
from tests.integration.conftest import client, measured


@pytest.fixture
def uri(store: str, tmp_path: Path) -> str:
    mlflow.set_tracking_uri(store)
    client(store).create_experiment("line", artifact_location=str(tmp_path / "artifacts"))
    return store


def ancestor(uri: str, protocol: str = "clean") -> str:
    """A run that trained on s1, tuned on s2 and was tested on s3; its id."""
    store = client(uri)
    experiment = store.get_experiment_by_name("line").experiment_id
    run = store.create_run(experiment, tags={"melanoma.protocol": protocol}).info.run_id
    parts = {"train": "s1", "validation": "s2", "test": "s3"}
    split = pd.DataFrame({"path": [*"abc"], "part": [*parts], "sha256": [*parts.values()], "parent": ""})
    store.log_text(run, split.to_csv(index=False), "data/split.csv")
    return run


def test_test_images_that_a_run_was_selected_on_are_seen(uri: str):
    assert seen_by(ancestor(uri)) == Seen(frozenset({"s1", "s2"}), complete=True)
    selected = ancestor(uri, "selected_on_test")
    assert seen_by(selected) == Seen(frozenset({"s1", "s2", "s3"}), complete=True)
    assert seen_by(selected, selected=False) == Seen(frozenset({"s1", "s2"}), complete=True)


@pytest.mark.parametrize(
    ("lesion", "similarity", "protocol"),
    [
        ("L", None, "pretrained_on_test"),
        ("other", None, "clean"),
        # No audit on this machine has seen any of these images.
        ("L", 0.75, "pretrained_on_test,pretraining_unknown"),
        ("other", 0.75, "pretraining_unknown"),
    ],
)
def test_a_lesion_seen_in_an_image_that_is_removed_here(uri: str, lesion: str, similarity: float | None, protocol: str):
    known = pd.DataFrame(
        {"path": ["train/a", "train/n", "test/t"], "sha256": ["s1", "n", "t"], "cluster": [0, 1, 2], "part": "",
         "lesion": ["L", "M", lesion]}
    )  # fmt: skip
    # The division took train/a out, since it shows the lesion of a test image.
    test = known[known.path == "test/t"].assign(part="test", parent="")
    saved = SimpleNamespace(run_id=ancestor(uri))
    found = contamination(seen_by(saved.run_id), known, test, similarity)
    assert str(CLEAN | found.protocol) == protocol
    with tracked_run(uri, TrackingConfig(experiment="line", system_metrics=False), name="new", tags={}) as run:
        log_ancestor(run, saved, "runs:/x/model", found)
    stored = client(uri).get_run(run.id)
    assert stored.data.tags["melanoma.weights_run"] == saved.run_id
    assert measured(stored)["data/test_seen_in_pretraining"] == (lesion == "L")
    assert client(uri).get_run(saved.run_id).data.tags[f"melanoma.descendant.{run.id}"] == "new"
