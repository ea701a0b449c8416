"""Recalibration of a saved model on some images of another site; the others remain for the test."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from melanoma.data.dataset import Dataset, with_groups
from melanoma.data.groups import group_columns
from melanoma.data.split import drawn_rows
from melanoma.errors import DataError

if TYPE_CHECKING:
    from melanoma.tracking.run import Run
    from melanoma.workflows.measure import Measured

__all__ = ["announce_recalibration", "with_images_to_recalibrate"]

log = logging.getLogger("melanoma")


def with_images_to_recalibrate(dataset: Dataset, clusters: pd.Series, images: int, seed: int) -> Dataset:
    """Move some images from the test part to validation, so that no copy, lesion or patient is in both.

    Args:
        dataset: Images of the site, all in the test part.
        clusters: Number of the cluster of copies of each image, by path.
        images: Number of images to move; a few more or less if images belong together.
        seed: Seed of the random draw.

    Raises:
        DataError: If the drawn images are of one class, or if none is left for the test.
    """
    dataset = with_groups(dataset, clusters, group_columns(dataset.table, "auto"))
    drawn = drawn_rows(dataset.table, images, seed)
    labels = sorted(set(dataset.table.label[drawn]))
    if drawn.all() or len(labels) < 2:
        raise DataError(
            "Recalibration needs images of at least two classes, and other images for the test; choose another number, "
            f"or give more images. Received: recalibrate={images} of {len(drawn)} images in "
            f"{dataset.table.group.nunique()} groups, which draws images of {', '.join(labels) or 'no class'}"
        )
    return replace(dataset, table=dataset.table.assign(part=drawn.map({True: "validation", False: "test"})))


def announce_recalibration(run: "Run", measured: "Measured") -> None:
    """Say in the log and in the description of the run what the recalibration changed on the test images."""
    validation, test = measured.evaluations
    before = measured.uncalibrated[-1]
    changes = ", ".join(
        f"{name} {before.metrics[name]:.3f} before, {test.metrics[name]:.3f} after" for name in ("log_loss", "ece")
    )
    text = (
        f"Recalibrated on {len(validation.rows)} images of this data, tested on the other {len(test.rows)}: {changes}."
    )
    log.info("%s", text)
    run.add_note(text)
