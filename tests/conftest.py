"""Shared fixtures: a cache and a tracking store of the tests' own, and the real images where they are."""

import ast
import gc
import os
from functools import cache
from pathlib import Path

import pytest

# Several processes share the cores, and the images are tiny: more threads in each only wait for each other.
for threads in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
    os.environ.setdefault(threads, "1")

from tests.commands import run_melanoma  # noqa: E402 - after the number of threads

ROOT = Path(__file__).resolve().parents[1]
# What takes seconds: TensorFlow and MLflow, other processes, and the search for near duplicates.
SLOW = {"tensorflow", "keras", "mlflow", "subprocess", "multiprocessing", "melanoma.auditing.near"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="only files that need nothing of what takes seconds")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if not config.getoption("--fast"):
        return None
    file = collection_path / "conftest.py" if collection_path.is_dir() else collection_path
    if not file.is_file() or file == Path(__file__) or not file.name.startswith(("test_", "conftest")):
        return None
    return bool(needed_by(file) & SLOW) or None


@cache
def needed_by(file: Path) -> frozenset[str]:
    """The packages, and modules of this repository, that a file imports at its top, by way of other files too."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
            if path.is_file() and path != file and path != Path(__file__):
                found |= needed_by(path)
                found.add(name)
            found.add(name.split(".")[0])
    return frozenset(found)


def pytest_collection_finish() -> None:
    """What is imported by now stays; the garbage collector need not look through it again and again: a tenth faster."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def _without_an_experiment_of_an_earlier_test():
    """`mlflow.set_experiment` passes the experiment on to all later processes by the environment."""
    yield
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    os.environ["MELANOMA_CACHE_DIR"] = str(cache)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # reports of tests are of no use to anyone
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


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test fails the run, unless it needs real images: what was not run proves nothing."""
    gc.freeze()  # else the interpreter looks through all of it before it ends
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("MELANOMA_SKIPS_FAIL"):
        return
    reasons = {str(report.longrepr[-1]) for report in reporter.stats.get("skipped", [])}
    if unexpected := [reason for reason in reasons if "MELANOMA_DATA" not in reason]:
        reporter.write_line(f"Tests were skipped, which fails this run: {'; '.join(unexpected)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
