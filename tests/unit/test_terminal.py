"""What the terminal shows while a command works."""

import io
import os
import subprocess
import sys
import time

import pytest
from rich.console import Console

from melanoma import terminal
from melanoma.cli import main
from melanoma.terminal import stage


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_PATIENCE", 0.05)


@pytest.mark.usefixtures("patience")
def test_a_long_stage_is_named_and_a_short_one_is_not(capsys: pytest.CaptureFixture):
    with stage("Long"):
        time.sleep(0.2)
    with stage("Short"):
        pass
    time.sleep(0.1)
    assert capsys.readouterr().err == "Long ...\n"


def test_a_terminal_shows_one_status_line(monkeypatch: pytest.MonkeyPatch):
    drawn = io.StringIO()
    screen = Console(file=drawn, force_terminal=True, _environ={"TERM": "xterm"})
    monkeypatch.setattr(terminal, "console", lambda: screen)
    with stage("Outer"), stage("Inner"):
        assert terminal._stages == ["Outer", "Inner"]
        assert len(terminal._status) == 1
        terminal._status[0]._live.refresh()
    assert terminal._stages == terminal._status == []
    assert "Inner" in drawn.getvalue()


SCRIPT = """
import os, time
from melanoma import terminal
from melanoma.cli import main
terminal._PATIENCE = 0.05
with terminal.quiet_native_imports():
    os.write(2, b"noise of a library\\n")
    time.sleep(0.3)
os.write(2, b"an error\\n")
"""


def test_libraries_are_quiet_while_they_are_imported_and_the_stage_is_not():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.stderr == "Loading TensorFlow and MLflow ...\nan error\n"


def test_importing_the_package_imports_nothing_else():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, melanoma; print([m for m in sys.modules if m.startswith('melanoma.')])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_windows_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(SystemExit) as ended:
        main(["train"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "melanoma: melanoma runs on Linux and macOS. On Windows, install it in WSL 2 (wsl --install). Received: win32\n"
    )
