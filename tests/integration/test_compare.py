"""`melanoma compare` on real runs."""

from pathlib import Path

import pytest

from tests.conftest import run_melanoma
from tests.integration.conftest import SMALL, all_runs


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """A store with two runs on one split and one on another; ids by name."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('compare') / 'mlflow.db'}"
    wanted = {"first": [], "second": ["augmentation=flip_rotate"], "other split": ["split.test=0.3"]}
    for name, extra in wanted.items():
        done = run_melanoma("train", *SMALL, *extra, f"tracking.run_name={name}", f"tracking.uri={uri}")
        assert done.returncode == 0, done.stderr
    return uri, {run.info.run_name: run.info.run_id for run in all_runs(uri)}


def compare(uri: str, *arguments: str):
    return run_melanoma("compare", *arguments, "--tracking-uri", uri)


def test_two_runs_are_put_side_by_side(compared, tmp_path: Path):
    uri, ids = compared
    done = compare(uri, ids["first"], ids["second"], "--html", str(tmp_path / "page.html"))
    assert done.returncode == 0, done.stderr
    assert "test/accuracy" in done.stdout
    assert f"second ({ids['second'][:6]})" in done.stdout
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") >= 6
    assert "What the tests say" in page


def test_other_test_images_are_refused_unless_the_common_ones_are_asked_for(compared):
    uri, ids = compared
    done = compare(uri, ids["first"], ids["other split"])
    assert done.returncode == 2
    assert "not evaluated on the same test images" in done.stderr
    done = compare(uri, ids["first"], ids["other split"], "--common")
    assert done.returncode == 0, done.stderr
    assert "in common" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Two runs or more"),
        (["0" * 32, "1" * 32], "no such run"),
        (["--experiment", "nowhere"], "no such experiment"),
        (["--experiment", "melanoma", "--tag", "nonsense"], "KEY=VALUE"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_bad_input_is_one_message(compared, arguments: list[str], message: str):
    done = compare(compared[0], *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_runs_of_an_experiment_are_chosen_by_tag(compared):
    done = compare(compared[0], "--experiment", "melanoma", "--tag", "mlflow.runName=first")
    assert done.returncode == 2
    assert "Received:" in done.stderr
    done = compare(compared[0], "--experiment", "melanoma", "--tag", "melanoma.protocol=clean", "--common")
    assert done.returncode == 0, done.stderr
