"""The tables and the figure of the reference experiments and our experiments, in the README of `experiments/`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np

from melanoma.data.cache import write_atomically
from melanoma.errors import DataError
from melanoma.evaluation.plots import GREEN, GREY, ORANGE
from melanoma.evaluation.texts import stored_text
from melanoma.report.references import Measured, Reference, gain, read_references, runs_of
from melanoma.tracking.names import Tag
from melanoma.tracking.records import RunRecord

__all__ = ["write_report"]

_REFERENCE = "<!-- written by `melanoma report experiments` -->"
_OURS = "<!-- ours, written by `melanoma report experiments` -->"
_END = "<!-- end -->"
_BEST = ("melanoma10k_best", "isic9_best")
_METRICS = ("test/accuracy", "test/balanced_accuracy", "test/auc")
_FIGURE = "results.png"


def write_report(folder: Path) -> list[Reference]:
    """Write the tables between their markers in `README.md` of a folder, and the figure next to it.

    Raises:
        DataError: If the store has no run of a reference experiment, or if the README has no markers for a table.
    """
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    for begin in (_REFERENCE, _OURS):
        _filled(text, begin, "", readme)  # fails before the runs are read, which takes a minute
    references = read_references()
    if not any(one.reproduced or one.honest for one in references):
        raise DataError(
            "The tracking store has no run of a reference experiment; run one, as in `melanoma train "
            f"experiment=isic9_m1 data.path=ZIP`. Received: experiments {', '.join(one.name for one in references)}"
        )
    for begin, table in ((_REFERENCE, _table(references)), (_OURS, _table_of_ours())):
        text = _filled(text, begin, table, readme)
    _drawn(references).savefig(folder / _FIGURE, dpi=120)
    write_atomically(readme, text)
    return references


def _filled(text: str, begin: str, content: str, readme: Path) -> str:
    before, found, rest = text.partition(begin)
    _, end, after = rest.partition(_END)
    if not found or not end:
        raise DataError(f"The file has no place for the table, between {begin} and {_END}. Received: {readme}")
    return f"{before}{begin}\n\n{content}\n{_END}{after}"


def _table(references: Sequence[Reference]) -> str:
    lines = [
        "| experiment | published | reproduced | its last epoch: training, validation | clean, validation | "
        "honest: clean, test | inflation | seeds | fit | code |",
        f"{'|---' * 10}|",
    ]
    for one in references:
        ours, theirs = one.honest, one.reproduced
        cells = [f"[`{one.name}`]({one.name}.yaml)", f"{one.published:.1%}"]
        if theirs is None:
            cells += ["not run", ""]
        else:
            last = f"{theirs.mean('train/accuracy'):.1%}, {theirs.mean('val/accuracy'):.1%}"
            cells += [f"{theirs.mean('validation/accuracy'):.1%}", last]
        cells += ["not run"] * 2 if ours is None else [f"{ours.mean('validation/accuracy'):.1%}", str(ours.test)]
        cells.append("" if one.inflation is None else one.inflation.points)
        cells.append("" if ours is None else _by_seed(ours))
        cells.append("" if ours is None else f"{ours.mean('fit/seconds') / 60:.1f} min")
        cells.append(_commits([run for measured in (theirs, ours) if measured for run in measured.runs]))
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"- `{one.name}`: {one.note}" for one in references if one.note]
    gained = _gained({one.name: one for one in references})
    return "\n".join([*lines, "", *notes, "", *gained, f"![published, reproduced and honest accuracy]({_FIGURE})", ""])


def _by_seed(measured: Measured) -> str:
    return ", ".join(f"{run.config['seed']}: {run.metrics['test/accuracy']:.1%}" for run in measured.runs)


def _commits(runs: Sequence[RunRecord]) -> str:
    found = dict.fromkeys(run.tags.get(Tag.COMMIT, "")[:7] for run in runs)
    return ", ".join(filter(None, found))


def _table_of_ours() -> str:
    """Format the latest clean run of each of our best experiments; for a cross-validation, over all folds."""
    lines = [
        "| experiment | test images | accuracy | balanced accuracy | AUC | fit | code |",
        f"{'|---' * 7}|",
    ]
    for name in _BEST:
        runs = runs_of(name, "model.weights")
        whole = [r for r in runs if r.protocol.is_clean and Tag.PARENT not in r.tags]
        if not whole:
            lines.append(f"| [`{name}`]({name}.yaml) | not run | | | | | |")
            continue
        run = whole[-1]
        folds = [fold for fold in runs if fold.tags.get(Tag.PARENT) == run.id]
        minutes = np.mean([one.metrics["fit/seconds"] for one in folds or [run]]) / 60
        cells = [
            f"[`{name}`]({name}.yaml)",
            f"{len(run.predictions()):,}" + (f", in {len(folds)} folds" if folds else ""),
            *(stored_text(run.metrics, name) if name in run.metrics else "" for name in _METRICS),
            f"{minutes:.1f} min" + (" each" if folds else ""),
            _commits([run]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _gained(references: Mapping[str, Reference]) -> list[str]:
    """Describe the effect of the rebalancing of M3 over M2: as reported, and on clean test images."""
    before, after = references["isic9_m2"], references["isic9_m3"]
    lines = []
    if before.reproduced and after.reproduced:
        reported = [f"{one.mean('validation/accuracy'):.1%}" for one in (before.reproduced, after.reproduced)]
        test = [f"{one.test.value:.1%}" for one in (before.reproduced, after.reproduced)]
        lines.append(
            f"**Rebalancing, as it was reported** (M2 to M3): {' to '.join(reported)} of validation, which for M3 "
            f"includes augmented images. The same networks on the delivered test images: {' to '.join(test)}."
        )
    if before.honest and after.honest:
        changes = [
            f"{name} {before.honest.mean(metric):.{digits}} to {after.honest.mean(metric):.{digits}}"
            for name, metric, digits in (
                ("validation accuracy", "validation/accuracy", "1%"),
                ("test accuracy", "test/accuracy", "1%"),
                ("test AUC", "test/auc", "3f"),
            )
        ]
        lines.append(
            f"**M3 less M2, by the clean protocol**: {gain(before.honest, after.honest).points} on test, for the seeds "
            f"that both have; {', '.join(changes)}, for all seeds. It is rebalancing and all else in which M3 differs: "
            "more images an epoch, and 50 epochs where M2 has 20. The test set has its classes in nearly equal shares, "
            "as the rebalanced training set has."
        )
    return [line for text in lines for line in (text, "")]


def _drawn(references: Sequence[Reference]) -> matplotlib.figure.Figure:
    shown = [one for one in references if one.reproduced or one.honest][::-1]
    figure = matplotlib.figure.Figure(figsize=(8.5, 1.2 + 0.42 * len(shown)), layout="constrained")
    axes = figure.subplots()
    marks: dict[str, dict[str, Any]] = {
        "published": {"color": GREY, "marker": "|", "s": 160},
        "reproduced (their validation)": {"color": ORANGE, "marker": "o", "s": 40},
        "the same, at the classes' shares of the test": {"facecolors": "white", "edgecolors": ORANGE, "s": 40},
        "clean, test, with its interval": {"color": GREEN, "marker": "o", "s": 40},
    }
    for label, style in marks.items():
        points = [(value, y) for y, one in enumerate(shown) if (value := _values(one)[label]) is not None]
        axes.scatter(*zip(*points, strict=True), label=label, zorder=3, **style) if points else None
    for y, one in enumerate(shown):
        values = [value for value in _values(one).values() if value is not None]
        axes.plot([min(values), max(values)], [y, y], color="#DDDDDD", linewidth=1, zorder=1)
        if one.honest:
            axes.plot(
                [one.honest.test.low, one.honest.test.high], [y, y], color=GREEN, linewidth=3, alpha=0.35, zorder=2
            )
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_yticks(range(len(shown)), [one.name for one in shown])
    axes.set_xlabel("accuracy")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure


def _values(one: Reference) -> dict[str, float | None]:
    ours, theirs = one.honest, one.reproduced
    return {
        "published": one.published,
        "reproduced (their validation)": None if theirs is None else theirs.mean("validation/accuracy"),
        "the same, at the classes' shares of the test": (
            None if ours is None or one.inflation is None else ours.test.value + one.inflation.value
        ),
        "clean, test, with its interval": None if ours is None else ours.test.value,
    }
