"""Logging of subgroup metrics."""

import logging
from collections.abc import Sequence

import pandas as pd

from melanoma.config.schema import EvaluationConfig
from melanoma.data.dataset import Dataset
from melanoma.evaluation import plots
from melanoma.evaluation.evaluate import Evaluation
from melanoma.evaluation.metrics import HEADLINES
from melanoma.evaluation.predictions import Bootstrap
from melanoma.evaluation.skin_tone import ESTIMATED_TONE, estimated_tone
from melanoma.evaluation.subgroups import Subgroup, measure_subgroups, worst_subgroup
from melanoma.terminal import stage
from melanoma.tracking.names import Artifact, Tag
from melanoma.tracking.run import Run

__all__ = ["log_subgroups"]

_CHUNK = 256
log = logging.getLogger("melanoma")


@stage("Measuring the subgroups")
def log_subgroups(
    run: Run, evaluation: Evaluation, dataset: Dataset, settings: EvaluationConfig, bootstrap: Bootstrap
) -> None:
    """Log the metrics of the subgroups of a part as a table, a figure and metrics, and the worst subgroup."""
    rows = evaluation.rows
    if ESTIMATED_TONE in settings.subgroups and ESTIMATED_TONE not in rows:
        chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
        tones = pd.concat([estimated_tone(dataset.pixels(chunk)) for chunk in chunks])
        rows = rows.assign(**{ESTIMATED_TONE: tones.to_numpy()})
    found = measure_subgroups(rows, evaluation.predictions, settings, bootstrap)
    if not found:
        return
    main = next((f"{task.prefix}auc" for task in evaluation.predictions.binary), "accuracy")
    run.log_evidence(_subgroup_table(found).to_csv(index=False), Artifact.SUBGROUPS)
    for subgroup in found:
        prefix = f"{evaluation.part}/subgroup/{subgroup.column}/{subgroup.value}"
        shown = {name: subgroup.metrics[name] for name in dict.fromkeys((main, *HEADLINES)) if name in subgroup.metrics}
        run.log_measures({f"{prefix}/images": subgroup.images, **{f"{prefix}/{k}": v for k, v in shown.items()}})
    run.log_figure(plots.subgroup_figure(found, evaluation, main), "subgroups", vector=True)
    worst = worst_subgroup(found, main)
    if worst is not None:
        low, high = worst.intervals.get(main, (float("nan"), float("nan")))
        text = f"{worst.column} {worst.value}: {main} {worst.metrics[main]:.3f} [{low:.3f}, {high:.3f}]"
        run.set_tags({Tag.WORST_SUBGROUP: text})
        log.info("Worst subgroup: %s, %d images", text, worst.images)


def _subgroup_table(found: Sequence[Subgroup]) -> pd.DataFrame:
    rows = []
    for one in found:
        bounds = {f"{name}_ci_low": low for name, (low, _) in one.intervals.items()}
        bounds |= {f"{name}_ci_high": high for name, (_, high) in one.intervals.items()}
        assessed = "yes" if one.metrics else "no: too few images"
        fixed = {"column": one.column, "value": one.value, "images": one.images, "assessed": assessed}
        rows.append({**fixed, **one.metrics, **bounds})
    return pd.DataFrame(rows)
