"""Commands whose output nobody reads to its end."""

import os
import subprocess
from pathlib import Path

import pytest

from melanoma.cli import main
from tests.commands import COMMAND


def started_without_reader(*arguments: str, errors: bool = False, **environment: str) -> subprocess.CompletedProcess:
    """Run a command whose output goes to a pipe that nobody reads; and so may its errors."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [str(COMMAND), *arguments], stdout=writer, stderr=writer if errors else subprocess.PIPE,
            text=True, timeout=300, check=False, env={**os.environ, **environment},
        )  # fmt: skip
    finally:
        os.close(writer)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "--cfg", "job"]])
def test_a_reader_that_leaves_gets_no_traceback(arguments: list[str], unbuffered: str):
    done = started_without_reader(*arguments, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 141
    assert done.stderr == ""


def test_long_work_goes_on_when_its_reader_leaves(tmp_path: Path):
    done = started_without_reader("audit", "data.source.images=30", f"audit.output={tmp_path}", errors=True)
    assert done.returncode == 0
    assert (tmp_path / "audit.html").is_file()


def test_a_pipe_that_breaks_elsewhere_is_no_success(monkeypatch: pytest.MonkeyPatch):
    def broken(_arguments: list[str]) -> None:
        raise BrokenPipeError("of a worker")

    monkeypatch.setattr("melanoma.commands.cache.main", broken)
    with pytest.raises(BrokenPipeError, match="of a worker"):
        main(["cache"])
