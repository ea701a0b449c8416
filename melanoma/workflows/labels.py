"""Assessment of labels by the out-of-fold predictions of a run."""

from typing import Any

import pandas as pd

from melanoma.auditing.findings import Audit
from melanoma.auditing.labels import assessed_labels
from melanoma.errors import DataError
from melanoma.evaluation.paired import predictions_in
from melanoma.lineage.protocol import Shortcut
from melanoma.terminal import quiet_native_imports
from melanoma.tracking.store import open_store

__all__ = ["assess_labels"]

_KNOWS_ENOUGH = 0.7  # share of labels that are predicted


def assess_labels(audit: Audit, run: str, uri: str | None) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Assess the labels of the images that a run has test predictions of, averaged over its seeds, if it has several.

    Args:
        audit: Audit of the images.
        run: ID of the run: the parent run of a cross-validation, in which each image is predicted by a model that was
            not trained on it.
        uri: URI of the MLflow store; None for the default.

    Returns:
        A row for each image with `path`, `sha256`, `label` and the columns of `assessed_labels`; and `run`, `classes`
        and `notes`, sentences about what limits the result.

    Raises:
        ModelError: If the run does not exist or has no predictions.
        DataError: If the predictions are of other images or classes.
    """
    with quiet_native_imports():
        from melanoma.tracking.records import RunRecord, class_names_in
    open_store(uri)
    record = RunRecord.read(run)
    if {Shortcut.SEEN_IMAGES, Shortcut.SEEN_IMAGES_UNKNOWN} & set(record.protocol.shortcuts):
        raise DataError(
            "The run evaluates images that its model was or may have been trained on, which says nothing about their "
            f"labels; give a cross-validation. Received: labels={run}, protocol {record.protocol}"
        )
    tables = [member.predictions("test") for member in record.members]
    classes = class_names_in(tables[0])
    columns = [f"probability/{label}" for label in classes]
    mean = pd.concat(tables).groupby("sha256")[columns].mean()
    images = audit.table[audit.table.sha256.isin(mean.index) & audit.table.label.isin(classes)]
    images = images.drop_duplicates(["sha256", "label"]).reset_index(drop=True)
    if not len(images):
        raise DataError(
            "The run predicted none of these images; name the data set that it was trained on, as in data=folder "
            f"data.path=FOLDER. Received: labels={run}, data of {len(audit.table)} images"
        )
    predicted = pd.concat([images[["path", "sha256", "label"]], mean.loc[images.sha256].reset_index(drop=True)], axis=1)
    predictions = predictions_in(predicted, classes, {})
    assessed = pd.concat(
        [
            predicted[["path", "sha256", "label"]],
            assessed_labels(predictions.targets, predictions.probabilities, classes),
        ],
        axis=1,
    )
    right = float((predictions.predicted == predictions.targets).mean())
    notes = [
        f"The models predict {right:.0%} of the labels. The less they know, the more of the suggestions are wrong."
    ]
    if not record.protocol.is_clean:
        notes.append(f"The run is not clean ({record.protocol}): its models may have seen copies of these images.")
    if right < _KNOWS_ENOUGH:
        notes.append("With so few, most suggestions are errors of the models: train better ones first.")
    left = len(audit.table.drop_duplicates(["sha256", "label"])) - len(images)
    if left:
        notes.append(
            f"{left:,} of {len(images) + left:,} images were not in a test set of the run, so that their labels are "
            "not assessed. A run with split=kfold tests each image."
        )
    return assessed, {"run": record.id, "classes": classes, "notes": notes}
