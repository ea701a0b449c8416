"""Logging of subgroup metrics."""

import logging
from collections.abc import Sequence

import pandas as pd

from melanoma.config.schema import EvaluationConfig
from melanoma.data.csv_text import csv_text
from melanoma.data.dataset import Dataset
from melanoma.evaluation import plots
from melanoma.evaluation.evaluate import Evaluation
from melanoma.evaluation.metrics import HEADLINES
from melanoma.evaluation.operating_point import OperatingPoint
from melanoma.evaluation.predictions import Bootstrap
from melanoma.evaluation.skin_tone import ESTIMATED_TONE, estimated_tone
from melanoma.evaluation.subgroups import (
    UNKNOWN,
    Subgroup,
    as_columns,
    measure_subgroups,
    subgroup_metric,
    worst_subgroup,
)
from melanoma.evaluation.texts import with_bounds
from melanoma.terminal import stage
from melanoma.tracking.names import Artifact, Tag
from melanoma.tracking.run import Run

__all__ = ["log_subgroups"]

_CHUNK = 256
log = logging.getLogger("melanoma")


@stage("Measuring the subgroups")
def log_subgroups(
    run: Run,
    evaluation: Evaluation,
    dataset: Dataset,
    settings: EvaluationConfig,
    bootstrap: Bootstrap,
    points: Sequence[OperatingPoint] = (),
) -> None:
    """Log the metrics of the subgroups of a part as a table, a figure and metrics, and the lowest subgroup.

    Columns that were skipped and subgroups that differ from the other images are told as warnings.
    """
    rows = evaluation.rows
    if ESTIMATED_TONE in settings.subgroups and ESTIMATED_TONE not in rows:
        chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
        tones = pd.concat([estimated_tone(dataset.pixels(chunk)) for chunk in chunks])
        rows = rows.assign(**{ESTIMATED_TONE: tones.to_numpy()})
    found = measure_subgroups(rows, evaluation.predictions, settings, bootstrap, points)
    if not found:
        return
    main = subgroup_metric(evaluation.predictions)
    run.log_evidence(csv_text(pd.DataFrame([as_columns(one, main) for one in found])), Artifact.SUBGROUPS)
    values = [one for one in found if one.value]
    for subgroup in values:
        prefix = f"{evaluation.part}/subgroup/{subgroup.column}/{subgroup.value}"
        shown = {name: subgroup.metrics[name] for name in dict.fromkeys((main, *HEADLINES)) if name in subgroup.metrics}
        run.log_measures({f"{prefix}/images": subgroup.images, **{f"{prefix}/{k}": v for k, v in shown.items()}})
    if values:
        run.log_figure(plots.subgroup_figure(values, evaluation, main), "subgroups", vector=True)
    for text in _warnings(found, main):
        log.warning("%s", text)
    worst = worst_subgroup(found, main)
    if worst is not None:
        assessed = sum(one.is_assessed and one.value != UNKNOWN for one in found)
        text = f"{worst.column} {worst.value}: {main} {with_bounds(worst.metrics[main], *worst.intervals[main])}"
        text += f", the lowest of {assessed}" if assessed > 1 else ""
        run.set_tags({Tag.WORST_SUBGROUP: text})
        log.info("Lowest subgroup: %s, %d images", text, worst.images)


def _warnings(found: Sequence[Subgroup], main: str) -> list[str]:
    """Return a sentence for each column that was skipped, and for each subgroup that differs from the others."""
    skipped = [
        f"No subgroups by {one.column}: it has {one.reason}. Group its values, or leave it out of evaluation.subgroups."
        for one in found
        if not one.value
    ]
    differing = [
        f"{one.column} {one.value} differs from the other images: {main} by {with_bounds(value, low, high, sign='+')}, "
        f"an interval for all subgroups by {one.column} together."
        for one in found
        for value, low, high in [one.differences.get(main, (0.0, 0.0, 0.0))]
        if low > 0 or high < 0
    ]
    return skipped + differing
