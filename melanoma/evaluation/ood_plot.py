"""Figure of out-of-distribution scores, with the images that are most unlike the training images."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from melanoma.evaluation.plots import GREY

__all__ = ["ood_figure"]

_MOST, _COLUMNS, _BINS = 8, 4, 40
_TICKS = [one * 10**power for power in (-2, -1, 0, 1, 2) for one in (1, 2, 3, 5, 7)]


def ood_figure(
    rows: pd.DataFrame, scores: NDArray[np.float64], pixels: Callable[[pd.DataFrame], NDArray[np.uint8]]
) -> Figure:
    """Plot the distribution of the scores, and the images with the highest scores.

    Args:
        rows: Rows of the images in the data set's table.
        scores: Out-of-distribution score of each image, shape (len(rows),); above 1 it is flagged.
        pixels: Function that returns the pixels of some rows.
    """
    shown = np.argsort(-scores, kind="stable")[:_MOST]
    lines = -(-len(shown) // _COLUMNS)
    figure = Figure(figsize=(8.4, 3.2 + 2.3 * lines), layout="constrained")
    grid = figure.add_gridspec(1 + lines, _COLUMNS, height_ratios=[1.3, *[1] * lines])
    axes = figure.add_subplot(grid[0, :])
    # Scores are distances, so that their ratios count. The threshold is an edge of bins.
    low, high = np.log([min(max(float(scores.min()), 1e-3), 0.9), max(float(scores.max()), 1.1)])
    step = (high - low) / _BINS
    edges = np.exp(step * np.arange(np.floor(low / step), np.ceil(high / step) + 1)).tolist()
    axes.hist(scores[scores <= 1], edges, color="#4c78a8", label="like the training images")
    axes.hist(scores[scores > 1], edges, color="#e45756", label="unlike the training images")
    axes.axvline(1, color=GREY, linestyle="--", linewidth=1)
    axes.set(xscale="log", xlabel="out-of-distribution score (1: threshold)", ylabel="images")
    ticks = [tick for tick in _TICKS if edges[0] <= tick <= edges[-1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_title(f"{(scores > 1).mean():.1%} of {len(scores):,} images are unlike the training images", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    for place, (image, score) in enumerate(zip(pixels(rows.iloc[shown]), scores[shown], strict=True)):
        own = figure.add_subplot(grid[1 + place // _COLUMNS, place % _COLUMNS])
        own.imshow(image)
        own.axis("off")
        own.set_title(f"score {score:.2f}", fontsize=9)
    return figure
