"""What tests of several modules share: an empty cache."""

from pathlib import Path
from typing import Any

import pytest

from melanoma.data.progress import SilentProgress


@pytest.fixture
def cache(tmp_path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


@pytest.fixture
def common(cache) -> dict[str, Any]:
    """The arguments that most functions of the package share."""
    return {"cache": cache, "progress": SilentProgress()}
