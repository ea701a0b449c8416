"""`melanoma compare` on real runs."""

import re
from collections.abc import Callable
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from melanoma.cli import main
from melanoma.evaluation.metrics import measure
from melanoma.evaluation.paired import matched_predictions, predictions_in
from melanoma.tracking.records import RunRecord
from tests.commands import run_melanoma
from tests.integration.conftest import SMALL, client, copied_store, trained_here


@pytest.fixture(scope="module")
def compared(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """A store with two runs on one split and one on another; ids by name."""
    folder = tmp_path_factory.mktemp("compare")
    uri = copied_store(empty_store, folder)
    ids = {}
    varied = {
        "first": ["tracking.figures=true"],
        "second": ["tracking.figures=true", "augmentation=flip_rotate"],
        "other split": ["split.test=0.3"],
    }
    for name, extra in varied.items():
        words = [*SMALL, *extra, f"tracking.run_name={name}", f"tracking.uri={uri}"]
        ids[name] = trained_here(words, folder / name)
    return uri, ids


@pytest.fixture
def compare(compared, capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """`compare(...)` returns exit code, output and errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = 0
        try:
            main(["compare", *arguments, "--tracking-uri", compared[0]])
        except SystemExit as ended:
            code = int(ended.code)
        return (code, *capsys.readouterr())

    return call


def test_two_runs_are_put_side_by_side(compared, tmp_path: Path):
    uri, ids = compared
    done = run_melanoma(
        "compare", ids["first"], ids["second"], "--html", str(tmp_path / "page.html"), "--tracking-uri", uri
    )
    assert done.returncode == 0, done.stderr
    assert "test/accuracy" in done.stdout
    assert f"second ({ids['second'][:6]})" in done.stdout
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") >= 6
    assert "What the tests say" in page


def test_a_page_of_an_experiment_ranks_its_runs(compared, tmp_path: Path, run_here):
    uri, ids = compared
    file = tmp_path / "report.html"
    done = run_here("report", "melanoma", "--html", str(file), "--tracking-uri", uri)
    assert done.returncode == 0, done.stderr
    page = file.read_text()
    assert "3 runs: 3 finished." in page
    runs = [client(uri).get_run(run_id) for run_id in ids.values()]
    best = max(runs, key=lambda run: run.data.metrics["validation/auc"])
    assert f"Best: {best.info.run_name} ({best.info.run_id[:6]}), with the highest validation/auc" in page
    assert "validated on different images" in page  # the third is on another split
    places = [page.index(run.info.run_id[:6], page.index("Ranking by validation/auc")) for run in runs]
    values = [run.data.metrics["validation/auc"] for run in runs]
    assert [i for _, i in sorted(zip(places, range(3), strict=True))] == sorted(range(3), key=lambda i: -values[i])
    assert "<th>augmentation.name</th>" in page
    assert "<th>split.test</th>" in page
    assert page.count('alt="curves of all runs"') == 2  # ROC and learning curves
    assert "The best epoch was" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "melanoma"], "give the file of the page"),
        (
            ["report", "nowhere", "--html", "page.html"],
            "no such experiment in the tracking store, which has Default, melan",
        ),
        (["report", "Default", "--html", "page.html"], "no finished run with test results"),
        (["report", "melanoma", "--html", "/proc/nowhere/page.html"], "cannot be written"),
    ],
)
def test_a_page_that_cannot_be_made_is_one_message(compared, run_here, arguments: list[str], message: str):
    done = run_here(*arguments, "--tracking-uri", compared[0])
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_other_test_images_are_refused_unless_the_common_ones_are_asked_for(compared, compare):
    _, ids = compared
    code, _, err = compare(ids["first"], ids["other split"])
    assert code == 2
    assert "not evaluated on the same test images" in err
    code, out, err = compare(ids["first"], ids["other split"], "--common")
    assert code == 0, err
    assert "in common" in out
    assert "So are the metrics; the figures are those of each run's own images." in " ".join(out.split())
    tables = [RunRecord.read(ids[name]).predictions() for name in ("first", "other split")]
    (own, _), images, _ = matched_predictions(tables, "test", True)
    again = measure(predictions_in(own, ["benign", "malignant"], {}))["accuracy"]
    assert f"{images} test images" in out
    assert re.search(rf"test/accuracy +│ {again:.3f}", out)
    assert again != pytest.approx(RunRecord.read(ids["first"]).metrics["test/accuracy"], abs=5e-4)


def test_a_tracking_uri_that_was_given_is_in_the_commands_that_are_printed(compared, run_here):
    uri, _ = compared
    done = run_here("train", *SMALL, f"tracking.uri={uri}", "tracking.experiment=printed")
    assert done.returncode == 0, done.stderr
    command = re.search(r"\((melanoma predict .*)\)", done.stdout)[1]
    assert command.endswith(f"input=IMAGE tracking.uri={uri}")


def test_a_run_is_named_by_the_first_characters_of_its_id(compared, compare):
    _, ids = compared
    code, out, err = compare(ids["first"][:6], ids["second"][:8])
    assert code == 0, err
    assert f"second ({ids['second'][:6]})" in out
    code, _, err = compare(ids["first"][:5], ids["second"])
    assert code == 2
    assert "no such run" in err


def test_another_positive_class_is_named_and_the_metrics_are_of_one(compared, compare, tmp_path: Path):
    uri, ids = compared
    swapped = trained_here(
        [*SMALL, "data.positive=benign", "tracking.run_name=swapped", f"tracking.uri={uri}"], tmp_path
    )
    code, out, err = compare(ids["first"], swapped)
    assert code == 0, err
    assert f"swapped ({swapped[:6]}) had benign as the positive class; here it is malignant." in " ".join(out.split())
    client(uri).delete_run(swapped)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "at least two runs"),
        (["0" * 32, "1" * 32], "no such run"),
        (["--experiment", "nowhere"], "no such experiment"),
        (["--experiment", "melanoma", "--tag", "nonsense"], "KEY=VALUE"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_bad_input_is_one_message(compare, arguments: list[str], message: str):
    code, _, err = compare(*arguments)
    assert code == 2
    assert message in err


def test_runs_of_an_experiment_are_chosen_by_tag(compared, compare):
    uri, ids = compared
    code, _, err = compare("--experiment", "melanoma", "--tag", "mlflow.runName=first")
    assert code == 2
    assert f"A comparison needs at least two runs: give their ids, or --experiment. Received: {ids['first']}" in err
    split = client(uri).get_run(ids["first"]).data.tags["melanoma.split.hash"]
    code, out, err = compare("--experiment", "melanoma", "--tag", f"melanoma.split.hash={split}")
    assert code == 0, err
    assert f"second ({ids['second'][:6]})" in out
    assert "other split" not in out


def test_readers_beside_a_run(compared, run_here, tmp_path: Path):
    uri, ids = compared
    mlflow.set_tracking_uri(uri)
    tested = RunRecord.read(ids["other split"]).predictions("test")
    truth = tested.label == "malignant"
    rows = [
        (reader, path.rsplit("/", 1)[-1], int(call))
        for reader, calls in (("ann", truth), ("bob", ~truth), ("eve", truth | (truth.index % 3 == 0)))
        for path, call in zip(tested.path, calls, strict=True)
    ]
    pd.DataFrame(rows, columns=["reader", "image", "rating"]).to_csv(tmp_path / "readers.csv", index=False)
    words = ["readers", ids["other split"], str(tmp_path / "readers.csv"), "--tracking-uri", uri]
    done = run_here(*words, "--html", str(tmp_path / "readers.html"))
    assert done.returncode == 0, done.stderr
    assert "3 readers and other split" in done.stdout
    assert re.search(r"ann +│ \d+ +│ 1\.000", done.stdout)
    assert "fewer than 10 lesions" in done.stdout  # of this small test set
    page = (tmp_path / "readers.html").read_text()
    assert "data:image/png;base64," in page
    for change, message in (({"image": "none.jpg"}, "none.jpg"), ({"rating": "x"}, "Ratings are finite numbers")):
        table = pd.DataFrame(rows, columns=["reader", "image", "rating"]).astype(str)
        for column, value in change.items():
            table.loc[0, column] = value
        table.to_csv(tmp_path / "readers.csv", index=False)
        refused = run_here(*words)
        assert refused.returncode == 2
        assert message in refused.stderr
