"""Paths as users give them."""

from pathlib import Path

import pytest

from melanoma.paths import user_path
from melanoma.workflows.predict import matching_files


def test_a_tilde_is_home_or_a_part_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert user_path("~/scan.jpg") == tmp_path / "scan.jpg"
    assert user_path("~nobody-of-this-name.jpg") == Path("~nobody-of-this-name.jpg")
    Path("~nobody-of-this-name.jpg").touch()
    assert matching_files("~nobody-of-this-name.jpg") == [Path("~nobody-of-this-name.jpg")]
