"""Trials on this machine: all of them end with the sweep."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from melanoma.config.command_schema import LauncherConfig
from melanoma.sweeps import launchers, processes
from melanoma.sweeps.launchers import Job, Outcome, open_launcher
from melanoma.sweeps.processes import TrialStarter

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

    monkeypatch.setattr(processes.subprocess, "Popen", slowly)
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


COMMAND = [sys.executable, "-m", "melanoma"]


def test_commands_are_forked_and_end_with_their_own_codes_and_messages(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MELANOMA_CACHE_DIR", "of the sweep")
    cache = {"MELANOMA_CACHE_DIR": str(tmp_path / "cache")}
    with open_launcher(LauncherConfig(), tmp_path) as run:
        listed = run(Job([*COMMAND, "cache", "list"], str(tmp_path), cache))
        refused = run(Job([*COMMAND, "train", "seed=-1"], str(tmp_path), cache))
    assert (listed.code, listed.lost, listed.output) == (0, False, "")
    assert (tmp_path / "cache").is_dir()  # the environment and the folder are the trial's
    assert refused.code == 2
    assert refused.message.startswith("seed must be")
    assert refused.output == f"melanoma: {refused.message}\n"


def test_if_the_server_of_trials_is_killed_its_trials_are_lost_and_the_next_starts_anew(tmp_path: Path):
    files = [tmp_path / name for name in ("failure", "errors")]
    train = ["train", "data.source.images=60", "training.epochs=1000", f"tracking.uri=sqlite:///{tmp_path}/m.db"]
    starter = TrialStarter(1)
    try:
        trial = starter.start(Job([*COMMAND, *train], str(tmp_path), {}), *files)
        assert trial.poll() is None
        starter._server.close()
        assert trial.wait(20) == -signal.SIGKILL
        assert trial.lost  # so that it is retried
        for _ in range(100):
            status = Path(f"/proc/{trial.pid}/status")
            if not status.exists() or "zombie" in status.read_text():
                break
            time.sleep(0.1)
        else:
            pytest.fail("The trial has outlived its server.")
        listed = Job([*COMMAND, "cache", "list"], str(tmp_path), {"MELANOMA_CACHE_DIR": str(tmp_path / "cache")})
        with pytest.raises(OSError, match="has ended"):
            starter._server.start(listed, *files)
        assert starter.start(listed, *files).wait(60) == 0
    finally:
        starter.close()
