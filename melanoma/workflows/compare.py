"""Comparison of runs: metrics with intervals side by side, and paired tests on the same images."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from melanoma.data.cache import write_atomically, write_errors
from melanoma.errors import DataError
from melanoma.evaluation.intervals import intervals_of, scarcity
from melanoma.evaluation.metrics import PAIRED, REPORTED, is_error, measure
from melanoma.evaluation.paired import (
    Comparison,
    corrected,
    matched_predictions,
    predictions_of_tables,
)
from melanoma.evaluation.predictions import Bootstrap, Predictions
from melanoma.evaluation.seeds import compare_over_seeds, over_seeds
from melanoma.evaluation.texts import named_bounds, stored_text
from melanoma.pages import render_page
from melanoma.terminal import out, quiet_native_imports
from melanoma.tracking.names import Tag
from melanoma.tracking.store import open_store

if TYPE_CHECKING:
    from melanoma.tracking.records import RunRecord

__all__ = ["CompareOptions", "Compared", "compare_records", "compare_runs"]

_SHOWN = (*(name for name in REPORTED if not is_error(name)), "partial_auc", *filter(is_error, REPORTED))
_FIGURES = (
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


@dataclass(frozen=True)
class Compared:
    """Runs that were compared on the same images.

    Attributes:
        records: Records of the runs, the reference first.
        part: `test` or `validation`.
        images: Number of images.
        rows: Name of each metric, and its text for each run.
        tests: Tests of each run against the reference, by run ID.
        warnings: What limits the comparison.
        predictions: Predictions of each run for the same images, one for each of its seeds.
    """

    records: list["RunRecord"]
    part: str
    images: int
    rows: list[tuple[str, list[str]]]
    tests: dict[str, list[Comparison]]
    warnings: list[str]
    predictions: list[list[Predictions]]

    @property
    def names(self) -> list[str]:
        """Names of the runs."""
        return [record.label for record in self.records]

    @property
    def sentences(self) -> list[tuple[list[str], list[Comparison]]]:
        """The conclusions of the tests of each run, and the tests."""
        names = {record.id: record.label for record in self.records}
        return [
            ([one.sentence(names[run_id], self.names[0]) for one in tests], tests)
            for run_id, tests in self.tests.items()
        ]

    def page(self, **content: Any) -> str:
        """Render a page with tables and figures.

        Args:
            **content: Additional variables of the template.
        """
        figures = [(name, [record.figure(name) for record in self.records]) for name in _FIGURES]
        return render_page(
            "evaluation",
            "compare.html.j2",
            {
                "title": None,
                "ranking": None,
                "names": self.names,
                "ids": [record.id for record in self.records],
                "rows": self.rows,
                "sentences": self.sentences,
                "overlays": _overlays(self.records, self.predictions),
                "figures": [(name, pictures) for name, pictures in figures if any(pictures)],
                "images": self.images,
                "part": self.part,
                "warnings": self.warnings,
                **content,
            },
        )


def compare_runs(options: CompareOptions) -> dict[str, list[Comparison]]:
    """Print metrics side by side, test each run against the first, and return the tests by run ID.

    Raises:
        ModelError: If a run does not exist or has no predictions.
        DataError: If there are fewer than two runs, if their images or classes differ, or if the page cannot be
            written.
    """
    compared = compare_records(_records(options), options.part, options.common)
    _show(compared)
    if options.html is not None:
        with write_errors("page", f"--html {options.html}"):
            write_atomically(options.html, compared.page())
        out().print(f"Page     {options.html.absolute()}", soft_wrap=True, markup=False)
    return compared.tests


def compare_records(records: list["RunRecord"], part: str, common: bool) -> Compared:
    """Compare runs with the first of them.

    Args:
        records: Records of the runs.
        part: `test` or `validation`.
        common: Whether to compare on the common images if the runs have different images.

    Raises:
        ModelError: If a run has no predictions.
        DataError: If the images or the classes of the runs differ.
    """
    from melanoma.tracking.looks import note_comparison
    from melanoma.tracking.records import class_names_in

    members = [member for record in records for member in record.members]
    twice = [member.label for place, member in enumerate(members) if member.id in {m.id for m in members[:place]}]
    if twice:
        raise DataError(
            f"A run cannot be compared with itself, or with the seeds that it is one of. Received: {twice[0]}"
        )
    tables = [member.predictions(part) for member in members]
    orders = [class_names_in(table) for table in tables]
    classes = _shared_classes(members, orders)
    matched, images, note = matched_predictions(tables, part, common)
    remaining = iter(predictions_of_tables(matched, classes, records[0].binary_tasks))
    predictions = [[next(remaining) for _ in record.members] for record in records]
    primary = records[0].tags.get(Tag.PRIMARY_METRIC, "auc")
    tests = {
        record.id: compare_over_seeds(own, predictions[0], Bootstrap())
        for record, own in zip(records[1:], predictions[1:], strict=True)
    }
    tests = corrected(tests, primary)
    if part == "test":
        note_comparison(members[0].id)
    other_positive = [
        member.label for member, order in zip(members, orders, strict=True) if len(classes) == 2 and order != classes
    ]
    notes = [
        f"{note} So are the metrics; the figures are those of each run's own images." if note else "",
        f"{', '.join(other_positive)} had {classes[0]} as the positive class; here it is {classes[1]}."
        if other_positive
        else "",
        *_untested(predictions[0][0]),
        _on_seeds(records),
        _on_tests(tests, primary),
        f"The best of {len(records)} runs on the test images looks better than it is: choose by a validation metric."
        if part == "test" and len(records) > 2
        else "",
        *(
            f"{record.label} is not a clean result: {record.protocol}."
            for record in records
            if not record.protocol.is_clean
        ),
    ]
    as_stored = not note and not other_positive
    measured = [r.metrics for r in records] if as_stored else [_measured(own, part) for own in predictions]
    rows = [*_rows(measured, part, records[0].binary_tasks), ("protocol", [str(r.protocol) for r in records])]
    return Compared(records, part, images, rows, tests, list(filter(None, notes)), predictions)


def _on_seeds(records: list["RunRecord"]) -> str:
    """Return what is not known if only some of the runs have several seeds."""
    single = [record.label for record in records if len(record.members) == 1]
    if len(single) in (0, len(records)):
        return ""
    return (
        f"{', '.join(single)}: one seed, so that it is not known how much the result depends on it; the other runs "
        "have several."
    )


def _on_tests(tests: dict[str, list[Comparison]], primary: str) -> str:
    """Return how many tests there are, and how their p-values are corrected."""
    of_primary = sum(one.metric == primary for found in tests.values() for one in found)
    others = sum(len(found) for found in tests.values()) - of_primary
    if of_primary + others < 2:
        return ""
    counts = [f"{of_primary} of {primary}, the primary metric"] if of_primary else []
    counts += [f"{others} of other metrics"] if others else []
    return f"{of_primary + others} tests: {', '.join(counts)}. The p-values of each kind are corrected (Holm)."


def _untested(predictions: Predictions) -> list[str]:
    """Return a sentence for each cause that metrics are not tested, with the metrics."""
    scarce, by_reason = scarcity(predictions), dict[str, list[str]]()
    tasks = [f"{task.prefix}auc" for task in predictions.binary if task.prefix]
    for name in (*PAIRED, *tasks):
        if name in scarce:
            by_reason.setdefault(scarce[name], []).append(name)
    return [f"No test of {', '.join(names)}: {reason}." for reason, names in by_reason.items()]


def _measured(predictions: list[Predictions], part: str) -> dict[str, float]:
    """Return metrics of the compared images, because those that a run stored are of other images or another task."""
    metrics, bounds = [measure(own) for own in predictions], [intervals_of(own, Bootstrap()) for own in predictions]
    values, ends = metrics[0], bounds[0]
    if len(predictions) > 1:
        over = over_seeds(predictions, metrics, bounds)
        values = {name: one.mean for name, one in over.items()}
        ends = {name: one.both for name, one in over.items() if one.both is not None}
    found = {f"{part}/{name}": value for name, value in values.items()}
    for name, (low, high) in ends.items():
        found |= named_bounds(f"{part}/{name}", low, high)
    return found


def _overlays(records: list["RunRecord"], compared: list[list[Predictions]]) -> list[str]:
    from melanoma.evaluation.overlays import as_data_url, learning_curves_of_runs, roc_of_runs

    members = [member for record in records for member in record.members]
    predictions = dict(zip((member.label for member in members), chain(*compared), strict=True))
    metric = f"val/{records[0].tags.get(Tag.PRIMARY_METRIC, 'loss')}"
    histories = {member.label: member.history(metric) for member in members}
    drawn = (roc_of_runs(predictions), learning_curves_of_runs(histories, metric))
    return [as_data_url(figure) for figure in drawn if figure is not None]


def _refuse_fewer_than_two(runs: list[str]) -> None:
    if len(set(runs)) < 2:
        raise DataError(
            "A comparison needs at least two runs: give their ids, or --experiment. "
            f"Received: {', '.join(runs) or 'none'}"
        )


def _records(options: CompareOptions) -> list["RunRecord"]:
    if options.experiment is None:
        _refuse_fewer_than_two(options.runs)
    with quiet_native_imports():
        from melanoma.tracking.records import RunRecord, find_runs, without_children
    open_store(options.uri)
    of_experiment = find_runs(options.experiment, options.tag) if options.experiment is not None else []
    wanted = list(dict.fromkeys([*options.runs, *(record.id for record in without_children(of_experiment))]))
    _refuse_fewer_than_two(wanted)
    return [RunRecord.read(run_id) for run_id in wanted]


def _shared_classes(records: list["RunRecord"], orders: list[list[str]]) -> list[str]:
    """Return the classes, which must be the same in all runs."""
    for record, own in zip(records, orders, strict=True):
        if set(own) != set(orders[0]):  # the order depends on the positive class
            raise DataError(
                "The runs have different classes and cannot be compared. Received: "
                f"{', '.join(own)} in {record.label}, {', '.join(orders[0])} in {records[0].label}"
            )
    return orders[0]


def _rows(measured: list[dict[str, float]], part: str, binary_tasks: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return rows of the metrics that at least one run has."""
    names = [f"{part}/{name}" for name in _SHOWN] + [f"{part}/{task}/auc" for task in binary_tasks]
    points = f"{part}/operating_point/"  # each run has its own threshold
    ends = ("/sensitivity", "/specificity")
    names += [name for name in measured[0] if name.startswith(points) and name.endswith(ends)]
    return [
        (name, [stored_text(own, name) for own in measured]) for name in names if any(name in own for own in measured)
    ]


def _show(compared: Compared) -> None:
    console = out()
    title = f"{compared.images} {compared.part} images (in brackets: confidence interval)"
    table = Table(title=title, title_justify="left")
    for column in ("metric", *compared.names):
        table.add_column(escape(column), overflow="fold")
    for name, cells in compared.rows:
        table.add_row(escape(name), *map(escape, cells))
    console.print(table)
    for lines, _ in compared.sentences:
        for line in lines:
            console.print(f"- {line}", markup=False)
    for line in compared.warnings:
        console.print(line, style="yellow", markup=False)
