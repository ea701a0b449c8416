"""Comparison of runs: metrics with intervals side by side, and paired tests on the same images."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.markup import escape
from rich.table import Table

from melanoma.data.cache import write_atomically, write_errors
from melanoma.errors import DataError
from melanoma.evaluation.evaluate import stored_text
from melanoma.evaluation.metrics import REPORTED, is_error
from melanoma.evaluation.paired import Comparison, compare_tables, matched_predictions
from melanoma.pages import render_page
from melanoma.terminal import out, quiet_native_imports
from melanoma.tracking.store import open_store

if TYPE_CHECKING:
    from melanoma.tracking.records import RunRecord

__all__ = ["CompareOptions", "compare_runs"]

_SHOWN = (*(name for name in REPORTED if not is_error(name)), "partial_auc", *filter(is_error, REPORTED))
_FIGURES = (
    "roc",
    "confusion_matrix_normalized",
    "reliability",
    "abstention",
    "subgroups",
    "training_curves",
    "confident_mistakes",
)


@dataclass(frozen=True)
class CompareOptions:
    """Options of a comparison.

    Attributes:
        runs: IDs of runs, the reference first.
        experiment: Experiment whose finished runs are added.
        tag: Filter KEY=VALUE for the experiment's runs.
        part: `test` or `validation`.
        common: Whether to compare on the common images if the runs have different images.
        html: File for a page with the figures.
        uri: URI of the MLflow store; None for the default.
    """

    runs: list[str]
    experiment: str | None = None
    tag: str | None = None
    part: str = "test"
    common: bool = False
    html: Path | None = None
    uri: str | None = None


def compare_runs(options: CompareOptions) -> dict[str, list[Comparison]]:
    """Print metrics side by side, test each run against the first, and return the tests by run ID.

    Raises:
        ModelError: If a run does not exist or has no predictions.
        DataError: If there are fewer than two runs, if their images or classes differ, or if the page cannot be
            written.
    """
    part, html = options.part, options.html
    records = _records(options)
    tables = [record.predictions(part) for record in records]
    classes = _shared_classes(records, tables)
    reference, *others = records
    matched, images, note = matched_predictions(tables, part, options.common)
    found = {
        record.id: compare_tables(table, matched[0], classes, reference.binary_tasks)
        for record, table in zip(others, matched[1:], strict=True)
    }
    rows = _rows(records, part)
    sentences = [
        (record.label, [c.sentence(record.label, reference.label) for c in found[record.id]], found[record.id])
        for record in others
    ]
    notes = [
        f"{record.label} is not a clean result: {record.protocol}."
        for record in records
        if not record.protocol.is_clean
    ]
    warnings = [*([note] if note else []), *notes]
    _show([record.label for record in records], rows, sentences, images, part, warnings)
    if html is not None:
        figures = [(name, [record.figure(name) for record in records]) for name in _FIGURES]
        content = {
            "names": [record.label for record in records],
            "ids": [record.id for record in records],
            "rows": rows,
            "sentences": sentences,
            "figures": [(name, pictures) for name, pictures in figures if any(pictures)],
            "images": images,
            "part": part,
            "warnings": warnings,
        }
        page = render_page("evaluation", "compare.html.j2", content)
        with write_errors("page", f"--html {html}"):
            write_atomically(html, page)
        out().print(f"Page     {html.absolute()}", soft_wrap=True, markup=False)
    return found


def _records(options: CompareOptions) -> list["RunRecord"]:
    with quiet_native_imports():
        from melanoma.tracking.records import RunRecord, find_runs
    open_store(options.uri)
    of_experiment = find_runs(options.experiment, options.tag) if options.experiment is not None else []
    wanted = list(dict.fromkeys([*options.runs, *(record.id for record in of_experiment)]))
    if len(wanted) < 2:
        raise DataError(
            "A comparison needs at least two runs: give their ids, or --experiment. "
            f"Received: {', '.join(wanted) or 'none'}"
        )
    return [RunRecord.read(run_id) for run_id in wanted]


def _shared_classes(records: list["RunRecord"], tables: list[pd.DataFrame]) -> list[str]:
    """Return the classes, which must be the same in all runs."""
    from melanoma.tracking.records import class_names_in

    classes = [class_names_in(table) for table in tables]
    for record, own in zip(records, classes, strict=True):
        if set(own) != set(classes[0]):  # the order depends on the positive class
            raise DataError(
                "The runs have different classes and cannot be compared. Received: "
                f"{', '.join(own)} in {record.label}, {', '.join(classes[0])} in {records[0].label}"
            )
    return classes[0]


def _rows(records: list["RunRecord"], part: str) -> list[tuple[str, list[str]]]:
    """Return rows of the metrics that at least one run has, and a row of the protocols."""
    metrics = [record.metrics for record in records]
    names = [f"{part}/{name}" for name in _SHOWN] + [f"{part}/{task}/auc" for task in records[0].binary_tasks]
    rows = [
        (name, [stored_text(own, name) for own in metrics]) for name in names if any(name in own for own in metrics)
    ]
    return [*rows, ("protocol", [str(record.protocol) for record in records])]


def _show(
    names: list[str],
    rows: list[tuple[str, list[str]]],
    sentences: list[tuple[str, list[str], list[Comparison]]],
    images: int,
    part: str,
    warnings: list[str],
) -> None:
    console = out()
    table = Table(title=f"{images} {part} images (in brackets: confidence interval)", title_justify="left")
    table.add_column("metric")
    for name in names:
        table.add_column(escape(name))
    for name, cells in rows:
        table.add_row(escape(name), *map(escape, cells))
    console.print(table)
    for _, lines, _ in sentences:
        for line in lines:
            console.print(f"- {line}", markup=False)
    for line in warnings:
        console.print(line, style="yellow", markup=False)
