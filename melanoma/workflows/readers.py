"""Comparison of a run with human readers of its test images."""

from pathlib import Path

import pandas as pd
from rich.markup import escape
from rich.table import Table

from melanoma.data.cache import write_atomically, write_errors
from melanoma.data.csv_text import read_csv_text
from melanoma.errors import DataError
from melanoma.evaluation.paired import predictions_of_tables
from melanoma.evaluation.predictions import BinaryTask, Predictions
from melanoma.evaluation.proportions import FEWEST_GROUPS
from melanoma.evaluation.readers import Reader, ReaderTest, compare_with_readers, reader_calls
from melanoma.evaluation.texts import with_bounds
from melanoma.pages import render_page
from melanoma.terminal import out, quiet_native_imports
from melanoma.tracking.names import Artifact
from melanoma.tracking.store import open_store

__all__ = ["compare_readers"]


def compare_readers(
    run: str, table: Path, *, task: str | None, threshold: float | None, html: Path | None, uri: str | None
) -> list[ReaderTest]:
    """Print the readers' rates beside the model's, and the tests of the differences, and return the tests.

    Args:
        run: ID of the run whose test images were read.
        table: CSV file with the columns `reader`, `image` and `rating`.
        task: Binary task of the ratings; None if the run has only one.
        threshold: Ratings of at least this are calls; None for ratings of 0 and 1.
        html: File for a page with the figure.
        uri: URI of the MLflow store; None for the default.

    Raises:
        ModelError: If the run does not exist or has no test predictions.
        DataError: If the table cannot be read or does not fit the run.
    """
    ratings = _ratings(table)
    with quiet_native_imports():
        from melanoma.tracking.looks import note_comparison
        from melanoma.tracking.records import RunRecord, class_names_in
    open_store(uri)
    record = RunRecord.read(run)
    tested = record.predictions("test")
    [predictions] = predictions_of_tables([tested], class_names_in(tested), record.binary_tasks)
    chosen = _task(predictions, task)
    point = _threshold(record.json(Artifact.OPERATING_POINTS), chosen)
    readers = reader_calls(ratings, list(tested.path), chosen, predictions.group_numbers, threshold)
    if len(readers) < 2:
        raise DataError(f"A comparison with readers needs two or more. Received: {', '.join(r.name for r in readers)}")
    tests = compare_with_readers(readers, chosen, predictions.group_numbers, point)
    note_comparison(record.id)
    title = f"{len(readers)} readers and {record.label}: {chosen.name}, threshold {point:.3f}"
    _show(title, readers, tests)
    if html is not None:
        from melanoma.evaluation.curve_plots import readers_figure
        from melanoma.evaluation.overlays import as_data_url

        content = {
            "title": title,
            "figure": as_data_url(readers_figure(chosen, point, readers)),
            "rows": _rows(readers),
            "sentences": [_sentence(one) for one in tests],
        }
        with write_errors("page", f"--html {html}"):
            write_atomically(html, render_page("evaluation", "readers.html.j2", content))
        out().print(f"Page     {html.absolute()}", soft_wrap=True, markup=False)
    return tests


def _ratings(file: Path) -> pd.DataFrame:
    try:
        table = read_csv_text(file, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"The table of readers cannot be read ({str(error).splitlines()[0]}). Received: {file}"
        ) from error
    if not {"reader", "image", "rating"} <= set(table) or not len(table):
        raise DataError(
            f"A table of readers has the columns reader, image and rating. Received: {', '.join(table)} in {file}"
        )
    return table


def _task(predictions: Predictions, name: str | None) -> BinaryTask:
    tasks = {task.name: task for task in predictions.binary if task.has_both}
    if name is None and len(tasks) == 1:
        return next(iter(tasks.values()))
    if name not in tasks:
        raise DataError(
            f"Name the binary task of the ratings: {', '.join(tasks) or 'the run has none'}. Received: --task {name}"
        )
    return tasks[name]


def _threshold(points: dict, task: BinaryTask) -> float:
    """Return the operating point that was chosen on validation."""
    for point in points.get("points", []):
        if point.get("binary_task", point.get("question")) == task.name:
            return float(point["threshold"])
    raise DataError(f"The run has no operating point to compare readers with. Received: {task.name}")


def _rows(readers: list[Reader]) -> list[tuple[str, str, str, str]]:
    return [
        (one.name, str(len(one.images)), with_bounds(*one.sensitivity), with_bounds(*one.specificity))
        for one in readers
    ]


def _sentence(test: ReaderTest) -> str:
    size = f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}], p = {test.p_value:.3g}"
    values = f"{test.model:.3f} against {test.readers:.3f}"
    if test.p_value >= 0.05:
        return f"No difference in {test.metric} from the mean reader was shown: {values}, {size}."
    better = "higher" if test.difference > 0 else "lower"
    return f"The model has a {better} {test.metric} than the mean reader: {values}, {size}."


def _show(title: str, readers: list[Reader], tests: list[ReaderTest]) -> None:
    table = Table(title=escape(title), title_justify="left")
    for column in ("reader", "images", "sensitivity", "specificity"):
        table.add_column(column, overflow="fold")
    for row in _rows(readers):
        table.add_row(*map(escape, row))
    console = out()
    console.print(table)
    for test in tests:
        console.print(f"- {_sentence(test)}", markup=False)
    if len(tests) < 2:
        console.print(
            f"- No test of a rate for which a reader has read fewer than {FEWEST_GROUPS} lesions.",
            markup=False,
        )
    console.print(
        "Intervals of differences are for other readers and other images (Obuchowski & Rockette 1995, Hillis 2007).",
        soft_wrap=True,
    )
