"""A page about all runs of an experiment: ranking, tests, curves, confusion matrices and mistakes."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mlflow

from melanoma.data.cache import write_atomically, write_errors
from melanoma.errors import DataError, ModelError
from melanoma.evaluation.metrics import is_error
from melanoma.evaluation.texts import stored_text
from melanoma.tracking.names import Tag
from melanoma.tracking.records import RunRecord, find_runs
from melanoma.workflows.compare import compare_records

__all__ = ["write_experiment_page"]

_SIDE_BY_SIDE = 4  # runs whose figures are shown
_PARAMETERS = 6  # columns of parameters that differ
_DETAILS = ("augmentation.", "balance.operations", "model.", "tracking.", "data.source", "schedule.")  # not columns


def write_experiment_page(experiment: str, file: Path) -> list[RunRecord]:
    """Write the page of an experiment, and return its runs in the order of the ranking.

    The runs are ranked by the primary metric on the validation images. The first ones are compared on the test images
    that they have in common.

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
    metric = f"validation/{primary}"
    ranked = [record for record in records if metric in record.shown_metrics]
    ranked.sort(key=lambda record: record.shown_metrics[metric], reverse=not is_error(primary))
    others = [record for record in records if metric not in record.shown_metrics]  # such as the parent of folds
    first = (ranked or others)[:_SIDE_BY_SIDE]
    try:
        compared = compare_records(first, "test", common=True)
    except (DataError, ModelError):  # other classes, or no images in common
        compared = compare_records(first[:1], "test", common=True)
    columns, rows = _table([*ranked, *others], primary)
    ranking = {
        "summary": _summary(records[0].run.info.experiment_id, ranked, primary),
        "metric": metric,
        "columns": columns,
        "rows": rows,
        "findings": [(record.label, lines) for record in first if (lines := _findings(record))],
    }
    with write_errors("page", f"--html {file}"):
        write_atomically(file, compared.page(title=f"Experiment {experiment}", ranking=ranking))
    return [*ranked, *others]


def _summary(experiment_id: str, ranked: Sequence[RunRecord], primary: str) -> list[str]:
    """Return sentences on the best run, and on what limits the ranking."""
    runs = mlflow.search_runs([experiment_id], output_format="list")
    states = Counter(run.info.status for run in runs)
    lines = [f"{len(runs)} runs: " + ", ".join(f"{count} {state.lower()}" for state, count in states.items()) + "."]
    if not ranked:
        return lines
    best, metric = ranked[0], f"validation/{primary}"
    extreme = "lowest" if is_error(primary) else "highest"
    lines.append(
        f"Best: {best.label}, with the {extreme} {metric}, {stored_text(best.metrics, metric)}. On the test images its "
        f"{primary} is {stored_text(best.metrics, f'test/{primary}')}."
    )
    if len({record.digest("validation") for record in ranked}) > 1:
        lines.append("The runs were validated on different images, so that part of the ranking is due to the images.")
    if not best.protocol.is_clean:
        lines.append(f"The best run is not a clean result: {best.protocol}.")
    return lines


def _table(records: Sequence[RunRecord], primary: str) -> tuple[list[str], list[list[str]]]:
    """Return the columns and the rows of the ranking."""
    varied = _varied(records)
    metrics = list(dict.fromkeys([f"validation/{primary}", f"test/{primary}", "test/balanced_accuracy"]))
    columns = ["", "run", *metrics, "protocol", "epochs", "minutes", *varied]
    rows = []
    for number, record in enumerate(records, start=1):
        measured = record.metrics
        rows.append(
            [
                str(number) if metrics[0] in measured else "",
                record.label,
                *(stored_text(measured, name) for name in metrics),
                str(record.protocol),
                record.params.get("training.epochs", ""),
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
    return [key for key in chosen if key != "training.epochs"][:_PARAMETERS]


def _findings(record: RunRecord) -> list[str]:
    return [line for line in record.tags.get(Tag.FINDINGS, "").splitlines() if line]
