"""Logging of an experiment: audit, data set, samples, initial weights and fit."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.data.sources import LocalArtifactDatasetSource
from mlflow.exceptions import MlflowException

from melanoma.auditing.findings import Audit
from melanoma.auditing.names import FINDINGS
from melanoma.data.cache import content_key
from melanoma.data.csv_text import csv_text
from melanoma.data.dataset import Dataset
from melanoma.data.split import PARTS, REMOVED
from melanoma.data.split_file import shared_with_training
from melanoma.evaluation import plots
from melanoma.lineage.contamination import Contamination
from melanoma.terminal import stage
from melanoma.tracking.model_store import registered_version
from melanoma.tracking.models import SavedModel
from melanoma.tracking.names import Artifact, Tag
from melanoma.tracking.run import Run
from melanoma.training.hardware import device_name
from melanoma.training.network import Fitted
from melanoma.training.range_test import RangeTest

__all__ = [
    "announce_audit",
    "log_ancestor",
    "log_audit",
    "log_dataset",
    "log_fit",
    "log_range_test",
    "log_samples",
]

_SAMPLES = 8
_FEW = 10  # training images of a class, below which a warning is logged
log = logging.getLogger("melanoma")


def log_audit(run: Run, audit: Audit, dataset: Dataset, *, announce: bool = True) -> None:
    """Log the findings of the audit and the removed images; with `announce`, also print both."""
    run.log_json(audit.report(), Artifact.AUDIT)
    run.log_measures({f"audit/{name}": count for name, count in audit.counts().items()})
    removed = dataset.removed
    reasons = removed.reason.value_counts()
    run.log_measures({"data/removed": len(removed), **{f"data/removed/{why}": n for why, n in reasons.items()}})
    if len(removed):
        run.log_text(csv_text(removed), Artifact.REMOVED)
    clusters = audit.groups["label_conflicts"] + audit.groups["split_leaks"] + audit.groups["near_duplicate_groups"]
    if clusters:
        run.log_figure(plots.cluster_figure(audit, clusters), "duplicate_clusters")
    if announce:
        announce_audit(audit)
        if len(removed):
            listed = ", ".join(f"{count} {why}" for why, count in reasons.items())
            log.warning("Removed %d images: %s", len(removed), listed)


def announce_audit(audit: Audit) -> None:
    """Print the findings of an audit in one line."""
    counts = audit.counts()
    found = [f"{counts[name]} {what}" for name, what in FINDINGS.items() if counts[name]]
    log.info("Audit of %d images: %s", counts["images"], ", ".join(found) or "nothing found")


def log_dataset(run: Run, dataset: Dataset, source: str, balance: str = "none") -> None:
    """Log the data set: the part of each image, the excluded images, the digests, and the class distribution."""
    table = dataset.table
    columns = ["path", "label", "part", "parent", "sha256", "reason"]
    extra = [c for c in ("cluster", "group", "lesion", "patient") if c in table]
    left_out = [
        dataset.removed.assign(part=REMOVED, parent=""),
        dataset.quarantined.assign(part="quarantined", parent="", sha256=""),
    ]
    listed = [table.assign(reason="")[columns + extra], *(t.reindex(columns=columns + extra) for t in left_out)]
    if len(dataset.quarantined):
        run.log_text(csv_text(dataset.quarantined), Artifact.QUARANTINED)
    run.log_evidence("".join(csv_text(t, header=not i) for i, t in enumerate(listed)), Artifact.SPLIT)
    run.set_tags({Tag.FINGERPRINT: dataset.fingerprint, Tag.SPLIT_HASH: dataset.split_hash})
    trained = dataset.part("train").label.value_counts().reindex(dataset.classes, fill_value=0)
    few = trained[trained < _FEW] if len(dataset.part("train")) else trained.head(0)
    if len(few):
        named = ", ".join(f"{label}: {count}" for label, count in few.items())
        log.warning("Fewer than %d training images remain for %s", _FEW, named)
    counts = {f"data/images/{part}": len(dataset.part(part)) for part in PARTS}
    shared = {what: count for what, count in shared_with_training(table).items() if count}
    run.log_measures({f"data/test_shares_{what}": count for what, count in shared.items()})
    if shared:
        leaks = ", ".join(f"{count} {what}" for what, count in shared.items())
        images = counts["data/images/test"]
        log.warning("Some of the %d test images are also in training or validation, by: %s", images, leaks)
        run.set_tags({Tag.KNOWN_LEAKS: leaks})
    run.log_measures(
        {**counts, "data/quarantined": len(dataset.quarantined), "data/augmented": int((table.parent != "").sum())}
    )
    for part, context in zip(PARTS, ("training", "validation", "test"), strict=True):
        rows = dataset.part(part)
        if len(rows):
            digest = content_key(sorted(zip(rows.sha256, rows.label, strict=True)))
            run.log_input(
                mlflow.data.from_pandas(
                    rows[["path", "label"]].reset_index(drop=True),
                    source=LocalArtifactDatasetSource(source),
                    targets="label",
                    name=f"{dataset.name}-{part}",
                    digest=digest,
                ),
                context,
            )
    figure = plots.class_distribution(table, dataset.classes, removed=list(dataset.removed.label), balance=balance)
    run.log_figure(figure, "class_distribution", vector=True)


@stage("Drawing sample images")
def log_samples(run: Run, dataset: Dataset, augment: Any, seed: int) -> None:
    """Log figures of sample images of each class, and of augmented images."""
    rng = np.random.default_rng(seed)
    train = dataset.part("train")
    originals = train[train.parent == ""]
    shown = [
        group.iloc[rng.choice(len(group), _SAMPLES, replace=len(group) < _SAMPLES)]
        for _, group in originals.groupby("target", sort=True)
    ]
    pixels = np.concatenate([dataset.pixels(rows) for rows in shown])
    run.log_figure(plots.image_grid(pixels, dataset.classes, _SAMPLES, title="Training images"), "class_samples")
    parents = [rows.iloc[0] for rows in shown]
    first = np.stack([dataset.store.read([row.row])[0] for row in parents])
    repeated = np.repeat(first.astype(np.float32), _SAMPLES - 1, axis=0)
    changed = np.asarray(augment(repeated)) if augment is not None else repeated
    changed = changed.clip(0, 255).astype(np.uint8).reshape(len(parents), _SAMPLES - 1, *first.shape[1:])
    grid = np.concatenate([first[:, None], changed], axis=1).reshape(-1, *first.shape[1:])
    title = "Augmentation of training batches" if augment is not None else "No augmentation of training batches"
    figure = plots.image_grid(grid, dataset.classes, _SAMPLES, title=title, first_title="original")
    run.log_figure(figure, "augmentation_samples")


def log_ancestor(run: Run, ancestor: SavedModel, address: str, found: Contamination) -> None:
    """Log the model whose weights a run starts from, and the overlap of its images with the test images.

    The runs refer to each other: the new run has the tags `melanoma.weights`, `melanoma.weights_run` and, for a
    registered version, `melanoma.weights_version`. The other run and version have the tag
    `melanoma.descendant.<id of the new run>`.
    """
    client = mlflow.MlflowClient()
    link, name = f"{Tag.DESCENDANT}{run.id}", client.get_run(run.id).info.run_name
    run.set_tags({Tag.WEIGHTS: address})
    version = registered_version(address)
    if version is not None:
        run.set_tags({Tag.WEIGHTS_VERSION: f"{version.name}/{version.version}"})
        client.set_model_version_tag(version.name, version.version, link, name)
    if ancestor.run_id is not None:
        run.set_tags({Tag.WEIGHTS_RUN: ancestor.run_id})
        with suppress(MlflowException):  # the run may be in another store
            client.set_tag(ancestor.run_id, link, name)
    if found.test_images is not None:
        run.log_measures({"data/test_seen_in_pretraining": found.test_images})
    if found.test_images:
        log.warning("The initial weights were trained or tuned on %d of the test images", found.test_images)
    if found.not_compared:
        log.warning(
            "%d images that the initial weights have seen were not audited on this machine, so that copies of them are "
            "not found; run `melanoma audit` on their data set, and train again", found.not_compared,
        )  # fmt: skip


def log_range_test(run: Run, test: RangeTest, rate: float) -> None:
    """Log the result of a learning-rate range test, after which the learning rate is `rate`."""
    if test.chosen is None:
        log.warning(
            "The range test chose no learning rate, because the loss did not fall clearly; "
            "optimizer.learning_rate=%g is used", rate,
        )  # fmt: skip
    else:
        log.info("Learning rate %g, chosen by a range test of %d steps", rate, len(test.rates))
    run.log_figure(plots.range_test_figure(test.rates, test.losses, rate), "learning_rate", vector=True)


def log_fit(run: Run, fitted: Fitted, monitor: str, profile: Path) -> None:
    """Log the training curves, the kept epoch, and the profile, if any."""
    run.log_figure(plots.training_curves(fitted.history, fitted.epoch), "training_curves", vector=True)
    run.log_params(
        {"fit.parameters": fitted.parameters, "fit.precision": fitted.precision, "fit.device": device_name()}
    )
    seconds = sum(epoch["seconds_per_epoch"] for epoch in fitted.history)
    run.log_measures({"fit/best_epoch": fitted.epoch, "fit/epochs": len(fitted.history), "fit/seconds": seconds})
    value = fitted.history[fitted.epoch].get(monitor, float("nan"))
    log.info("Kept epoch %d of %d: %s %.4f", fitted.epoch + 1, len(fitted.history), monitor, value)
    if profile.is_dir():
        run.log_file(str(profile), "profile")
