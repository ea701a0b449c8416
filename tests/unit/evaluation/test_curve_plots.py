"""Figures of probabilities are drawn, say what they show, and stand odd input."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from melanoma.evaluation.curve_plots import (
    abstention_figure,
    decision_figure,
    net_benefit,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
    score_figure,
)
from melanoma.evaluation.evaluate import NO_INTERVALS, Evaluation, evaluate, predictions_of
from melanoma.evaluation.mistakes import mistakes_figure
from melanoma.evaluation.predictions import BinaryTask, Bootstrap
from melanoma.evaluation.uncertain import fit_abstention

NAMES = ["nevus", "melanoma $x_1", "basal cell carcinoma", "other"]


def evaluation(classes: int, absent: int | None = None, constant: bool = False) -> Evaluation:
    rng = np.random.default_rng(0)
    targets = np.array([c for c in range(classes) for _ in range(15) if c != absent])
    probabilities = np.full((len(targets), classes), 1 / classes)
    if not constant:
        probabilities = rng.dirichlet(np.ones(classes) / 2, len(targets))
    names = NAMES[:classes]
    rows = pd.DataFrame({"target": targets, "label": [names[t] for t in targets], "row": range(len(targets))})
    binary_tasks = {"malignant": names[1:3], "melanoma": names[1:2]} if classes > 2 else {}
    return evaluate("test", rows, predictions_of(rows, probabilities, names, binary_tasks), Bootstrap(20, 0.9))


def texts(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=60)
    assert np.asarray(Image.open(file).convert("L")).std() > 5
    return " | ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@pytest.mark.parametrize("case", [(2, None, False), (4, None, False), (4, 1, False), (3, None, True)])
def test_every_figure_is_drawn(case):
    measured = evaluation(*case)
    for figure in (
        roc_figure(measured),
        precision_recall_figure(measured),
        reliability_figure(measured),
        score_figure(measured),
        decision_figure(measured),
    ):
        assert figure is not None
        texts(figure)


def test_with_a_single_class_there_are_no_curves():
    measured = evaluation(2, absent=1)
    assert roc_figure(measured) is None
    assert precision_recall_figure(measured) is None
    assert decision_figure(measured) is None
    texts(reliability_figure(measured))
    texts(score_figure(measured))


@pytest.mark.filterwarnings("error")
def test_where_no_image_is_wrong_that_distribution_is_empty():
    assert "wrong (n=0)" in texts(score_figure(evaluation(2, absent=1, constant=True)))


def test_the_roc_figure_names_its_areas():
    measured = evaluation(4)
    found = texts(roc_figure(measured))
    assert f"AUC {measured.text_of('malignant/auc')}" in found
    assert f"nevus, {measured.metrics['auc/nevus']:.2f}" in found
    assert "Test: melanoma (n=15)" in found


@pytest.mark.parametrize("explained", [False, True])
def test_the_most_confident_mistakes_come_first(explained):
    measured = evaluation(4)
    asked, explanations = [], []

    def pixels(rows: pd.DataFrame) -> np.ndarray:
        asked.append(rows)
        return np.zeros((len(rows), 8, 8, 3), np.uint8)

    def explain(images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        explanations.append(classes)
        return np.ones((len(images), 2, 2), np.float32)

    figure = mistakes_figure(measured, pixels, explain if explained else None)
    assert figure is not None
    predicted, confidence = measured.probabilities.argmax(axis=1), measured.probabilities.max(axis=1)
    wrong = predicted != measured.rows.target
    assert list(confidence[asked[0].index]) == sorted(confidence[wrong], reverse=True)[:12]
    found = texts(figure)
    assert f"the most confident of {wrong.sum()} mistakes" in found
    assert ("Grad-CAM" in found) is explained
    if explained:
        np.testing.assert_array_equal(explanations[0], predicted[asked[0].index])


def test_without_mistakes_there_is_no_figure():
    measured = evaluation(2)
    right = np.eye(2)[measured.rows.target] * 0.8 + 0.1
    perfect = evaluate("test", measured.rows, predictions_of(measured.rows, right, NAMES[:2], {}), NO_INTERVALS)
    assert mistakes_figure(perfect, lambda rows: np.zeros((len(rows), 8, 8, 3), np.uint8)) is None


@pytest.mark.parametrize("constant", [False, True])
def test_abstention_shows_the_share_that_was_chosen(constant):
    measured = evaluation(4, constant=constant)
    chosen = fit_abstention(measured.probabilities, 0.2)
    found = texts(abstention_figure(measured, chosen))
    assert "Test: abstention" in found
    here = chosen.measured(measured.rows.target.to_numpy(), measured.probabilities)
    assert f"abstains on {here['share']:.0%}, accuracy {here['accuracy']:.3f}" in found


def test_the_net_benefit_is_that_of_its_definition():
    # Of 10 images, 4 positive; at 0.2, referred are 3 positives and 2 negatives: 3/10 - 2/10 * 0.2/0.8.
    positive = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], bool)
    scores = np.array([0.9, 0.5, 0.2, 0.1, 0.6, 0.3, 0.1, 0.1, 0.1, 0.0])
    task = BinaryTask("malignant", "", positive, scores)
    value, error = net_benefit(task, np.arange(10), 0.2)
    assert value == pytest.approx(0.25)
    assert 0.1 < error < 0.2
    everything, _ = net_benefit(task, np.arange(10), 0.0)
    assert everything == pytest.approx(0.4)  # the prevalence
