"""Warnings about missing or unreliable metrics."""

import numpy as np
import pandas as pd

from melanoma.evaluation.intervals import scarcity
from melanoma.evaluation.predictions import Predictions

__all__ = ["remark_on_groups", "remarks_on"]


def remarks_on(part: str, predictions: Predictions) -> list[str]:
    """Return a sentence for each cause of missing or unreliable metrics: no images of a class, constant scores, ..."""
    found = []
    counts = np.bincount(predictions.targets, minlength=len(predictions.classes))
    for label, count in zip(predictions.classes, counts, strict=True):
        if count == 0:
            found.append(f"No {part} image is of {label}: it has no metrics, and means are over the other classes.")
        elif count == 1:
            found.append(f"One {part} image is of {label}: its metrics are those of a single image.")
    if len(predictions) > 1 and np.ptp(predictions.probabilities, axis=0).max() == 0:
        found.append(f"All {part} images have the same scores: the model does not discriminate.")
    for task in predictions.binary:
        if task.prefix and not task.has_both:
            sign = "positive" if task.positive.all() else "negative"
            found.append(f"All {part} images are {sign} for {task.name}: it is not measured.")
    scarce = scarcity(predictions)
    names = [f"sensitivity/{predictions.classes[c]}" for c in predictions.present]
    names += [f"{task.prefix}auc" for task in predictions.binary if task.has_both]
    if reasons := dict.fromkeys(scarce[name] for name in names if name in scarce):
        found.append(f"Some {part} metrics have no interval: {'; '.join(reasons)}.")
    return found


def remark_on_groups(table: pd.DataFrame) -> str:
    """Return a sentence if lesion and patient are unknown for some images, so that only copies were grouped."""
    table = table[table.parent == ""]  # augmented images do not show other lesions
    columns = [name for name in ("lesion", "patient") if name in table]
    unknown = int(table[columns].isna().all(axis=1).sum()) if columns else len(table)
    if unknown == 0:
        return ""
    return (
        f"Neither lesion nor patient is known for {unknown:,} of {len(table):,} images, so that only copies were "
        "grouped: test images may show lesions that the model was trained on. A table can name them "
        "(data.metadata.lesion_column, data.metadata.patient_column)."
    )
