"""Test sets wear out: looks are counted, later promotion attempts are judged more strictly, margins do not add up."""

from pathlib import Path

import mlflow
import pytest

from melanoma.config.command_schema import PromoteConfig, RollbackConfig
from melanoma.config.diagnose import diagnose
from melanoma.config.launch import typed
from melanoma.errors import PromotionRefused
from melanoma.registry.history import show_registry
from melanoma.registry.promote import promote
from melanoma.tracking.looks import attempt_level, looks_at
from melanoma.tracking.records import RunRecord
from melanoma.workflows.compare import CompareOptions, compare_runs
from tests.integration.conftest import SMALL, client, copied_store, trained_here

WORDS = (
    "registry.floors={test/auc: 0.01}", "registry.ceilings={test/ece: null}", "registry.subgroups.floor=null",
    "registry.smoke_test=false", "registry.champion.margin=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """Three runs that were tested on the same images."""
    folder = tmp_path_factory.mktemp("looks")
    uri = copied_store(empty_store, folder)
    words = [*SMALL, "data.source.images=160", "split.test=0.3", "evaluation.bootstrap=200", f"tracking.uri={uri}"]
    runs = [trained_here([*words, f"optimizer.learning_rate={rate}"], folder) for rate in ("1e-3", "2e-3", "5e-4")]
    return uri, runs


def promoted(uri: str, run: str, *words: str) -> None:
    config, faults = diagnose("promote", PromoteConfig, [f"tracking.uri={uri}", f"run={run}", *WORDS, *words])
    assert faults == []
    promote(typed(PromoteConfig, config), uri)


def test_each_look_is_counted_once_and_later_attempts_are_stricter(store, capsys: pytest.CaptureFixture):
    uri, (first, second, third) = store
    mlflow.set_tracking_uri(uri)
    digest = str(RunRecord.read(first).digest("test"))
    assert str(looks_at(digest)) == "3 runs, 0 comparisons, 0 promotion attempts"
    cards = [RunRecord.read(run).text("model_card.md") for run in (first, second)]
    assert "Look" not in cards[0]
    assert "Look 2 at these test images in this tracking store: 2 runs" in cards[1]
    compare_runs(CompareOptions([first, second], uri=uri))
    compare_runs(CompareOptions([first, second], part="validation", uri=uri))
    promoted(uri, first, "dry_run=true")
    promoted(uri, first)
    assert str(looks_at(digest)) == "3 runs, 1 comparison, 1 promotion attempt"
    stored = RunRecord.read(second).metrics
    capsys.readouterr()
    promoted(uri, second)
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "promotion attempt 2 on these test images, so that intervals are of 98.33% instead of 95%" in shown
    tag = client(uri).get_run(second).data.tags["melanoma.gate.test/auc"]
    low = float(tag.split("[")[1].split(",")[0])
    assert low < stored["test/auc_ci_low"] - 0.01
    with pytest.raises(PromotionRefused, match=r"against (champion 2|best champion so far, 1), auc"):
        promoted(uri, third, "registry.champion.margin=0.0001")
    capsys.readouterr()
    promoted(uri, first, "dry_run=true")  # again: it is still the first
    assert "promotion attempt" not in capsys.readouterr().out.replace("a promotion attempt on", "")
    show_registry(RollbackConfig(), uri)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Looks at the champion's test images: 3 runs, 1 comparison, 3 promotion attempts." in shown
    assert f"judged by {attempt_level(4):.2%} intervals" in shown
    client(uri).delete_run(third)
    assert looks_at(digest).runs == 3  # a deleted run has looked


def test_the_errors_of_all_attempts_add_up_to_five_percent():
    assert attempt_level(1) == pytest.approx(0.95)
    errors = [(1 - attempt_level(attempt)) / 2 for attempt in range(1, 10_000)]
    assert 0.0499 < sum(errors) < 0.05
