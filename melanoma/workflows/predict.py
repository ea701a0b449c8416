"""Prediction of class probabilities for image files with a saved model."""

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from melanoma.config.command_schema import PredictConfig
from melanoma.config.launch import typed
from melanoma.data.cache import check_writable, write_atomically, write_errors
from melanoma.data.csv_text import csv_text
from melanoma.data.decode import UnreadableImage
from melanoma.data.progress import track
from melanoma.data.sources import image_files
from melanoma.errors import DataError
from melanoma.paths import user_path
from melanoma.serving.imports import import_keras_alone
from melanoma.terminal import console, out, quiet_native_imports
from melanoma.tracking.store import open_store

if TYPE_CHECKING:
    from melanoma.serving.classifier import LesionClassifier

__all__ = ["matching_files", "predict", "predict_files", "predicted"]

_SHOWN = 20


def predict(config: DictConfig, overrides: list[str], folder: Path) -> pd.DataFrame:  # noqa: ARG001
    """Run `melanoma predict`; see `predict_files`."""
    settings = typed(PredictConfig, config)
    files, target = _checked(settings)
    import_keras_alone()
    return _predict_files(settings, files, target)


def predict_files(settings: PredictConfig) -> pd.DataFrame:
    """Predict images, print a table, and write it as CSV.

    Args:
        settings: The model (see `load_saved_model`), `input` (an image, a folder or a glob pattern) and `output` (the
            CSV file to write). The CSV has `path`, the columns of `LesionClassifier.predict`, and `error` for an
            unreadable image.

    Raises:
        DataError: If no file matches, if no image can be read, or if the output cannot be written.
        ModelError: If the model cannot be loaded.
    """
    return _predict_files(settings, *_checked(settings))


def _checked(settings: PredictConfig) -> tuple[list[Path], Path]:
    """Return the images and the file to write, before anything slow: an unusable path is reported at once."""
    files, target = matching_files(settings.input), user_path(settings.output)
    with write_errors("result", f"output={settings.output}"):
        check_writable(target)
    return files, target


def _predict_files(settings: PredictConfig, files: list[Path], target: Path) -> pd.DataFrame:
    with quiet_native_imports():
        from melanoma.serving.package import load_classifier
    open_store(settings.tracking.uri)
    classifier = load_classifier(settings.saved_model)
    table = predicted(classifier, files, settings.batch_size)
    with write_errors("result", f"output={settings.output}"):
        write_atomically(target, csv_text(table))
    _show(table, classifier.facts["operating_points"], target)
    return table


def predicted(classifier: "LesionClassifier", files: list[Path], batch_size: int = 64) -> pd.DataFrame:
    """Predict image files in batches, and return a table with one row per file; see `predict_files`.

    Raises:
        DataError: If no image can be read.
    """
    rows: list[dict[str, object]] = []
    batches = [files[i : i + batch_size] for i in range(0, len(files), batch_size)]
    for batch in track(batches, "Predicting"):
        rows += _predict_batch(classifier, batch)
    table = pd.DataFrame(rows)
    if "predicted" not in table:
        raise DataError(f"No image could be read. Received: {files[0]} ({table.error.iloc[0]})")
    return table


def matching_files(pattern: str) -> list[Path]:
    """Return the images of a path, a folder or a glob pattern, sorted.

    Raises:
        DataError: If there are none.
    """
    where = user_path(pattern)
    if where.is_dir():
        found = image_files(where)
    elif where.exists():
        found = [where]
    else:
        found = sorted(Path(f) for f in glob.glob(str(where), recursive=True) if Path(f).is_file())  # noqa: PTH207
    if not found:
        raise DataError(f"No images found; expected an image, a folder or a glob pattern. Received: input={pattern}")
    return found


def _predict_batch(classifier: "LesionClassifier", files: list[Path]) -> list[dict[str, object]]:
    pixels, rows = [], []
    for file in files:
        row: dict[str, object] = {"path": str(file)}
        try:
            pixels.append(classifier.pixels(file))
        except (UnreadableImage, OSError) as error:
            row["error"] = str(error)
        rows.append(row)
    if pixels:
        decided = classifier.decided(*classifier.outputs(np.stack(pixels)))
        if "prediction_set" in decided:
            decided["prediction_set"] = decided.prediction_set.map("; ".join)
        answers = iter(decided.to_dict("records"))
        for row in rows:
            if "error" not in row:
                row.update(next(answers))
    return rows


def _show(table: pd.DataFrame, thresholds: Mapping[str, float], target: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    decisions = [f"P({task}), threshold {threshold:.3f}" for task, threshold in thresholds.items()]
    shown = Table()
    for title in ("image", "predicted", *map(escape, decisions), "prediction set"):
        shown.add_column(title, overflow="fold")
    for row in table.head(_SHOWN).to_dict("records"):
        if isinstance(row["predicted"], str):
            note = " (abstained)" if row.get("abstain") is True else f" {row['score']:.3f}"
            unlike = "[yellow]unlike the training images:[/yellow] " if row.get("out_of_distribution") is True else ""
            shown.add_row(
                escape(_short(row["path"])),
                unlike + escape(row["predicted"]) + note,
                *(
                    f"{row[f'score/{t}']:.3f}: {'referred' if row[f'referred/{t}'] else 'not referred'}"
                    for t in thresholds
                ),
                escape(str(row.get("prediction_set", "-"))),
            )
        else:
            shown.add_row(escape(_short(row["path"])), escape(f"unreadable: {row['error']}"))
    out().print(shown)
    if len(table) > _SHOWN:
        out().print(f"... and {len(table) - _SHOWN} more")
    if thresholds:
        rule = "Referred: the probability is at or above the threshold, which was chosen on validation."
        of_two = len([column for column in table if column.startswith("probability/")]) == 2
        out().print(rule + " With two classes it decides the predicted class, too, also below 0.5." * of_two)
    flagged = int((table["ood_score"] > 1).sum()) if "ood_score" in table else 0
    if flagged:
        console().print(
            f"{flagged} of {len(table)} images are unlike the training images (ood_score above 1); do not rely on what "
            "is predicted for them.",
            style="yellow",
        )
    failed = int(table.predicted.isna().sum())
    if failed:
        console().print(f"{failed} of {len(table)} images could not be read; see the column error.", style="yellow")
    out().print(f"Written to {target}", soft_wrap=True, markup=False)


def _short(path: str) -> str:
    return str(Path(*Path(path).parts[-2:]))
