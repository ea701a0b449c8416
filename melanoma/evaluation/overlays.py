"""Figures of several runs on the same axes."""

import io
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from melanoma.evaluation.curve_plots import line_style
from melanoma.evaluation.curves import curve
from melanoma.evaluation.plots import GREY, escape_math
from melanoma.evaluation.predictions import Predictions
from melanoma.pages import image_url

__all__ = ["as_data_url", "learning_curves_of_runs", "roc_of_runs"]


def roc_of_runs(predictions: Mapping[str, Predictions]) -> Figure | None:
    """Plot the ROC curves of several runs, with one panel for each binary task.

    Args:
        predictions: Predictions of the same images by the name of the run, with the same binary tasks.

    Returns:
        The figure, or None if there is no binary task with both positives and negatives.
    """
    tasks = [task.name for task in next(iter(predictions.values())).binary if task.has_both]
    if not tasks:
        return None
    figure = Figure(figsize=(5.6 * len(tasks), 5.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for number, (run, own) in enumerate(predictions.items()):
            task = next(task for task in own.binary if task.name == name)
            found = curve(task.positive, task.scores)
            label = f"{escape_math([run])[0]}: AUC {float(found.auc()[0]):.3f}"
            axes.plot(found.fpr[0], found.tpr[0], label=label, **line_style(number))
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        _dress(axes, f"ROC: {escape_math([name])[0]}", "1 - specificity", "sensitivity")
    return figure


def learning_curves_of_runs(histories: Mapping[str, Sequence[tuple[int, float]]], metric: str) -> Figure | None:
    """Plot a metric by epoch for several runs.

    Args:
        histories: Epoch, from 0, and value of each measurement, by the name of the run.
        metric: Name of the metric, for the axis.

    Returns:
        The figure, or None if no run has a history.
    """
    if not any(histories.values()):
        return None
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for number, (run, history) in enumerate(histories.items()):
        epochs, values = [epoch + 1 for epoch, _ in history], [value for _, value in history]
        axes.plot(epochs, values, label=escape_math([run])[0], marker="o", markersize=3, **line_style(number))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    _dress(axes, "Learning curves", "epoch", metric)
    return figure


def as_data_url(figure: Figure) -> str:
    """Return a figure as the data URL of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return image_url(buffer.getvalue())


def _dress(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="best")
