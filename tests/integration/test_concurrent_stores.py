"""Processes that log at once lose nothing: into one SQLite file, and through a server with PostgreSQL behind it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import psycopg
import pytest

from melanoma.config.schema import TrackingConfig
from melanoma.tracking.run import tracked_run
from melanoma.tracking.store import tracking_uri
from tests.commands import forked, run_melanoma
from tests.integration.conftest import all_runs, client, free_port, mlflow_server
from tests.integration.test_sweep import TINY, family

PROCESSES, STEPS = 8, 60


def write(uri: str, number: int) -> None:
    """One run, in a process of its own."""
    tracking = TrackingConfig(experiment="many", system_metrics=False)
    with tracked_run(tracking_uri(uri), tracking, name=f"writer {number}", tags={"number": str(number)}) as run:
        run.log_params({f"parameter.{i}": i * number for i in range(40)})
        for step in range(STEPS):
            run.log_metrics({f"metric/{i}": number * 1000 + step for i in range(12)}, step=step)
            run.set_tags({"step": str(step)})
        run.log_text("whole", "note.txt")
        # The same for all, and new to the store.
        for part in ("training", "validation"):
            run.log_input(mlflow.data.from_pandas(pd.DataFrame({"x": [1, 2]}), name=part, digest="same"), part)


def write_at_once(uri: str) -> None:
    """Start all writers, and find all they wrote."""
    writers = [forked(write, uri, number) for number in range(PROCESSES)]
    for writer in writers:
        writer.join(300)
    assert [writer.exitcode for writer in writers] == [0] * PROCESSES
    store = client(uri)
    runs = all_runs(uri, "many")
    assert sorted(run.data.tags["number"] for run in runs) == [str(n) for n in range(PROCESSES)]
    for run in runs:
        number = int(run.data.tags["number"])
        assert run.info.status == "FINISHED"
        assert len(run.data.params) == 40
        assert {one.dataset.name for one in run.inputs.dataset_inputs} == {"training", "validation"}
        for i in (0, 11):
            history = store.get_metric_history(run.info.run_id, f"metric/{i}")
            assert sorted((m.step, m.value) for m in history) == [(s, number * 1000 + s) for s in range(STEPS)]


def postgresql_programs() -> Path | None:
    """Debian keeps them off the PATH."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return found[-1] if found and (found[-1] / "initdb").exists() else None


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a database of the tests' own."""
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    # It does not run as root, and its user must be able to enter the folders above.
    folder = Path(f"/tmp/melanoma-postgresql-{os.getpid()}")
    folder.mkdir()
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(folder, "postgres")
    port = free_port()

    def call(name: str, *arguments: str) -> None:
        done = subprocess.run(
            [*user, str(programs / name), *arguments], capture_output=True, text=True, cwd="/", check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout

    data, options = str(folder / "data"), f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}"
    call("initdb", "-D", data, "-U", "melanoma", "-A", "trust", "-E", "UTF8")
    try:
        call("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
        connection = psycopg.connect(host="127.0.0.1", port=port, user="melanoma", dbname="postgres")
        connection.autocommit = True
        for name in ("mlflow", "sweeps"):
            connection.cursor().execute(f"CREATE DATABASE {name}")
        connection.close()
        yield f"postgresql://melanoma@127.0.0.1:{port}"
    finally:
        subprocess.run([*user, str(programs / "pg_ctl"), "-D", data, "-m", "immediate", "stop"], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server(postgresql: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow server with that database behind it."""
    folder = tmp_path_factory.mktemp("server")
    options = ("--artifacts-destination", str(folder / "artifacts"), "--workers", "2")
    with mlflow_server(f"{postgresql}/mlflow", folder / "log", *options) as address:
        yield address


def test_eight_processes_write_into_one_sqlite_file(tmp_path: Path):
    write_at_once(f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}")


def test_eight_processes_write_through_a_server_with_postgresql(server: str):
    write_at_once(server)


@pytest.mark.slow
def test_a_sweep_on_a_server_with_postgresql(server: str, postgresql: str):
    done = run_melanoma(
        "sweep", *TINY, "seed=0,1", "launcher.workers=2", f"tracking.uri={server}", "tracking.experiment=melanoma",
        f"sweep.storage={postgresql}/sweeps", "sweep.name=shared",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    parent, trials = family(server)
    assert [run.info.status for run in (parent, *trials)] == ["FINISHED"] * 3
    again = run_melanoma(
        "sweep", *TINY, "seed=0,1", f"tracking.uri={server}", f"sweep.storage={postgresql}/sweeps",
        "sweep.resume=shared",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "starts" not in again.stderr
