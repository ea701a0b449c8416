"""Trials on this machine: all of them end with the sweep."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from melanoma.config.command_schema import LauncherConfig
from melanoma.sweeps import launchers
from melanoma.sweeps.launchers import Job, Outcome, open_launcher

DEAF = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); print(1, flush=True); time.sleep(60)"


def job(folder: Path, code: str) -> Job:
    return Job([sys.executable, "-c", code], str(folder), {})


def test_a_trial_that_is_being_started_when_the_sweep_ends_is_ended_too(tmp_path: Path, monkeypatch):
    starts, began = [], threading.Event()
    popen = subprocess.Popen

    def slowly(*arguments, **named) -> subprocess.Popen:
        began.set()
        time.sleep(0.3)
        starts.append(popen(*arguments, **named))
        return starts[-1]

    monkeypatch.setattr(launchers.subprocess, "Popen", slowly)
    monkeypatch.setattr(launchers, "_GRACE", 0.5)  # it may take no notice
    outcomes: list[Outcome] = []
    with open_launcher(LauncherConfig(), tmp_path) as run:
        thread = threading.Thread(target=lambda: outcomes.append(run(job(tmp_path, DEAF))))
        thread.start()
        assert began.wait(10)
    thread.join(20)
    assert not thread.is_alive()
    assert [process.poll() is not None for process in starts] == [True]
    assert outcomes[0].code < 0
    late = run(job(tmp_path, "1"))
    assert (late.lost, len(starts)) == (True, 1)


@pytest.mark.parametrize(("code", "ended"), [("1", 0), ("raise SystemExit(3)", 3)])
def test_a_trial_is_known_by_its_exit_code(tmp_path: Path, code: str, ended: int):
    with open_launcher(LauncherConfig(), tmp_path) as run:
        assert run(job(tmp_path, code)).code == ended
