"""`melanoma plan`: what the test images of a data set can show, before anything is trained."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig
from rich.markup import escape
from rich.table import Table

from melanoma.config.command_schema import PlanConfig
from melanoma.config.launch import typed
from melanoma.config.schema import FOLDED, OperatingPointConfig, TrainConfig
from melanoma.data.split import PARTS
from melanoma.evaluation.planning import (
    chance_of_auc,
    chance_of_difference,
    chance_of_mean,
    chance_of_mean_auc,
    chance_of_rate,
    detectable_difference,
    expected_auc,
    expected_mean,
    expected_mean_auc,
    expected_rate,
    mean_auc,
    smallest_multiple,
    specificity_at,
)
from melanoma.evaluation.proportions import FEWEST_GROUPS, Bounded
from melanoma.evaluation.texts import with_bounds
from melanoma.terminal import log_to, out, stage
from melanoma.workflows.defaults import with_defaults
from melanoma.workflows.source_checks import check_binary_tasks, check_split, kept_classes
from melanoma.workflows.stages import clean_images, prepare_once, read_source

__all__ = ["plan"]

Counts = tuple[int, ...]


@dataclass(frozen=True)
class _Row:
    """A metric of the test images.

    Attributes:
        name: Name in the tracking store.
        images: Numbers of lesions, or of images where lesions are not known, on which it depends.
        words: Function that describes such numbers.
        value: Assumed value.
        expected: The value with its interval; None if there are too few images.
        chance: How often the lower bound is at least a floor, for a floor and such numbers.
    """

    name: str
    images: Counts
    words: Callable[[Counts], str]
    value: float
    expected: Bounded | None
    chance: Callable[[float, Counts], float]


def plan(config: DictConfig, overrides: list[str], folder: Path) -> None:  # noqa: ARG001 - all commands get these
    """Audit and split the images, and print expected intervals, chances of gates, and differences that can be found.

    Args:
        config: Composed configuration of `melanoma plan`.
        overrides: Overrides of the command line.
        folder: Folder for the log file.

    Raises:
        DataError: If the images cannot be split.
    """
    log_to(folder, "plan")
    settings: PlanConfig = typed(PlanConfig, config)
    training = TrainConfig(data=settings.data, audit=settings.audit, split=settings.split, seed=settings.seed)
    source = read_source(settings.data)
    check_binary_tasks(settings.data.binary_tasks, kept_classes(settings.data, source.classes))
    check_split(training, source)
    training, source = with_defaults(training, source)
    folded = settings.split.method in FOLDED and settings.split.fold is None
    dataset = (clean_images if folded else prepare_once)(training, source)[1]
    table = dataset.table[dataset.table.parent == ""]
    tested = (table.assign(part="test") if folded else table)[lambda rows: rows.part == "test"]
    _show_images(table, dataset.classes, folded)
    named = settings.data.binary_tasks if len(dataset.classes) > 2 else {"": dataset.classes[-1:]}
    positive = {task: tested.label.isin(labels) for task, labels in named.items()}
    tasks: dict[str, Counts] = {task: (_groups(tested, own), _groups(tested, ~own)) for task, own in positive.items()}
    rows = list(_rows(settings, tested, dataset.classes, tasks))
    _show_intervals(rows)
    _show_gates(rows, settings)
    for task, images in tasks.items():
        _show_comparison(settings, task, images)


def _groups(table: pd.DataFrame, chosen: pd.Series) -> int:
    return int(table.group[chosen].nunique())


def _rows(settings: PlanConfig, tested: pd.DataFrame, classes: list[str], tasks: dict[str, Counts]) -> Iterator[_Row]:
    expect, seed = settings.expect, settings.seed
    for task, images in tasks.items():
        few, many = images
        yield _Row(
            f"test/{task}/auc" if task else "test/auc",
            images,
            _two_sides,
            expect.auc,
            expected_auc(expect.auc, few, many, seed),
            lambda floor, sizes: chance_of_auc(expect.auc, floor, sizes[0], sizes[1], seed),
        )
        yield from _at_operating_point(task or classes[-1], images, expect.auc)
    counts = {label: _groups(tested, tested.label == label) for label in classes}
    present = tuple(count for count in counts.values() if count)
    if len(classes) > 2:
        yield _Row(
            "test/auc",
            present,
            _all_classes,
            mean_auc(expect.auc, present, seed),
            expected_mean_auc(expect.auc, present, seed),
            lambda floor, sizes: chance_of_mean_auc(expect.auc, floor, sizes, seed),
        )
    yield _Row(
        "test/balanced_accuracy",
        present,
        _all_classes,
        expect.sensitivity,
        expected_mean(expect.sensitivity, present),
        lambda floor, sizes: chance_of_mean(expect.sensitivity, floor, sizes, seed),
    )
    for label, count in counts.items():
        yield _Row(
            f"test/sensitivity/{label}",
            (count,),
            partial(_of_class, label),
            expect.sensitivity,
            expected_rate(expect.sensitivity, count),
            partial(_chance_of_rate, expect.sensitivity),
        )


def _at_operating_point(task: str, images: Counts, auc: float) -> Iterator[_Row]:
    """Yield the rates at the default operating point, as if its sensitivity were that on validation."""
    sensitivity = OperatingPointConfig().sensitivity
    sides = {
        "sensitivity": (sensitivity, images[0], "positive"),
        "specificity": (specificity_at(auc, sensitivity), images[1], "negative"),
    }
    for name, (value, count, side) in sides.items():
        yield _Row(
            f"test/operating_point/{task}/{name}",
            (count,),
            partial(_of_side, side),
            value,
            expected_rate(value, count),
            partial(_chance_of_rate, value),
        )


def _chance_of_rate(value: float, floor: float, images: Counts) -> float:
    return chance_of_rate(value, floor, images[0])


def _of_side(side: str, images: Counts) -> str:
    return f"{images[0]} {side}"


def _two_sides(images: Counts) -> str:
    return f"{images[0]} positive, {images[1]} negative"


def _all_classes(images: Counts) -> str:
    return f"{sum(images)} of {len(images)} classes"


def _of_class(label: str, images: Counts) -> str:
    return f"{images[0]} of {label}"


def _smallest(chance: Callable[[Counts], float], images: Counts, power: float) -> Counts | None:
    """Return the smallest numbers in the same ratio for which the chance is large enough; None if there are none."""

    def multiplied(times: float) -> Counts:
        return tuple(max(ceil(count * times), 1) for count in images)

    times = smallest_multiple(lambda times: chance(multiplied(times)), power)
    return None if times is None else multiplied(times)


def _show_images(table: pd.DataFrame, classes: list[str], folded: bool) -> None:
    parts = {"test (each image once)": PARTS} if folded else {part: (part,) for part in PARTS}
    shown = Table(title="Images (in brackets: lesions, patients or clusters of copies)", title_justify="left")
    shown.add_column("class", overflow="fold")
    for title in parts:
        shown.add_column(title)
    for label in classes:
        rows = table[table.label == label]
        cells = [rows if folded else rows[rows.part.isin(named)] for named in parts.values()]
        shown.add_row(escape(label), *(f"{len(own)} ({own.group.nunique()})" for own in cells))
    out().print(shown)


@stage("Simulating intervals")
def _show_intervals(rows: Sequence[_Row]) -> None:
    shown = Table(title="Expected 95% intervals on the test images", title_justify="left")
    for title in ("metric", "images", "if it is"):
        shown.add_column(title, overflow="fold")
    for row in rows:
        text = f"no interval: fewer than {FEWEST_GROUPS}" if row.expected is None else with_bounds(*row.expected)
        shown.add_row(escape(row.name), escape(row.words(row.images)), text)
    out().print(shown)


@stage("Simulating gates")
def _show_gates(rows: Sequence[_Row], settings: PlanConfig) -> None:
    known = {row.name: row for row in rows}
    floors = {name: float(floor) for name, floor in settings.registry.floors.items() if floor is not None}
    if not floors:
        return
    shown = Table(title="Gates of melanoma promote, if the model has these values", title_justify="left")
    for title in ("gate", "if it is", "passes", f"images to pass in {settings.power:.0%}"):
        shown.add_column(title, overflow="fold")
    for name, floor in floors.items():
        row, gate = known.get(name), escape(f"{name} >= {floor:g}")
        if row is None:
            shown.add_row(gate, "", "not simulated", "")
        elif row.value <= floor:
            shown.add_row(
                gate, f"{row.value:.3f}", f"{row.chance(floor, row.images):.0%}", "none: it is not above the floor"
            )
        else:
            chance = partial(row.chance, floor)
            needed = _smallest(chance, row.images, settings.power)
            size = "more than 1,000 times as many" if needed is None else row.words(needed)
            shown.add_row(gate, f"{row.value:.3f}", f"{chance(row.images):.0%}", escape(size))
    out().print(shown)


@stage("Simulating comparisons")
def _show_comparison(settings: PlanConfig, task: str, images: Counts) -> None:
    expect, power, gate = settings.expect, settings.power, settings.registry.champion

    def chance(difference: float, margin: float | None, sizes: Counts) -> float:
        few, many = sizes
        return chance_of_difference(
            expect.auc, difference, few, many, correlation=expect.correlation, margin=margin, seed=settings.seed
        )

    questions = {f"a difference of {expect.difference:g} is found": partial(chance, expect.difference, None)}
    if gate.rule == "non_inferiority":
        questions[f"an equal model passes the champion gate (margin {gate.margin:g})"] = partial(
            chance, 0.0, gate.margin
        )
    shown = Table(title=escape(f"Two models compared by the AUC{f' of {task}' if task else ''}"), title_justify="left")
    for title in ("question", "chance", f"images for {power:.0%}"):
        shown.add_column(title, overflow="fold")
    for question, own in questions.items():
        needed = _smallest(own, images, power)
        size = "more than 1,000 times as many" if needed is None else _two_sides(needed)
        shown.add_row(question, f"{own(images):.0%}", size)
    found = detectable_difference(
        expect.auc, images[0], images[1], correlation=expect.correlation, power=power, seed=settings.seed
    )
    out().print(shown)
    least = "none: there are too few images" if found is None else f"{found:.3f} or more"
    out().print(f"Difference that is found in {power:.0%}: {least}", highlight=False)
