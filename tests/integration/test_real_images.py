"""The real sets, where MELANOMA_DATA points to them."""

from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import run_melanoma
from tests.integration.conftest import client, only_run

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("data", "model", "counts"),
    [
        ("isic9", "m3", {"train": 1792 + 9 * 10, "validation": 449, "test": 118}),
        ("melanoma10k", "binary150", {"train": 5763, "validation": 1921, "test": 1921}),
    ],
)
def test_one_batch_of_a_real_set(real_data: Path, store: str, data: str, model: str, counts: dict[str, int]):
    done = run_melanoma(
        "train", f"data={data}", f"data.path={real_data / f'{data}.zip'}", f"model={model}", "training.epochs=1",
        "debug=one_batch", "balance.images_per_class=10", "evaluation.bootstrap=20", f"tracking.uri={store}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = only_run(store)
    assert run.info.status == "FINISHED"
    assert run.data.tags["melanoma.protocol"] == "debug_one_batch"
    if data == "isic9":
        assert run.data.tags["melanoma.known_leaks"] == "18 content"
    split = pd.read_csv(client(store).download_artifacts(run.info.run_id, "data/split.csv"))
    assert split.part.value_counts().to_dict() == counts
