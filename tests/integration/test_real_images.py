"""The real sets, where MELANOMA_DATA points to them."""

from pathlib import Path

import pandas as pd
import pytest

from tests.commands import run_melanoma
from tests.integration.conftest import client, only_run

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("data", "model", "counts"),
    [
        ("isic9", "m3", {"train": 1550 + 9 * 10, "validation": 389, "test": 118, "removed": 302}),
        pytest.param(
            "melanoma10k", "binary150", {"train": 5754, "validation": 1918, "test": 1919, "removed": 14},
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_one_batch_of_a_real_set(real_data: Path, store: str, data: str, model: str, counts: dict[str, int]):
    done = run_melanoma(
        "train", f"data={data}", f"data.path={real_data / f'{data}.zip'}", f"model={model}", "training.epochs=1",
        "data.image_size=64", "debug=one_batch", "balance.images_per_class=10", "evaluation.bootstrap=20",
        f"tracking.uri={store}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = only_run(store)
    assert run.info.status == "FINISHED"
    assert run.data.tags["melanoma.protocol"] == "debug_one_batch"
    assert "melanoma.known_leaks" not in run.data.tags
    split = pd.read_csv(client(store).download_artifacts(run.info.run_id, "data/split.csv"))
    assert split.part.value_counts().to_dict() == counts
    used = split[split.part.isin(["train", "validation", "test"])]
    assert used.groupby("cluster").part.nunique().max() == 1
    assert used.groupby("cluster").label.nunique().max() == 1
