"""What tests of several modules share: an empty cache, and a small configuration."""

from pathlib import Path

import pytest

from melanoma.config.diagnose import compose_config
from melanoma.config.launch import register_resolvers, typed
from melanoma.config.schema import TrainConfig

SMALL = ["data.source.images=90", "data.source.size=64", "data.image_size=16"]

register_resolvers()


def configured(*overrides: str) -> TrainConfig:
    """The settings of `melanoma train` with some overrides."""
    return typed(TrainConfig, compose_config("train", list(overrides)))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, used by all that the test calls."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("MELANOMA_CACHE_DIR", str(folder))
    return folder
