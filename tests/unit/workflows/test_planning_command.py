"""`melanoma plan` on drawn lesions."""

from pathlib import Path

import pytest

from melanoma.config.command_schema import PlanConfig
from melanoma.config.diagnose import diagnose
from melanoma.config.launch import register_resolvers
from melanoma.workflows.plan import plan


def planned(folder: Path, *words: str) -> None:
    register_resolvers()
    config, faults = diagnose("plan", PlanConfig, ["data.image_size=32", "data.source.size=48", *words])
    assert faults == []
    plan(config, list(words), folder)


def rows(text: str, start: str) -> list[str]:
    """The cells of the table rows that start with a text."""
    lines = [line.strip("│ ").split("│") for line in text.splitlines() if line.startswith(f"│ {start}")]
    return [cell.strip() for line in lines for cell in line]


def test_two_classes(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture):
    planned(tmp_path, "data.source.images=200", "split.test=0.25", "expect.auc=0.9", "expect.difference=0.09")
    shown = capsys.readouterr().out
    assert rows(shown, "benign")[-1].startswith("25 (")
    assert rows(shown, "test/auc >= 0.7")[1] == "0.900"
    assert int(rows(shown, "test/auc >= 0.7")[2].rstrip("%")) > 50
    assert "positive" in rows(shown, "a difference of 0.09 is found")[2]
    assert "Difference that is found in 80%" in shown


def test_several_classes_and_a_floor_that_cannot_be_reached(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture):
    planned(
        tmp_path, "data.classes=3", "data.source.images=120", "split=kfold", "split.folds=3",
        "++registry.floors={test/balanced_accuracy: 0.8, test/mcc: 0.5}",
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert "test (each image once)" in shown
    assert rows(shown, "test/balanced_accuracy >= 0.8")[2:] == ["0%", "none: it is not above the floor"]
    assert rows(shown, "test/mcc >= 0.5")[2] == "not simulated"


def test_too_few_images(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture):
    planned(tmp_path, "data.source.images=40", "registry.champion.rule=none", "expect.difference=0.14")
    shown = capsys.readouterr().out
    assert rows(shown, "test/auc ")[2] == "no interval: fewer than 10"
    assert rows(shown, "test/auc >= 0.7")[2] == "0%"
    assert "there are too few images" in shown
