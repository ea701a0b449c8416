"""Shared fixtures: a cache and a tracking store of the tests' own, and the real images where they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).parent / "melanoma"


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


def run_melanoma(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(COMMAND), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=600,
        check=False,
    )
