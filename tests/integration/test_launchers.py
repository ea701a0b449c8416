"""Trials on engines made for many machines: a Ray cluster of two nodes, and SLURM's jobs run on this one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import Started, run_melanoma
from tests.integration.conftest import free_port
from tests.integration.test_sweep import TINY, family

RAY = str(Path(sys.executable).parent / "ray")
# Else the head may ask for a token that its neighbour does not have.
OPEN = {"RAY_AUTH_MODE": "disabled"}


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a cluster of two nodes with a core each, on loopback."""
    pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("ray")
    port = free_port()
    address = f"127.0.0.1:{port}"
    environment = {**os.environ, **OPEN, "RAY_TMPDIR": f"/tmp/ray-{os.getpid()}", "RAY_USAGE_STATS_ENABLED": "0"}
    common = ["--num-cpus=1", "--node-ip-address=127.0.0.1"]
    starts = (["--head", f"--port={port}", "--include-dashboard=false"], [f"--address={address}"])
    nodes = []
    try:
        for arguments in starts:
            log = (folder / f"node{len(nodes)}").open("w")
            nodes.append(
                subprocess.Popen(
                    [RAY, "start", *arguments, *common, "--block"], env=environment, stdout=log, stderr=log,
                    start_new_session=True,
                )
            )  # fmt: skip
            _wait_for("Ray runtime started", Path(log.name))
        yield address
    finally:
        for node in reversed(nodes):
            os.killpg(node.pid, signal.SIGTERM)
            try:
                node.wait(4)
            except subprocess.TimeoutExpired:
                os.killpg(node.pid, signal.SIGKILL)


def _wait_for(text: str, log: Path) -> None:
    for _ in range(240):
        if text in log.read_text():
            return
        time.sleep(0.5)
    pytest.fail(log.read_text()[-3000:])


def processes(word: str) -> list[int]:
    """Of all running processes those whose command line has a word in it."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in file.read_bytes():
                found.append(int(file.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_ray_worker_that_is_killed_loses_nothing(ray_cluster: str, tmp_path: Path, store: str):
    sweep = Started(
        "sweep", *TINY, "seed=0,1", "launcher=ray", f"launcher.address={ray_cluster}", f"tracking.uri={store}", **OPEN
    )
    # Both at once: each of the two nodes has one core.
    sweep.until(lambda: len(processes("ray::run_process")) == 2 and len(processes(str(tmp_path))) >= 2)
    os.kill(processes("ray::run_process")[0], signal.SIGKILL)
    assert sweep.wait(300) == 0, sweep.err
    assert "another one goes on with it" in sweep.err
    _, runs = family(store)
    ended = [(run.data.tags["melanoma.overrides"], run.info.status) for run in runs]
    assert sorted(ended) == [("seed=0", "FINISHED"), ("seed=1", "FINISHED")]


def test_slurm_jobs_are_submitted(store: str):
    """By submitit's own executor for one machine, which takes the place of SLURM."""
    pytest.importorskip("submitit")
    done = run_melanoma(
        "sweep", *TINY, "optimizer.learning_rate=1e-3,1e30", "launcher=slurm", "launcher.cluster=local",
        "launcher.workers=2", "launcher.cpus=1", f"tracking.uri={store}",
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    _, runs = family(store)
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["launcher=ray", "launcher.address=127.0.0.1:1"], "The Ray cluster cannot be reached"),
        (["launcher=slurm"], "SLURM is not on this machine"),
    ],
)
def test_a_launcher_that_is_not_there_is_said_before_anything_trains(arguments: list[str], said: str, tmp_path: Path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    done = run_melanoma("sweep", *TINY, "seed=0,1", *arguments, f"tracking.uri={uri}", PATH="/usr/bin:/bin")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "mlflow.db").exists()
