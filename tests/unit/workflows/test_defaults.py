"""Settings that depend on the images."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from melanoma.config.launch import composed
from melanoma.config.schema import DataConfig, TrainConfig, TrainingConfig
from melanoma.data.sources import Source
from melanoma.errors import ConfigError
from melanoma.workflows import defaults
from melanoma.workflows.defaults import announce, recorded, with_defaults

TWO = ["melanoma", "nevus"]
FOUR = ["bcc", "melanoma", "nevus", "scar"]


def filled(classes: list[str], **given) -> TrainConfig:
    return with_defaults(TrainConfig(**given), Source(Path(), pd.DataFrame(), classes))[0]


@pytest.mark.parametrize(
    ("classes", "protocol", "primary"),
    [
        (TWO, "clean", "auc"),
        (TWO, "both", "auc"),
        (FOUR, "clean", "balanced_accuracy"),
        (FOUR, "both", "balanced_accuracy"),
        (TWO, "published", "accuracy"),
        (FOUR, "published", "accuracy"),
    ],
)
def test_one_metric_selects_the_epoch_and_ranks_the_runs(classes: list[str], protocol: str, primary: str):
    found = filled(classes, protocol=protocol)
    assert (found.primary_metric, found.training.monitor) == (primary, f"val/{primary}")


def test_what_is_configured_wins():
    found = filled(FOUR, primary_metric="macro_f1", training=TrainingConfig(monitor="val/loss"))
    assert (found.primary_metric, found.training.monitor) == ("macro_f1", "val/loss")
    data = DataConfig(binary_tasks={"cancer": ["bcc", "melanoma"]})
    assert filled(FOUR, primary_metric="cancer/auc", data=data).training.monitor == "val/cancer/auc"
    assert filled(FOUR, data=replace(data, leave_out=["bcc", "scar"])).data.positive == "melanoma"


def test_an_unknown_metric_is_refused_with_those_that_are_like_it():
    with pytest.raises(ConfigError, match=r"Did you mean balanced_accuracy.*=balanced_acuracy"):
        filled(FOUR, primary_metric="balanced_acuracy")
    with pytest.raises(ConfigError, match=r"Received: primary_metric=support/melanoma"):
        filled(TWO, primary_metric="support/melanoma")  # a count
    with pytest.raises(ConfigError, match="without its part"):
        filled(TWO, primary_metric="validation/auc")


def test_the_logged_configuration_has_no_open_choices():
    resolved = {"seed": 0, "primary_metric": None, "data": {"name": "d", "positive": None}, "training": {"epochs": 2}}
    assert recorded(resolved, filled(TWO)) == {
        "seed": 0,
        "primary_metric": "auc",
        "data": {"name": "d", "positive": "melanoma"},
        "training": {"epochs": 2, "monitor": "val/auc"},
    }


def test_the_first_lines_tell_what_is_positive_and_what_is_best(monkeypatch: pytest.MonkeyPatch):
    lines: list[str] = []
    monkeypatch.setattr(defaults.log, "info", lambda text, *given: lines.append(text % given))
    announce(filled(TWO, primary_metric="log_loss"), {})
    announce(filled(FOUR, data=DataConfig(binary_tasks={"cancer": ["bcc", "melanoma"]})), {})
    assert [line.partition(" (")[0] for line in lines] == [
        "Positive class: melanoma", "Primary metric: log_loss, lowest is best",
        "Positive classes of each binary task: cancer: bcc, melanoma",
        "Primary metric: balanced_accuracy, highest is best",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "varied", "told"),
    [
        (["data.image_size=96"], [], "model=resnet_small_fast training.max_minutes=2 training.epochs=30"),
        (["experiment=isic9_m1", "data.path=x"], [], "data.image_size=64 training.max_minutes=2 training.epochs=30"),
        ([], ["model", "training.epochs"], "data.image_size=64 training.max_minutes=2"),
    ],
)
def test_a_preset_tells_the_keys_that_it_sets_but_not_those_that_others_changed(
    monkeypatch: pytest.MonkeyPatch, words: list[str], varied: list[str], told: str
):
    lines: list[str] = []
    monkeypatch.setattr(defaults.log, "info", lambda text, *given: lines.append(text % given))
    config, _ = composed("train", TrainConfig, ["preset=quick", *words])
    announce(filled(TWO, preset="quick"), OmegaConf.to_container(config), varied)
    assert lines[0] == f"preset=quick sets {told}"
    lines.clear()
    announce(filled(TWO, preset="my_own"), OmegaConf.to_container(config))
    assert not any(line.startswith("preset") for line in lines)
