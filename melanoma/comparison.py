"""Runs side by side: metrics with intervals, and paired tests on the same images."""

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from melanoma.data.cache import write_atomically, writing
from melanoma.errors import DataError
from melanoma.evaluation.evaluate import stored_text
from melanoma.evaluation.paired import Comparison, compare_tables, matched_predictions
from melanoma.pages import rendered
from melanoma.terminal import out, quiet_native_imports
from melanoma.tracking.store import open_store

__all__ = ["compare_runs"]

_HEADLINES = (
    "accuracy", "balanced_accuracy", "macro_f1", "mcc", "auc", "average_precision", "partial_auc", "log_loss",
    "brier", "ece",
)  # fmt: skip
_FIGURES = (
    "roc",
    "confusion_matrix_normalized",
    "reliability",
    "abstention",
    "subgroups",
    "training_curves",
    "confident_mistakes",
)


def compare_runs(
    runs: list[str],
    *,
    experiment: str | None,
    tag: str | None,
    part: str,
    common: bool,
    html: Path | None,
    uri: str | None,
) -> dict[str, list[Comparison]]:
    """Print metrics side by side and test each run against the first; returns the tests by run id.

    Args:
        runs: ids, the reference first.
        experiment: adds the finished runs of an experiment.
        tag: KEY=VALUE, of the experiment's runs.
        part: `test` or `validation`.
        common: compare on the images that all have in common, where they differ.
        html: file for a page with the figures.
        uri: the MLflow store, or None for the default.

    Raises:
        ModelError: a run is not there or has no predictions.
        DataError: fewer than two runs, other test images or classes, or the page cannot be written.
    """
    with quiet_native_imports():
        from melanoma.tracking.predictions import figure_of, find_runs, load_run
    open_store(uri)
    wanted = list(dict.fromkeys([*runs, *(find_runs(experiment, tag) if experiment is not None else [])]))
    if len(wanted) < 2:
        raise DataError(
            f"Two runs or more are compared: give their ids, or --experiment. Received: {', '.join(wanted) or 'none'}"
        )
    loaded = [load_run(run_id, part) for run_id in wanted]
    reference, *others = loaded
    for run in others:
        if run.classes != reference.classes:
            raise DataError(
                "The runs know other classes and cannot be compared. "
                f"Received: {', '.join(run.classes)} in {run.name}, {', '.join(reference.classes)} in {reference.name}"
            )
    matched, images, note = matched_predictions([run.predictions for run in loaded], part, common)
    found = {
        run.id: compare_tables(table, matched[0], reference.classes, reference.views)
        for run, table in zip(others, matched[1:], strict=True)
    }
    names = [f"{part}/{name}" for name in _HEADLINES] + [f"{part}/{question}/auc" for question in reference.views]
    rows = [
        (name, [stored_text(run.metrics, name) for run in loaded])
        for name in names
        if any(name in run.metrics for run in loaded)
    ]
    rows.append(("protocol", [run.tags.get("melanoma.protocol", "unknown") for run in loaded]))
    sentences = [
        (run.name, [c.sentence(run.name, reference.name) for c in found[run.id]], found[run.id]) for run in others
    ]
    warnings = [*([note] if note else []), *_protocol_notes({run.name: run.tags for run in loaded})]
    _show([run.name for run in loaded], rows, sentences, images, part, warnings)
    if html is not None:
        figures = [(name, [figure_of(run.id, name) for run in loaded]) for name in _FIGURES]
        content = {
            "names": [run.name for run in loaded],
            "ids": [run.id for run in loaded],
            "rows": rows,
            "sentences": sentences,
            "figures": [(name, pictures) for name, pictures in figures if any(pictures)],
            "images": images,
            "part": part,
            "warnings": warnings,
        }
        page = rendered("evaluation", "compare.html.j2", content)
        with writing("page", f"--html {html}"):
            write_atomically(html, page)
        out().print(f"Page     {html.absolute()}", soft_wrap=True, markup=False)
    return found


def _protocol_notes(tags: dict[str, dict[str, str]]) -> list[str]:
    return [
        f"{name} is not a clean result: {own['melanoma.protocol']}."
        for name, own in tags.items()
        if own.get("melanoma.protocol", "clean") != "clean"
    ]


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
