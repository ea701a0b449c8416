"""Figures, made for reading: one style, colour-blind safe (Okabe & Ito 2008)."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from melanoma.evaluation.evaluate import Evaluation, normalized

__all__ = ["class_distribution", "confusion_figure", "image_grid", "training_curves"]

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#666666"
PART_COLOURS = {"train": BLUE, "augmented": "#56B4E9", "validation": ORANGE, "test": GREEN}


def confusion_figure(evaluation: Evaluation, *, shares: bool) -> Figure:
    """The confusion matrix of one part, as counts or as shares of the true class."""
    counts, classes = evaluation.confusion, evaluation.classes
    rates = normalized(counts)
    side = 2.6 + 0.62 * len(classes)
    figure = Figure(figsize=(side + 1.6, side + 0.6), layout="constrained")
    axes = figure.subplots()
    # Coloured by share in both, so that a large class does not make the others invisible.
    picture = axes.imshow(rates, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(counts.shape):
        text = f"{rates[i, j]:.2f}" if shares else str(counts[i, j])
        if counts[i, j] or i == j:
            axes.text(j, i, text, ha="center", va="center", color="white" if rates[i, j] > 0.55 else "black")
    ticks = np.arange(len(classes))
    support = counts.sum(axis=1)
    axes.set_xticks(ticks, _plain(classes), rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, [f"{c}  (n={n})" for c, n in zip(_plain(classes), support, strict=True)])
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    accuracy, balanced = evaluation.metrics["accuracy"], evaluation.metrics["balanced_accuracy"]
    axes.set_title(f"{evaluation.part.capitalize()}: accuracy {accuracy:.1%}, balanced {balanced:.1%}", fontsize=11)
    figure.colorbar(picture, ax=axes, shrink=0.8, label="share of the true class")
    return figure


def training_curves(history: Sequence[dict[str, float]], chosen: int) -> Figure:
    """Loss, accuracy, validation AUC and learning rate by epoch, with the epoch whose weights were kept."""
    table = pd.DataFrame(history)
    epochs = np.arange(1, len(table) + 1)
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    panels = [
        ("loss", [("train/loss", "training", BLUE), ("val/loss", "validation", ORANGE)]),
        ("accuracy", [("train/accuracy", "training", BLUE), ("val/accuracy", "validation", ORANGE)]),
        ("validation AUC", [("val/auc", "validation", ORANGE)]),
        ("learning rate", [("learning_rate", "learning rate", GREY)]),
    ]
    for axes, (title, lines) in zip(figure.subplots(2, 2, sharex=True).flat, panels, strict=True):
        for name, label, colour in lines:
            axes.plot(epochs, table[name], color=colour, label=label, marker="o", markersize=3)
        axes.axvline(chosen + 1, color=GREEN, linestyle="--", linewidth=1, label=f"epoch kept ({chosen + 1})")
        axes.set_title(title, fontsize=11)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.axes[0].legend(frameon=False, fontsize=9)
    for axes in figure.axes[2:]:
        axes.set_xlabel("epoch")
    return figure


def class_distribution(table: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Images a class in each part, with those that augmentation added told apart."""
    kind = table.part.where(table.parent == "", "augmented")
    counts = pd.crosstab(table.label, kind).reindex(index=classes, columns=list(PART_COLOURS), fill_value=0)
    counts = counts.loc[:, counts.sum() > 0]
    figure = Figure(figsize=(9, 1.8 + 0.45 * len(classes)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(counts))
    for name in counts:
        total = int(counts[name].sum())
        axes.barh(_plain(counts.index), counts[name], left=left, color=PART_COLOURS[name], label=f"{name} ({total:,})")
        left += counts[name].to_numpy()
    for position, end in enumerate(left):
        axes.text(end, position, f" {int(end):,}", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.set_xlabel("images")
    axes.legend(frameon=False, fontsize=9, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def image_grid(
    images: NDArray[np.uint8], row_titles: Sequence[str], columns: int, *, title: str = "", first_title: str = ""
) -> Figure:
    """Images in rows, each row with its title at the left.

    Args:
        images: shape (len(row_titles) * columns, height, width, 3), 0 to 255.
        row_titles: one a row.
        columns: images a row.
        title: of the whole.
        first_title: over the first column, where it is of another kind than the rest.
    """
    # One picture rather than one axes an image, which takes matplotlib seconds to lay out.
    side, gap = images.shape[1], max(images.shape[1] // 16, 1)
    rows, step = len(row_titles), side + gap
    canvas = np.full((rows * step - gap, columns * step - gap, 3), 255, np.uint8)
    for position, image in enumerate(images):
        top, left = position // columns * step, position % columns * step
        canvas[top : top + side, left : left + side] = image
    figure = Figure(figsize=(1.9 + 1.25 * columns, 0.5 + 1.25 * rows), layout="constrained")
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="none")
    axes.set_xticks([])
    axes.set_yticks(np.arange(rows) * step + side / 2, _plain(row_titles), fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if first_title:
        axes.text(side / 2, -gap, first_title, ha="center", va="bottom", fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _plain(names: Iterable[str]) -> list[str]:
    """Names in which matplotlib sees no formula."""
    return [str(name).replace("$", r"\$") for name in names]
