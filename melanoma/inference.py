"""Class probabilities for image files, from a saved model."""

import glob
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from melanoma.data.decode import UnreadableImage, decode
from melanoma.data.progress import TerminalProgress
from melanoma.data.sources import image_files
from melanoma.errors import DataError
from melanoma.terminal import console, out, quiet_native_imports
from melanoma.tracking.store import tracking_uri

if TYPE_CHECKING:
    from melanoma.tracking.models import SavedModel

__all__ = ["matching_files", "predict_files"]

_SHOWN = 20


def predict_files(*, model: str, pattern: str, output: str, batch_size: int, uri: str | None) -> pd.DataFrame:
    """Predict images, print a table and write it as CSV.

    Args:
        model: see `load_saved_model`.
        pattern: an image, a folder or a glob pattern.
        output: the CSV to write: `path`, `predicted`, `probability/<class>` and, for an unreadable image, `error`.
        batch_size: images a batch.
        uri: the MLflow store, or None for the default.

    Raises:
        DataError: nothing matches, no image can be read, or the output cannot be written.
        ModelError: the model cannot be loaded.
    """
    files = matching_files(pattern)
    with quiet_native_imports():
        import mlflow

        from melanoma.tracking.models import load_saved_model
    mlflow.set_tracking_uri(tracking_uri(uri))
    saved = load_saved_model(model)
    rows: list[dict[str, object]] = []
    batches = [files[i : i + batch_size] for i in range(0, len(files), batch_size)]
    for batch in TerminalProgress().track(batches, "Predicting"):
        rows += _predict_batch(saved, batch)
    table = pd.DataFrame(rows)
    if "predicted" not in table:
        raise DataError(f"No image could be read. Received: {pattern} ({table.error.iloc[0]})")
    target = Path(output).expanduser()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(target, index=False)
    except OSError as error:
        raise DataError(f"The result cannot be written ({error.strerror}). Received: output={output}") from error
    _show(table, target)
    return table


def matching_files(pattern: str) -> list[Path]:
    """The images behind a path, a folder or a glob pattern, sorted.

    Raises:
        DataError: there are none.
    """
    where = Path(pattern).expanduser()
    if where.is_dir():
        found = image_files(where)
    elif where.exists():
        found = [where]
    else:
        found = sorted(Path(f) for f in glob.glob(str(where), recursive=True) if Path(f).is_file())  # noqa: PTH207
    if not found:
        raise DataError(f"No images found; expected an image, a folder or a glob pattern. Received: input={pattern}")
    return found


def _predict_batch(saved: "SavedModel", files: list[Path]) -> list[dict[str, object]]:
    pixels, rows = [], []
    for file in files:
        row: dict[str, object] = {"path": str(file)}
        try:
            pixels.append(
                decode(file, size=saved.image_size, resize=saved.resize, max_pixels=saved.max_megapixels * 1e6)
            )
        except (UnreadableImage, OSError) as error:
            row["error"] = str(error)
        rows.append(row)
    if pixels:
        probabilities = iter(np.asarray(saved.keras_model(np.stack(pixels).astype(np.float32), training=False)))
        for row in rows:
            if "error" not in row:
                scores = next(probabilities)
                row["predicted"] = saved.classes[int(scores.argmax())]
                row.update({f"probability/{c}": float(p) for c, p in zip(saved.classes, scores, strict=True)})
    return rows


def _show(table: pd.DataFrame, target: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    shown = Table("image", "predicted", "probability")
    for row in table.head(_SHOWN).to_dict("records"):
        if isinstance(row["predicted"], str):
            shown.add_row(
                escape(_short(row["path"])), escape(row["predicted"]), f"{row['probability/' + row['predicted']]:.3f}"
            )
        else:
            shown.add_row(escape(_short(row["path"])), "-", f"unreadable: {row['error']}")
    out().print(shown)
    if len(table) > _SHOWN:
        out().print(f"... and {len(table) - _SHOWN} more")
    failed = int(table.predicted.isna().sum())
    if failed:
        console().print(f"{failed} of {len(table)} images could not be read; see the column error.", style="yellow")
    out().print(f"Written to {target}", soft_wrap=True, markup=False)


def _short(path: str) -> str:
    return str(Path(*Path(path).parts[-2:]))
