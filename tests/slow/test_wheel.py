"""An installed wheel works in an empty folder, without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "data.source.images=60", "data.source.size=48", "data.image_size=48", "training.epochs=1",
    "evaluation.bootstrap=20", "tracking.system_metrics=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of a wheel that was built from the source distribution, as pip would put it into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (source,) = folder.glob("*.tar.gz")
    subprocess.run(["tar", "xzf", source.name], cwd=folder, check=True)
    unpacked = folder / source.name.removesuffix(".tar.gz")
    subprocess.run([*build, "-t", "wheel"], cwd=unpacked, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site-packages")
    return folder / "site-packages"


def test_train_sweep_and_report_in_an_empty_folder(installed: Path, tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    environment.pop("MLFLOW_TRACKING_URI", None)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "melanoma", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import melanoma; print(melanoma.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(installed))
    assert "Result" in run("train", "model=m1", *SMALL)
    assert "Trials, the best first" in run("sweep", "model=m1,tf_tutorial", *SMALL)
    run("report", "melanoma", "--html", "report.html")
    assert "Ranking by validation/auc" in (tmp_path / "report.html").read_text()
    assert {path.name for path in tmp_path.iterdir()} >= {"mlflow.db", "mlartifacts", "outputs", "report.html"}
