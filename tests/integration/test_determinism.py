"""Same seed, same machine: the same split, the same augmented files, the same metrics."""

import hashlib
from pathlib import Path

import pandas as pd

from melanoma.tracking.records import RunRecord
from tests.commands import run_melanoma
from tests.integration.conftest import SMALL, all_runs, client, measured, trained_here

UNTIMED = ("seconds_per_epoch", "images_per_second", "fit/seconds", "evaluation/seconds", "model/latency_ms")


def test_same_seed_same_numbers_other_seed_other_split(tmp_path: Path, store: str):
    words = [
        *SMALL, "balance=augmentor", "balance.images_per_class=4", "augmentation=dermoscopy",
        "augmentation.mix.mixup=0.2", f"tracking.uri={store}",
    ]  # fmt: skip
    for name in ("first", "second"):
        cache = str(tmp_path / f"cache-{name}")
        done = run_melanoma("train", *words, "seed=3", f"tracking.run_name={name}", MELANOMA_CACHE_DIR=cache)
        assert done.returncode == 0, done.stderr
        assert "Figures" not in done.stdout  # none were logged
    trained_here([*words, "seed=4", "tracking.run_name=third"], tmp_path)
    runs = {run.info.run_name: run for run in all_runs(store)}
    metrics = {name: {k: v for k, v in measured(run).items() if k not in UNTIMED} for name, run in runs.items()}
    assert metrics["first"] == metrics["second"]
    assert metrics["first"] != metrics["third"]
    assert _augmented(tmp_path / "cache-first") == _augmented(tmp_path / "cache-second")
    splits = {name: _split(store, run.info.run_id) for name, run in runs.items()}
    pd.testing.assert_frame_equal(splits["first"], splits["second"])
    assert not splits["first"].equals(splits["third"])
    tags = {name: run.data.tags["melanoma.split.hash"] for name, run in runs.items()}
    assert tags["first"] == tags["second"] != tags["third"]


def test_found_values_are_recorded_and_train_as_if_they_were_typed(tmp_path: Path, store: str):
    words = [*SMALL, f"tracking.uri={store}"]
    found = trained_here([*words, "training.find_learning_rate=true", "training.max_minutes=10"], tmp_path)
    config = RunRecord(client(store).get_run(found)).config
    rate, epochs = config["optimizer"]["learning_rate"], config["training"]["epochs"]
    assert 1e-6 < rate != 1e-3
    params = client(store).get_run(found).data.params
    assert (float(params["optimizer.learning_rate"]), params["training.epochs"], epochs) == (rate, "2", 2)
    typed = trained_here([*words, f"optimizer.learning_rate={rate}"], tmp_path)
    metrics = [measured(client(store).get_run(run_id)) for run_id in (found, typed)]
    first, second = ({k: v for k, v in one.items() if k not in UNTIMED} for one in metrics)
    assert first == second


def test_a_time_limit_leaves_epochs_for_the_whole_network(tmp_path: Path, store: str):
    words = [*SMALL, "training.epochs=8", "model.warmup_epochs=3", "training.max_minutes=1e-4"]
    run = client(store).get_run(trained_here([*words, f"tracking.uri={store}"], tmp_path))
    planned = {key: run.data.params[key] for key in ("training.epochs", "model.warmup_epochs")}
    assert planned == {"training.epochs": "1", "model.warmup_epochs": "0"}
    assert "model.warmup_epochs is reduced to 0" in (tmp_path / "train.log").read_text()


def _augmented(cache: Path) -> dict[str, str]:
    files = sorted((cache / "augmentor").rglob("*.jpg"))
    assert len(files) == 8
    return {str(f.relative_to(cache)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def _split(uri: str, run_id: str) -> pd.DataFrame:
    return pd.read_csv(client(uri).download_artifacts(run_id, "data/split.csv"))
