"""What a reader of the metrics has to know about the images they were measured on."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma.evaluation.metrics import problems

__all__ = ["remark_on_groups", "remarks_on"]


def remarks_on(
    part: str,
    targets: NDArray[np.integer],
    probabilities: NDArray,
    classes: Sequence[str],
    views: Mapping[str, Sequence[str]],
) -> list[str]:
    """A sentence for each metric that is missing or says little: classes without images, constant scores, and so on."""
    found = []
    counts = np.bincount(targets, minlength=len(classes))
    for label, count in zip(classes, counts, strict=True):
        if count == 0:
            found.append(f"No {part} image is of {label}: it has no metrics, and means are over the other classes.")
        elif count == 1:
            found.append(f"One {part} image is of {label}: its metrics are those of a single image.")
    if len(targets) > 1 and np.ptp(probabilities, axis=0).max() == 0:
        found.append(f"All {part} images have the same scores: the model tells nothing apart.")
    for prefix, (positive, _) in problems(targets, probabilities, classes, views).items():
        if prefix and positive.all() | (~positive).all():
            found.append(f"All {part} images have one answer to {prefix.rstrip('/')}: it is not measured.")
    return found


def remark_on_groups(table: pd.DataFrame) -> str:
    """A sentence where images have neither a lesion nor a patient, so that only copies could be kept together."""
    table = table[table.parent == ""]  # what is made from an image tells of no further lesion
    columns = [name for name in ("lesion", "patient") if name in table]
    unknown = int(table[columns].isna().all(axis=1).sum()) if columns else len(table)
    if unknown == 0:
        return ""
    return (
        f"Neither lesion nor patient is known of {unknown:,} of {len(table):,} images, of which only copies were kept "
        "together: test images may show lesions that the model was trained on."
    )
