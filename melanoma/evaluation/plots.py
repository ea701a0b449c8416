"""Figures in one style, with a palette for colour-blind readers (Okabe & Ito 2008)."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from melanoma.auditing.findings import Audit
from melanoma.data.decode import decode
from melanoma.evaluation.evaluate import Evaluation, normalized
from melanoma.evaluation.seeds import OverSeeds
from melanoma.evaluation.subgroups import Subgroup

__all__ = [
    "class_distribution",
    "cluster_figure",
    "confusion_figure",
    "escape_math",
    "image_grid",
    "range_test_figure",
    "seeds_figure",
    "subgroup_figure",
    "training_curves",
]

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#666666"
LIGHT_BLUE, LIGHT_GREY = "#56B4E9", "#BBBBBB"
PART_COLOURS = {
    "train": BLUE, "augmented": LIGHT_BLUE, "repeated": LIGHT_BLUE, "validation": ORANGE, "test": GREEN,
    "removed": LIGHT_GREY,
}  # fmt: skip
_KINDS = ["train", "augmented", "validation", "test"]
_EVERY_CELL = 3  # classes up to which cells without images show a zero


def confusion_figure(evaluation: Evaluation, *, shares: bool) -> Figure:
    """Plot the confusion matrix of one part, as counts or as shares of the true class."""
    counts, classes = evaluation.confusion, evaluation.classes
    rates = normalized(counts)
    side = 2.6 + 0.62 * len(classes)
    figure = Figure(figsize=(side + 1.6, side + 0.6), layout="constrained")
    axes = figure.subplots()
    # The colour always shows the share, so that small classes remain visible beside a large one.
    picture = axes.imshow(rates, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(counts.shape):
        text = f"{rates[i, j]:.2f}" if shares else str(counts[i, j])
        if counts[i, j] or i == j or len(classes) <= _EVERY_CELL:
            axes.text(j, i, text, ha="center", va="center", color="white" if rates[i, j] > 0.55 else "black")
    ticks = np.arange(len(classes))
    support = counts.sum(axis=1)
    axes.set_xticks(ticks, escape_math(classes), rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, [f"{c}  (n={n})" for c, n in zip(escape_math(classes), support, strict=True)])
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    accuracy, balanced = evaluation.metrics["accuracy"], evaluation.metrics["balanced_accuracy"]
    # Of the whole figure, because long names of classes leave less width to the matrix.
    figure.suptitle(f"{evaluation.part.capitalize()}: accuracy {accuracy:.1%}, balanced {balanced:.1%}", fontsize=11)
    figure.colorbar(picture, ax=axes, shrink=0.8, label="share of the true class")
    return figure


def training_curves(history: Sequence[dict[str, float]], chosen: int) -> Figure:
    """Plot loss, accuracy, validation AUC and learning rate by epoch, and mark the epoch whose weights were kept."""
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


def range_test_figure(rates: NDArray[np.floating], losses: NDArray[np.floating], chosen: float) -> Figure:
    """Plot the smoothed loss of a range test by learning rate, and mark the one that is used."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color=BLUE)
    axes.axvline(chosen, color=GREEN, linestyle="--", linewidth=1, label=f"used: {chosen:g}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss of a batch, smoothed")
    axes.set_title("Learning-rate range test", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    return figure


def class_distribution(
    table: pd.DataFrame, classes: Sequence[str], *, removed: Sequence[str] = (), balance: str = "none"
) -> Figure:
    """Plot the number of images per class in each part, and the training images per class after balancing.

    Args:
        table: Columns `label`, `part` and `parent` of a data set after splitting and balancing.
        classes: Class names.
        removed: Labels of the removed images.
        balance: Name of the balancing method. `oversample` repeats images, `class_weight` weights them.
    """
    kind = table.part.where(table.parent == "", "augmented")
    counts = pd.crosstab(table.label, kind).reindex(index=classes, columns=_KINDS, fill_value=0)
    if len(removed):
        counts["removed"] = pd.Series(list(removed)).value_counts().reindex(classes, fill_value=0)
    delivered = counts.drop(columns="augmented")
    seen = counts[["train", "augmented"]]
    if balance == "oversample":
        seen = seen.assign(repeated=seen.sum(axis=1).max() - seen.sum(axis=1))
    figure = Figure(figsize=(13, 1.9 + 0.45 * len(classes)), layout="constrained")
    if not seen.to_numpy().any():  # evaluation of a saved model
        axes = figure.subplots()
        _stacked_bars(axes, delivered.loc[:, delivered.sum() > 0], "images")
        axes.invert_yaxis()
        return figure
    left, right = figure.subplots(1, 2, sharey=True)
    _stacked_bars(left, delivered.loc[:, delivered.sum() > 0], "images before balancing")
    note = ", each class weighted to the same total" if balance == "class_weight" else ""
    _stacked_bars(right, seen.loc[:, seen.sum() > 0], f"what an epoch trains on (balance={balance}{note})")
    left.invert_yaxis()
    return figure


def _stacked_bars(axes: Axes, counts: pd.DataFrame, title: str) -> None:
    """Draw one bar per row with one colour per column, and the totals."""
    start = np.zeros(len(counts))
    for name in counts:
        label = f"{name} ({int(counts[name].sum()):,})"
        axes.barh(escape_math(counts.index), counts[name], left=start, color=PART_COLOURS.get(name, GREY), label=label)
        start += counts[name].to_numpy()
    for position, end in enumerate(start):
        axes.text(end, position, f" {int(end):,}", va="center", fontsize=9)
    axes.margins(x=0.1)
    axes.set_xlabel(title)
    axes.legend(frameon=False, fontsize=9, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.spines[["top", "right"]].set_visible(False)


def cluster_figure(audit: Audit, clusters: Sequence[Sequence[str]], rows: int = 4, columns: int = 3) -> Figure:
    """Plot two images of each of the first clusters of copies side by side, with label and delivered part."""
    distinct = list(dict.fromkeys(tuple(cluster) for cluster in clusters))
    shown = distinct[: rows * columns]
    rows, columns = -(-len(shown) // columns), min(columns, len(shown))
    known = audit.table.set_index("path")
    figure = Figure(figsize=(4.4 * columns, 0.5 + 2.5 * rows), layout="constrained")
    for panel in np.ravel(np.asarray(figure.subfigures(rows, columns, squeeze=False, wspace=0.06), dtype=object)):
        panel.subplots(1, 2)
        for axes in panel.axes:
            axes.axis("off")
    for panel, cluster in zip(figure.subfigs, shown, strict=False):
        # Prefer a second image with another label or part.
        first, *others = cluster
        unlike = [
            path
            for path in others
            if tuple(known.loc[path, ["label", "part"]]) != tuple(known.loc[first, ["label", "part"]])
        ]
        for axes, path in zip(panel.axes, (first, (unlike or others)[0]), strict=True):
            row = known.loc[path]
            axes.imshow(decode(audit.root / path, size=128, max_pixels=float("inf")))
            axes.set_title(escape_math([f"{row.label}{f' ({row.part})' if row.part else ''}"])[0], fontsize=8)
    figure.suptitle(f"Copies in the data set ({len(shown)} of {len(distinct)} clusters)", fontsize=11)
    return figure


def subgroup_figure(subgroups: Sequence[Subgroup], whole: Evaluation, metric: str) -> Figure:
    """Plot one metric of each subgroup and of all images, with its interval (forest plot).

    Args:
        subgroups: Subgroups. Those that are too small to assess are listed without a value.
        whole: Evaluation of all images.
        metric: Name of the metric.
    """
    figure = Figure(figsize=(8, 1.4 + 0.34 * (len(subgroups) + 1)), layout="constrained")
    axes = figure.subplots()
    rows = [("all", len(whole.rows), whole.metrics, whole.intervals)]
    rows += [(f"{one.column}: {one.value}", one.images, one.metrics, one.intervals) for one in subgroups]
    for position, (_, _, metrics, intervals) in enumerate(rows):
        if metric not in metrics:
            axes.text(0.5, position, "not assessed", va="center", ha="center", color=GREY, fontsize=9)
            continue
        low, high = intervals.get(metric, (metrics[metric], metrics[metric]))
        axes.plot([low, high], [position, position], color=BLUE if position else GREY, linewidth=2)
        axes.plot(metrics[metric], position, "s", color=BLUE if position else GREY, markersize=6)
    if metric in whole.metrics:
        axes.axvline(whole.metrics[metric], color=GREY, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(rows)), escape_math([f"{name}  (n={count})" for name, count, _, _ in rows]))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel(metric)
    axes.set_title(f"{whole.part.capitalize()}: {escape_math([metric])[0]} by subgroup", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def seeds_figure(metrics: Mapping[str, OverSeeds], seeds: Sequence[int], images: int) -> Figure:
    """Plot metrics of several seeds: each seed, their mean, and its intervals.

    Args:
        metrics: Metrics over the seeds, by name.
        seeds: The seeds.
        images: Number of images.
    """
    figure = Figure(figsize=(8, 1.6 + 0.5 * len(metrics)), layout="constrained")
    axes = figure.subplots()
    for position, one in enumerate(metrics.values()):
        for ends, width, label in ((one.both, 1.5, "other images and seeds"), (one.sampling, 5, "these seeds only")):
            if ends is not None:
                axes.plot(ends, [position, position], color=BLUE, linewidth=width, alpha=0.5, label=label)
        axes.plot(one.values, [position] * len(one.values), "o", color=ORANGE, markersize=4, label="a seed", zorder=3)
        axes.plot(one.mean, position, "|", color="black", markersize=14, label="mean", zorder=4)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(
        handles.values(), handles.keys(), fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False
    )
    axes.set_yticks(range(len(metrics)), escape_math(metrics))
    axes.set_ylim(len(metrics) - 0.4, -0.6)
    axes.set_xlabel(f"{len(seeds)} seeds from {seeds[0]} to {seeds[-1]}, {images} test images, 95% intervals")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def image_grid(
    images: NDArray[np.uint8], row_titles: Sequence[str], columns: int, *, title: str = "", first_title: str = ""
) -> Figure:
    """Plot images in rows, with a title at the left of each row.

    Args:
        images: Images, shape (len(row_titles) * columns, height, width, 3), 0 to 255.
        row_titles: Title of each row.
        columns: Number of images per row.
        title: Title of the figure.
        first_title: Title of the first column, if its images are of another kind than the others.
    """
    # One large image, because the layout of one axes per image takes matplotlib seconds.
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
    axes.set_yticks(np.arange(rows) * step + side / 2, escape_math(row_titles), fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if first_title:
        axes.text(side / 2, -gap, first_title, ha="center", va="bottom", fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def escape_math(names: Iterable[str]) -> list[str]:
    """Escape names so that matplotlib does not parse them as math."""
    return [str(name).replace("$", r"\$") for name in names]
