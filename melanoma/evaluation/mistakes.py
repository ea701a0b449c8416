"""Figure of the most confident wrong predictions, with heat maps."""

from collections.abc import Callable

import cv2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from melanoma.evaluation.evaluate import Evaluation
from melanoma.evaluation.plots import escape_math

__all__ = ["mistakes_figure", "overlay_heatmap"]

_MOST, _COLUMNS, _GAP = 12, 3, 4
Explain = Callable[[NDArray, NDArray[np.integer]], NDArray[np.float32] | None]


def mistakes_figure(
    evaluation: Evaluation, pixels: Callable[[pd.DataFrame], NDArray[np.uint8]], explain: Explain | None = None
) -> Figure | None:
    """Plot the most confident wrong predictions, or return None if there are none.

    Args:
        evaluation: Evaluation of a part.
        pixels: Function that returns the pixels of some of its rows.
        explain: Function that returns heat maps for images and their predicted classes; see `grad_cam`. Each heat map
            is drawn beside its image.
    """
    confidence, predicted = evaluation.probabilities.max(axis=1), evaluation.predictions.predicted
    wrong = np.flatnonzero(predicted != evaluation.predictions.targets)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")[:_MOST]]
    if not len(shown):
        return None
    rows = evaluation.rows.iloc[shown]
    images = pixels(rows)
    heat = None if explain is None else explain(images, predicted[shown])
    if heat is not None:
        gap = np.full((images.shape[1], _GAP, 3), 255, np.uint8)
        images = np.stack(
            [
                np.concatenate([image, gap, overlay_heatmap(image, one)], axis=1)
                for image, one in zip(images, heat, strict=True)
            ]
        )
    columns = min(_COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    width = 2.2 if heat is None else 4.2
    figure = Figure(figsize=(width * columns, 0.7 + 2.6 * lines), layout="constrained")
    for axes in figure.subplots(lines, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, image, label, position in zip(figure.axes, images, rows.label, shown, strict=False):
        axes.imshow(image)
        true, guess = escape_math([str(label), evaluation.classes[predicted[position]]])
        axes.set_title(f"true: {true}\npredicted: {guess} ({confidence[position]:.2f})", fontsize=8)
    note = "" if heat is None else "; at the right Grad-CAM of the predicted class"
    figure.suptitle(f"{evaluation.part.capitalize()}: the most confident of {len(wrong)} mistakes{note}", fontsize=11)
    return figure


def overlay_heatmap(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Overlay a heat map on the grey image."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    wide = cv2.resize(heat, image.shape[1::-1], interpolation=cv2.INTER_LINEAR).clip(0, 1)
    colour = cv2.cvtColor(cv2.applyColorMap((wide * 255).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    share = 0.7 * wide[..., None]
    return (grey * (1 - share) + colour * share).astype(np.uint8)
