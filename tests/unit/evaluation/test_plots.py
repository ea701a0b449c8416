"""Figures can be drawn and saved for few and many classes, long names and classes without images."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from melanoma.evaluation.evaluate import NO_INTERVALS, Evaluation, evaluate, predictions_of
from melanoma.evaluation.plots import class_distribution, confusion_figure, image_grid, training_curves

CLASSES = {
    2: ["benign", "malignant"],
    9: [f"pigmented benign keratosis with a very long name, number {c}" for c in range(9)],
}


def drawn(figure: Figure) -> np.ndarray:
    """Pixels of the figure as PNG."""
    assert isinstance(figure, Figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    assert file.tell() > 5_000
    pixels = np.asarray(Image.open(file).convert("RGB"))
    assert min(pixels.shape[:2]) > 100
    return pixels


def texts(figure: Figure) -> list[str]:
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def evaluation(classes: int, empty: int | None = None) -> Evaluation:
    rng = np.random.default_rng(0)
    targets = np.array([c for c in range(classes) for _ in range(12 + c) if c != empty])
    probabilities = rng.dirichlet(np.ones(classes), len(targets))
    rows = pd.DataFrame({"target": targets})
    return evaluate("test", rows, predictions_of(rows, probabilities, CLASSES[classes], {}), NO_INTERVALS)


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize(("classes", "empty"), [(2, None), (9, None), (9, 4)])
def test_confusion_figure(classes, empty, shares):
    measured = evaluation(classes, empty)
    figure = confusion_figure(measured, shares=shares)
    drawn(figure)
    found = texts(figure)
    for c, name in enumerate(CLASSES[classes]):
        count = 0 if c == empty else 12 + c
        assert f"{name}  (n={count})" in found
        assert name in found
    cell = measured.confusion[0, 0]
    assert (f"{cell / 12:.2f}" if shares else str(cell)) in found
    assert f"Test: accuracy {measured.metrics['accuracy']:.1%}" in " ".join(found)


@pytest.mark.parametrize(("epochs", "chosen"), [(1, 0), (12, 7)])
def test_training_curves(epochs, chosen):
    history = [
        {"train/loss": 1 / (e + 1), "train/accuracy": 0.5, "val/loss": 0.7, "val/accuracy": 0.6, "val/auc": np.nan,
         "learning_rate": 0.1} for e in range(epochs)
    ]  # fmt: skip
    figure = training_curves(history, chosen)
    drawn(figure)
    assert f"epoch kept ({chosen + 1})" in texts(figure)
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == list(range(1, epochs + 1))
    assert line.get_ydata().tolist() == [1 / (e + 1) for e in range(epochs)]


def divided(names: list[str], empty: int | None) -> pd.DataFrame:
    """20 and more training images a class, of which 5 are augmented, and 3 to validate; none of the class `empty`."""
    rows = [
        (name, part, parent)
        for c, name in enumerate(names)
        if c != empty
        for part, parent in [("train", "")] * (20 + c) + [("train", "1.jpg")] * 5 + [("validation", "")] * 3
    ]
    return pd.DataFrame(rows, columns=["label", "part", "parent"])


@pytest.mark.parametrize(("classes", "empty"), [(2, None), (9, None), (9, 4)])
def test_class_distribution(classes, empty):
    names = CLASSES[classes]
    figure = class_distribution(divided(names, empty), names)
    drawn(figure)
    found = texts(figure)
    total = classes - (empty is not None)
    assert f"augmented ({5 * total})" in found
    assert f"validation ({3 * total})" in found
    assert not [text for text in found if text.startswith(("test", "removed", "repeated"))]
    for c, name in enumerate(names):
        assert name in found
        assert f" {0 if c == empty else 23 + c}" in found
        assert f" {0 if c == empty else 25 + c}" in found


def test_class_distribution_shows_what_was_removed():
    figure = class_distribution(divided(CLASSES[2], None), CLASSES[2], removed=["malignant"] * 7)
    drawn(figure)
    assert {"removed (7)", " 23", " 31"} <= set(texts(figure))


@pytest.mark.parametrize(
    ("balance", "told"),
    [
        ("none", "what an epoch trains on (balance=none)"),
        ("class_weight", "what an epoch trains on (balance=class_weight, each class weighted to the same total)"),
        ("oversample", "repeated (1)"),
    ],
)
def test_class_distribution_tells_how_classes_are_balanced(balance, told):
    figure = class_distribution(divided(CLASSES[2], None), CLASSES[2], balance=balance)
    drawn(figure)
    assert told in texts(figure)


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (9, 5)])
def test_image_grid(rows, columns):
    images = np.random.default_rng(0).integers(0, 256, (rows * columns, 16, 16, 3), dtype=np.uint8)
    titles = CLASSES[9][:rows]
    figure = image_grid(images, titles, columns, title="Training images", first_title="as delivered")
    drawn(figure)
    assert {*titles, "Training images", "as delivered"} <= set(texts(figure))
    picture = np.asarray(figure.axes[0].images[0].get_array())
    down, across = ((picture.shape[axis] - 16) // (count - 1) for axis, count in ((0, rows), (1, columns)))
    for position, image in enumerate(images):
        top, left = position // columns * down, position % columns * across
        np.testing.assert_array_equal(picture[top : top + 16, left : left + 16], image)


def test_a_figure_shows_what_it_is_given():
    figures = [confusion_figure(evaluation(2), shares=shares) for shares in (False, True)]
    assert not np.array_equal(*map(drawn, figures))
