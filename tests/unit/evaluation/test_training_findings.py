"""What a result says about the training."""

from dataclasses import replace

import numpy as np
import pytest

from melanoma.evaluation.findings import Gap, Trained, findings, generalization_gap
from melanoma.evaluation.predictions import Bootstrap, Predictions

CLASSES = ["nevus", "melanoma"]
TRAINED = Trained(
    images={"nevus": 100, "melanoma": 100}, epochs=10, best=6, longer="epochs=20",
    augmentation="none", balance="none", calibration="none",
)  # fmt: skip
NO_GAP = Gap("auc", 0.8, 0.79, -0.02, 0.05)


def predictions(separation: float, images: int = 400, seed: int = 0) -> Predictions:
    """Calibrated scores of two normal distributions, whose distance is `separation` standard deviations."""
    rng = np.random.default_rng(seed)
    targets = np.arange(images) % 2
    score = rng.normal(separation * targets, 1)
    positive = 1 / (1 + np.exp(-separation * (score - separation / 2)))
    return Predictions(targets, np.stack([1 - positive, positive], axis=1), CLASSES)


def found(validation: Predictions | None = None, gap: Gap | None = NO_GAP, **changes) -> list[str]:
    return findings(replace(TRAINED, **changes), predictions(1.5) if validation is None else validation, gap)


def test_a_sound_training_has_one_finding():
    [only] = found()
    assert only.startswith(
        "No overfitting was shown: auc is 0.800 on training images and 0.790 on validation images, a gap of +0.010 "
        "[-0.020, +0.050]."
    )


def test_a_wide_interval_tells_nothing():
    [only] = found(gap=Gap("auc", 0.62, 0.4, -0.43, 0.72))
    assert only.startswith("Overfitting was neither shown nor ruled out: auc is 0.620 on training images")
    assert only.endswith("More validation images would tell.")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"best": 10}, "The best epoch was the last of 10, so that training may not be complete. Try epochs=20."),
        (
            {"best": 10, "longer": "training.max_minutes=1"},
            "The best epoch was the last of 10, so that training may not be complete. Try training.max_minutes=1.",
        ),
        (
            {"images": {"nevus": 20, "scar": 20, "other nevi": 1}},
            "Only 1 training image of other nevi. Try 'data.leave_out=[other nevi]', or add images.",
        ),
        ({"images": {"nevus": 100, "melanoma": 9}}, "Only 9 training images of melanoma. Add images."),
        (
            {"images": {"nevus": 600, "melanoma": 100}},
            "nevus has 86% of the training images, 6 times as many as melanoma. Try balance=class_weight.",
        ),
        (
            {"images": {"nevus": 60, "melanoma": 26, "scar": 24}},
            "nevus has 55% of the training images, 2 times as many as scar. Try balance=class_weight.",
        ),
    ],
)
def test_what_to_try_next_is_a_key_to_type(changes: dict, sentence: str):
    assert [line for line in found(**changes) if "overfitting" not in line] == [sentence]


def test_the_last_epoch_is_no_finding_if_it_is_kept_in_any_case_or_early_stopping_chose_it():
    assert len(found(best=None)) == len(found(best=10, stopped_early=True)) == 1


def test_only_what_is_not_set_yet_is_suggested():
    gap = replace(NO_GAP, low=0.06)
    assert found(gap=gap)[0].endswith(
        "Try augmentation=dermoscopy or training.early_stopping.patience=5 or more images."
    )
    assert found(gap=gap, augmentation="dermoscopy", patience=3)[0].endswith("Try more images.")
    perfect = Gap("auc", 1.0, 1.0, -0.0, 0.0)
    assert found(gap=perfect)[0].endswith("a gap of +0.000 [+0.000, +0.000].")


def test_a_rebalanced_training_is_not_told_to_rebalance():
    assert len(found(images={"nevus": 600, "melanoma": 100}, balance="class_weight")) == 1


def test_a_model_that_predicts_one_class_is_named():
    constant = replace(predictions(1.5), probabilities=np.tile([0.6, 0.4], (400, 1)))
    assert found(constant)[0] == "All validation images are predicted as nevus. Train longer (epochs=20)."
    unequal = found(constant, images={"nevus": 200, "melanoma": 100})
    assert unequal[0].endswith("Train longer (epochs=20), or weight the classes (balance=class_weight).")
    again = found(constant, images={"nevus": 200, "melanoma": 100}, balance="class_weight")
    assert again[0].endswith("Train longer (epochs=20).")


def test_uncalibrated_probabilities_are_named_unless_they_are_calibrated():
    sure = predictions(1.0)
    sharp = np.where(sure.probabilities > 0.5, 0.99, 0.01)
    assert "evaluation.calibration=temperature" in found(replace(sure, probabilities=sharp))[-1]
    assert len(found(replace(sure, probabilities=sharp), calibration="temperature")) == 1


@pytest.mark.parametrize(("low", "start"), [(0.06, "Overfitting: "), (0.01, "Slight overfitting: ")])
def test_a_gap_is_overfitting_only_if_its_interval_says_so(low: float, start: str):
    assert found(gap=replace(NO_GAP, low=low))[0].startswith(start)


def test_the_gap_of_an_error_is_positive_if_training_is_better():
    assert Gap("log_loss", 0.2, 0.5, 0.2, 0.4).value == pytest.approx(0.3)
    assert Gap("auc", 0.9, 0.8, 0.0, 0.2).value == pytest.approx(0.1)


@pytest.mark.parametrize("metric", ["auc", "balanced_accuracy"])
def test_the_interval_of_the_gap_covers_no_gap_where_there_is_none(metric: str):
    covered, trials = 0, 40
    for seed in range(trials):
        pair = predictions(1.5, 200, 2 * seed), predictions(1.5, 200, 2 * seed + 1)
        gap = generalization_gap(*pair, metric, Bootstrap(200, 0.95, seed))
        covered += gap.low <= 0 <= gap.high
    assert covered / trials > 0.84  # 95% less three standard errors


def test_a_real_gap_is_found():
    gap = generalization_gap(predictions(3), predictions(1.5, seed=1), "auc", Bootstrap(200))
    assert gap.low > 0.05
    assert gap.low < gap.value < gap.high


def test_few_images_tell_nothing_of_the_gap():
    for sizes in ((9, 400), (400, 9)):
        gap = generalization_gap(predictions(3, sizes[0]), predictions(1.5, sizes[1]), "auc", Bootstrap(200))
        assert gap.value == gap.training - gap.validation
        assert np.isnan([gap.low, gap.high]).all()
        assert not any("verfitting" in line for line in findings(TRAINED, predictions(1.5), gap))


def test_without_a_defined_metric_there_is_no_gap():
    one_class = replace(predictions(1.5), targets=np.zeros(400, int))
    assert generalization_gap(predictions(3), one_class, "auc", Bootstrap(200)) is None
