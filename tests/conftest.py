"""Shared fixtures: a cache and a tracking store of the tests' own, and the real images where they are."""

import os
from pathlib import Path

import pytest

from tests.commands import COMMAND, run_melanoma

__all__ = ["COMMAND", "run_melanoma"]


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    os.environ["MELANOMA_CACHE_DIR"] = str(cache)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        os.environ.pop(name, None)
    return cache


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real image sets; the test is skipped without it."""
    folder = os.environ.get("MELANOMA_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MELANOMA_DATA does not point to a folder of real images")
    return Path(folder)


@pytest.fixture
def melanoma():
    """Run a command as a user would; returns the finished process."""
    return run_melanoma
