"""The reference studies as published, as re-created and as they are, and ours: tables and a figure from the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import yaml

from melanoma.data.cache import write_atomically
from melanoma.errors import DataError, ModelError
from melanoma.evaluation.evaluate import stored_text
from melanoma.evaluation.intervals import draws
from melanoma.evaluation.paired import matched_predictions
from melanoma.evaluation.plots import BLUE, GREEN, GREY, ORANGE
from melanoma.tracking.predictions import ComparedRun, find_runs, load_run

__all__ = ["Study", "read_studies", "write_report"]

_REFERENCE = "<!-- written by `melanoma report experiments` -->"
_OURS = "<!-- ours, written by `melanoma report experiments` -->"
_END = "<!-- end -->"
_BEST = ("melanoma10k_best", "isic9_best")
_METRICS = ("test/accuracy", "test/balanced_accuracy", "test/auc")
_RESAMPLES = 2000
_FIGURE = "results.png"


@dataclass(frozen=True)
class Measured:
    """One protocol of a study.

    Attributes:
        runs: the latest of each seed.
        seeds: of these.
        validation: mean accuracy on the images that were called validation.
        test: mean accuracy on the delivered test images.
        low: lower bound of that mean's 95% interval, over test images.
        high: upper bound.
        last_training: mean accuracy on the training images, as augmented, in the last epoch, whichever was kept.
        last_validation: the same on validation images.
        minutes: mean time of the fit.
    """

    runs: list[ComparedRun]
    seeds: list[int]
    validation: float
    test: float
    low: float
    high: float
    last_training: float
    last_validation: float
    minutes: float


@dataclass(frozen=True)
class Study:
    """A reference study.

    Attributes:
        name: of the experiment.
        published: accuracy.
        note: to what was published.
        reproduced: under `protocol=published`; None where it was not run.
        honest: under the clean protocol.
    """

    name: str
    published: float
    note: str
    reproduced: Measured | None
    honest: Measured | None


def read_studies() -> list[Study]:
    """What the tracking store knows of each reference study, in the order of `published.yaml`."""
    text = resources.files("melanoma.report").joinpath("published.yaml").read_text(encoding="utf-8")
    studies = []
    for name, known in yaml.safe_load(text).items():
        runs = _runs_of(name)
        both = [_measured(runs, protocol) for protocol in ("published", "clean")]
        studies.append(Study(name, float(known["accuracy"]), known.get("note", ""), *both))
    return studies


def write_report(folder: Path) -> list[Study]:
    """Write the tables into `README.md` of a folder, between their marks, and the figure beside it.

    Raises:
        DataError: the store has none of the studies, or the README has no place for a table.
    """
    studies = read_studies()
    if not any(study.reproduced or study.honest for study in studies):
        raise DataError(
            "The tracking store has no run of a reference study; run one, as in `melanoma train experiment=isic9_m1 "
            f"data.path=ZIP`. Received: experiments {', '.join(study.name for study in studies)}"
        )
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    for begin, table in ((_REFERENCE, _table(studies)), (_OURS, _table_of_ours())):
        text = _filled(text, begin, table, readme)
    _drawn(studies).savefig(folder / _FIGURE, dpi=120)
    write_atomically(readme, text)
    return studies


def _filled(text: str, begin: str, content: str, readme: Path) -> str:
    before, found, rest = text.partition(begin)
    _, end, after = rest.partition(_END)
    if not found or not end:
        raise DataError(f"The file has no place for the table, between {begin} and {_END}. Received: {readme}")
    return f"{before}{begin}\n\n{content}\n{_END}{after}"


def _runs_of(name: str) -> list[ComparedRun]:
    """All runs of a study, oldest first; none where it was not run."""
    try:
        return [load_run(run_id, "test") for run_id in find_runs(name, None)]
    except ModelError:
        return []  # no such experiment


def _measured(found: Sequence[ComparedRun], protocol: str) -> Measured | None:
    own = [run for run in found if run.tags.get("melanoma.protocol", "").split(",")[0] == protocol]
    by_seed = {int(run.params["seed"]): run for run in own}
    if not by_seed:
        return None
    runs = [by_seed[seed] for seed in sorted(by_seed)]
    test, low, high = _mean_on_test(runs)

    def mean(metric: str) -> float:
        return float(np.mean([run.metrics[metric] for run in runs]))

    return Measured(
        runs=runs,
        seeds=sorted(by_seed),
        validation=mean("validation/accuracy"),
        test=test,
        low=low,
        high=high,
        last_training=mean("train/accuracy"),
        last_validation=mean("val/accuracy"),
        minutes=mean("fit/seconds") / 60,
    )


def _mean_on_test(runs: Sequence[ComparedRun], before: Sequence[ComparedRun] = ()) -> tuple[float, float, float]:
    """Mean accuracy of several runs on the same test images, with its interval: groups of images are drawn anew.

    With runs `before` it is by how much the mean of these is exceeded, image by image. The interval is of these trained
    networks; how much another seed would change is not in it.
    """
    matched, _, _ = matched_predictions([run.predictions for run in (*before, *runs)], "test", False)
    first = matched[0]
    hits = [(table.predicted == table.label).to_numpy(float) for table in matched]
    right = np.mean(hits[len(before) :], axis=0) - (np.mean(hits[: len(before)], axis=0) if before else 0.0)
    targets = first.label.astype("category").cat.codes.to_numpy()
    groups = first["group"].to_numpy() if "group" in first else None
    weights = draws(targets, groups, _RESAMPLES, np.random.default_rng(0))
    low, high = np.quantile(weights @ right / weights.sum(axis=1), [0.025, 0.975])
    return float(right.mean()), float(low), float(high)


def _table(studies: Sequence[Study]) -> str:
    lines = [
        "| study | published | reproduced | its last epoch: training, validation | clean, validation | "
        "honest: clean, test | inflation | seeds | fit |",
        f"{'|---' * 9}|",
    ]
    for study in studies:
        ours, theirs = study.honest, study.reproduced
        cells = [
            f"[`{study.name}`]({study.name}.yaml)",
            f"{study.published:.1%}",
            "not run" if theirs is None else f"{theirs.validation:.1%}",
            "" if theirs is None else f"{theirs.last_training:.1%}, {theirs.last_validation:.1%}",
            "not run" if ours is None else f"{ours.validation:.1%}",
            "not run" if ours is None else f"{ours.test:.1%} [{ours.low:.1%}, {ours.high:.1%}]",
            "" if ours is None or theirs is None else f"{100 * (theirs.validation - ours.test):+.1f} points",
            " / ".join(_seeds(measured) for measured in (theirs, ours)),
            "" if ours is None else f"{ours.minutes:.1f} min",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"- `{study.name}`: {study.note}" for study in studies if study.note]
    gained = _gained({study.name: study for study in studies})
    return "\n".join([*lines, "", *notes, "", *gained, f"![published, reproduced and honest accuracy]({_FIGURE})", ""])


def _table_of_ours() -> str:
    """The latest clean run of each of our best studies; of a cross-validation all test images, each in its fold."""
    lines = ["| study | test images | accuracy | balanced accuracy | AUC | fit |", "|---|---|---|---|---|---|"]
    for name in _BEST:
        runs = _runs_of(name)
        whole = [r for r in runs if r.tags.get("melanoma.protocol") == "clean" and "mlflow.parentRunId" not in r.tags]
        if not whole:
            lines.append(f"| [`{name}`]({name}.yaml) | not run | | | | |")
            continue
        run = whole[-1]
        folds = [fold for fold in runs if fold.tags.get("mlflow.parentRunId") == run.id]
        minutes = np.mean([one.metrics["fit/seconds"] for one in folds or [run]]) / 60
        cells = [
            f"[`{name}`]({name}.yaml)",
            f"{len(run.predictions):,}" + (f", in {len(folds)} folds" if folds else ""),
            *(stored_text(run.metrics, name) if name in run.metrics else "" for name in _METRICS),
            f"{minutes:.1f} min" + (" each" if folds else ""),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _seeds(measured: Measured | None) -> str:
    return "-" if measured is None else ", ".join(map(str, measured.seeds))


def _gained(studies: Mapping[str, Study]) -> list[str]:
    """What the rebalancing of M3 brought over M2: as it was told, and on test images that no copy stands beside."""
    before, after = studies["isic9_m2"], studies["isic9_m3"]
    lines = []
    if before.reproduced and after.reproduced:
        told, on_test = [
            f"{getattr(before.reproduced, part):.1%} to {getattr(after.reproduced, part):.1%}"
            for part in ("validation", "test")
        ]
        lines.append(
            f"**Rebalancing, as it was told** (M2 to M3): {told} of validation, where copies of training images stand. "
            f"The same networks on the delivered test images: {on_test}."
        )
    if before.honest and after.honest:
        gain, low, high = (100 * value for value in _mean_on_test(after.honest.runs, before.honest.runs))
        lines.append(
            f"**What it brought**, by the clean protocol: validation {before.honest.validation:.1%} to "
            f"{after.honest.validation:.1%}, test {before.honest.test:.1%} to {after.honest.test:.1%}, which is "
            f"{gain:+.1f} points [{low:+.1f}, {high:+.1f}]. M3 also trains for 50 epochs where M2 has 20."
        )
    return [line for text in lines for line in (text, "")]


def _drawn(studies: Sequence[Study]) -> matplotlib.figure.Figure:
    shown = [study for study in studies if study.reproduced or study.honest][::-1]
    figure = matplotlib.figure.Figure(figsize=(8.5, 1.2 + 0.42 * len(shown)), layout="constrained")
    axes = figure.subplots()
    marks: dict[str, dict[str, Any]] = {
        "published": {"color": GREY, "marker": "|", "s": 160},
        "reproduced (their validation)": {"color": ORANGE, "marker": "o", "s": 40},
        "clean, validation": {"color": BLUE, "marker": "o", "s": 40, "facecolors": "white"},
        "clean, test, with its interval": {"color": GREEN, "marker": "o", "s": 40},
    }
    for label, style in marks.items():
        points = [(value, y) for y, study in enumerate(shown) if (value := _values(study)[label]) is not None]
        axes.scatter(*zip(*points, strict=True), label=label, zorder=3, **style) if points else None
    for y, study in enumerate(shown):
        values = [value for value in _values(study).values() if value is not None]
        axes.plot([min(values), max(values)], [y, y], color="#DDDDDD", linewidth=1, zorder=1)
        if study.honest:
            axes.plot([study.honest.low, study.honest.high], [y, y], color=GREEN, linewidth=3, alpha=0.35, zorder=2)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_yticks(range(len(shown)), [study.name for study in shown])
    axes.set_xlabel("accuracy")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure


def _values(study: Study) -> dict[str, float | None]:
    ours, theirs = study.honest, study.reproduced
    return {
        "published": study.published,
        "reproduced (their validation)": None if theirs is None else theirs.validation,
        "clean, validation": None if ours is None else ours.validation,
        "clean, test, with its interval": None if ours is None else ours.test,
    }
