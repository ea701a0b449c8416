"""A page about all runs of an experiment: ranking, tests, curves, confusion matrices and mistakes."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mlflow
import numpy as np

from melanoma.data.cache import write_atomically, write_errors
from melanoma.errors import DataError, ModelError
from melanoma.evaluation.metrics import is_error
from melanoma.evaluation.texts import stored_text
from melanoma.tracking.names import Tag
from melanoma.tracking.records import RunRecord, find_runs, without_children
from melanoma.workflows.compare import compare_records

__all__ = ["write_experiment_page"]

_SIDE_BY_SIDE = 4  # runs whose figures are shown
_PARAMETERS = 6  # columns of parameters that differ
# Not columns: details of a choice, what has a column, and what was found, not chosen.
_DETAILS = (
    "augmentation.", "balance.operations", "model.", "tracking.", "data.source", "schedule.", "fit.", "protocol",
)  # fmt: skip


def write_experiment_page(experiment: str, file: Path) -> list[RunRecord]:
    """Write the page of an experiment, and return its runs in the order of the ranking.

    Clean results are ranked by the primary metric on the validation images, the others follow; folds and seeds are
    part of their parent run. The first ones are compared on the test images that they have in common.

    Args:
        experiment: Name of the experiment.
        file: HTML file to write.

    Raises:
        ModelError: If the experiment does not exist.
        DataError: If it has no finished run with results, or if the page cannot be written.
    """
    records = find_runs(experiment)
    if not records:
        raise DataError(
            "The experiment has no finished run with test results; train first, as in `melanoma train "
            f"tracking.experiment={experiment}`. Received: {experiment}"
        )
    primary = Counter(record.tags.get(Tag.PRIMARY_METRIC, "auc") for record in records).most_common(1)[0][0]
    ranked, others, limits = _ranked(records, f"validation/{primary}")
    first = (ranked or others)[:_SIDE_BY_SIDE]
    try:
        compared = compare_records(first, "test", common=True)
    except (DataError, ModelError) as error:
        limits.append(f"The first runs are not compared with each other. {error}")
        compared = compare_records(first[:1], "test", common=True)
    columns, rows = _table(ranked, others, primary)
    ranking = {
        "summary": [*_summary(records[0].run.info.experiment_id, ranked, primary), *limits],
        "metric": f"validation/{primary}",
        "columns": columns,
        "rows": rows,
        "findings": [(record.label, lines) for record in compared.records if (lines := _findings(record))],
    }
    with write_errors("page", f"--html {file}"):
        write_atomically(file, compared.page(title=f"Experiment {experiment}", ranking=ranking))
    return [*ranked, *others]


def _ranked(records: Sequence[RunRecord], metric: str) -> tuple[list[RunRecord], list[RunRecord], list[str]]:
    """Return the ranked runs, the other runs, and sentences on why these are not ranked."""
    records = without_children(records)
    measured = [record for record in records if np.isfinite(_value(record, metric))]
    tasks = Counter(_task(record) for record in measured).most_common(1)
    ranked = [record for record in measured if _task(record) == tasks[0][0]]
    sign = 1 if is_error(metric) else -1
    ranked.sort(key=lambda record: (not record.protocol.is_clean, sign * _value(record, metric)))
    of_other_task, unclean = len(measured) - len(ranked), sum(not record.protocol.is_clean for record in ranked)
    limits = []
    if of_other_task:
        limits.append(f"Not ranked, because their task, classes or positive class differ: {_runs(of_other_task)}.")
    if unclean and unclean < len(ranked):
        limits.append(f"Ranked last, because they are not clean results: {_runs(unclean)}.")
    others = [record for record in records if record not in ranked]
    return ranked, others, limits


def _value(record: RunRecord, metric: str) -> float:
    """Return the value that ranks a run, NaN if there is none; for a cross-validation, the mean over its folds."""
    measured = record.metrics
    return measured.get(metric, measured.get(f"{metric}_mean", np.nan))


def _task(record: RunRecord) -> tuple[str, ...]:
    """Return what must be equal in runs that are ranked together: the task, the classes and the positive class."""
    prefix = "test/sensitivity/"
    classes = sorted(name.removeprefix(prefix) for name in record.metrics if name.startswith(prefix))
    names = [name for name in classes if "_ci_" not in name and not name.endswith(("_mean", "_std"))]
    return (record.task, record.tags.get(Tag.POSITIVE, ""), *names)


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"


def _summary(experiment_id: str, ranked: Sequence[RunRecord], primary: str) -> list[str]:
    """Return sentences on the best run, and on what limits the ranking."""
    runs = mlflow.search_runs([experiment_id], output_format="list")
    states = Counter(run.info.status for run in runs)
    lines = [f"{_runs(len(runs))}: " + ", ".join(f"{count} {state.lower()}" for state, count in states.items()) + "."]
    if not ranked:
        return lines
    best, metric = ranked[0], f"validation/{primary}"
    extreme = "lowest" if is_error(primary) else "highest"
    lines.append(
        f"Best: {best.label}, with the {extreme} {metric}, {_text(best, metric)}. On the test images its {primary} is "
        f"{_text(best, f'test/{primary}')}."
    )
    if len({record.digest("validation") for record in ranked}) > 1:
        lines.append("The runs were validated on different images, so that part of the ranking is due to the images.")
    if not best.protocol.is_clean:
        lines.append(f"The best run is not a clean result: {best.protocol}.")
    return lines


def _text(record: RunRecord, name: str) -> str:
    """Return a metric as text, with its interval; of the validation of a cross-validation, the mean over its folds."""
    measured = record.metrics
    if name in measured or f"{name}_mean" not in measured:
        return stored_text(measured, name)
    return f"{measured[f'{name}_mean']:.3f} (mean over folds)"


def _table(ranked: Sequence[RunRecord], others: Sequence[RunRecord], primary: str) -> tuple[list[str], list[list[str]]]:
    """Return the columns and the rows of the ranking."""
    varied = _varied([*ranked, *others])
    metrics = list(dict.fromkeys([f"validation/{primary}", f"test/{primary}", "test/balanced_accuracy"]))
    columns = ["", "run", *metrics, "protocol", "epochs", "minutes", *varied]
    rows = []
    for number, record in enumerate([*ranked, *others], start=1):
        measured = record.metrics
        rows.append(
            [
                str(number) if number <= len(ranked) else "",
                record.label,
                *(_text(record, name) for name in metrics),
                str(record.protocol),
                f"{measured['fit/epochs']:.0f}" if "fit/epochs" in measured else "",
                f"{measured['fit/seconds'] / 60:.1f}" if "fit/seconds" in measured else "",
                *(record.params.get(key, "") for key in varied),
            ]
        )
    return columns, rows


def _varied(records: Sequence[RunRecord]) -> list[str]:
    """Return the parameters that differ between runs, without details of a choice such as the layers of a model."""
    keys = dict.fromkeys(key for record in records for key in record.params)
    differing = [key for key in keys if len({record.params.get(key) for record in records}) > 1]
    chosen = [
        key
        for key in differing
        if key in ("model.name", "augmentation.name") or (not key.startswith(_DETAILS) and "_target_" not in key)
    ]
    return chosen[:_PARAMETERS]


def _findings(record: RunRecord) -> list[str]:
    return [line for line in record.tags.get(Tag.FINDINGS, "").splitlines() if line]
