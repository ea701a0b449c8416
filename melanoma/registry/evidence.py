"""Application of the gates to what a run recorded."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from math import ceil, inf, isfinite

import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from melanoma.config.command_schema import RegistryConfig
from melanoma.errors import DataError, ModelError
from melanoma.evaluation.intervals import scarcity
from melanoma.evaluation.paired import compare_tables, matched_predictions, predictions_of_tables
from melanoma.evaluation.predictions import Bootstrap
from melanoma.evaluation.proportions import quantile, widened
from melanoma.registry.candidates import Candidate, Exclusion
from melanoma.registry.gates import (
    Gate,
    attempt_gate,
    binary_task_gate,
    champion_gate,
    interval_gate,
    limit_gates,
    protocol_gate,
    subgroup_gate,
)
from melanoma.registry.versions import promoted_versions, rolled_back
from melanoma.terminal import stage
from melanoma.tracking.looks import attempt_level, note_attempt
from melanoma.tracking.names import Artifact, Tag, stored_name
from melanoma.tracking.records import NotRecorded, RunRecord, class_names_in

__all__ = ["gates_of"]

_TAIL_DRAWS = 50  # draws outside of an interval
_REQUIRED = (Artifact.CONFIG, Artifact.PREDICTIONS)
_BY_PROTOCOL_GATE = (Exclusion.NOT_CLEAN, Exclusion.KNOWN_LEAKS)


@stage("Checking the gates")
def gates_of(chosen: Candidate, champion: ModelVersion | None, settings: RegistryConfig) -> list[Gate]:
    """Evaluate all gates except the serving gate; only the first ones if files that the others read were changed.

    To add a gate, write a function in `melanoma.registry.gates` and call it in the list below.
    """
    record = chosen.record
    gates = [protocol_gate(record.protocol, record.tags.get(Tag.KNOWN_LEAKS))]
    if chosen.excluded is not None and chosen.excluded not in _BY_PROTOCOL_GATE:
        gates.append(Gate("candidate", False, chosen.reason))
    gates.append(_evidence_gate(record))
    if not gates[-1].passed:
        return gates
    subgroup_columns = list(record.config["evaluation"].get("subgroups") or [])
    number = 1 if chosen.test_set is None else note_attempt(chosen.run_id, chosen.test_set)
    level = attempt_level(number)
    metrics = _at_level(record.metrics, record.params, level)
    found = [
        interval_gate(record.params),
        binary_task_gate(record.binary_tasks, settings.binary_tasks),
        attempt_gate(number, level),
        *limit_gates(metrics, settings.floors, settings.ceilings, _scarcity(record)),
        subgroup_gate(_hashed_subgroups(record, level), subgroup_columns, settings.subgroups),
        _champion_gate(champion, f"champion {champion.version}", record, settings, level) if champion else None,
        _anchor_gate(champion, record, settings, level) if champion else None,
    ]
    return gates + [gate for gate in found if gate is not None]


def _at_level(metrics: Mapping[str, float], params: Mapping[str, str], level: float) -> dict[str, float]:
    """Return metrics whose bounds on the test images are of a confidence level, if it is above that of the run."""
    factor = quantile(level) / quantile(float(params.get("evaluation.confidence", 0.95)))
    found = dict(metrics)
    for name, bound in metrics.items() if factor > 1 else ():
        base = name.removesuffix("_ci_low").removesuffix("_ci_high")
        if name.startswith("test/") and base != name and base in metrics:
            found[name] = widened(metrics[base], bound, factor)
    return found


def _evidence_gate(record: RunRecord) -> Gate:
    """Require that the files that the gates read have not changed since the run logged them."""
    name = "evidence"
    unknown = [path for path in _REQUIRED if not record.is_hashed(path)]
    if unknown:
        return Gate(name, False, f"the run has logged no hash of {unknown[0]}; train again")
    # The subgroup table exists only if the data has such columns; older runs logged all metrics to the database.
    paths = [*_REQUIRED, *(path for path in (Artifact.METRICS, Artifact.SUBGROUPS) if record.is_hashed(path))]
    try:
        for path in paths:
            record.text(path)
    except ModelError as error:
        return Gate(name, False, str(error).splitlines()[0])
    return Gate(name, True, f"{', '.join(paths)}: as the run has logged them")


def _hashed_subgroups(record: RunRecord, level: float) -> pd.DataFrame:
    """Return the subgroups, with bounds of a confidence level."""
    if not record.is_hashed(Artifact.SUBGROUPS):
        return pd.DataFrame()
    rows = []
    for row in record.subgroups.to_dict("records"):
        numbers = {f"test/{name}": float(text) for name, text in row.items() if _is_number(text)}
        wider = _at_level(numbers, record.params, level)
        rows.append(row | {name.removeprefix("test/"): str(value) for name, value in wider.items() if "_ci_" in name})
    return pd.DataFrame(rows)


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False


def _scarcity(record: RunRecord) -> dict[str, str]:
    """Return the metrics of each part for which it has too few images, with the reason."""
    found: dict[str, str] = {}
    for part in ("validation", "test"):
        with suppress(NotRecorded):  # a run that only evaluated has no validation images
            table = record.predictions(part)
            [predictions] = predictions_of_tables([table], class_names_in(table), record.binary_tasks)
            found |= {f"{part}/{name}": reason for name, reason in scarcity(predictions).items()}
    return found


def _anchor_gate(champion: ModelVersion, ours: RunRecord, settings: RegistryConfig, level: float) -> Gate | None:
    """Compare with the best champion so far, if it is not the present one, so that margins do not add up."""
    metric = f"test/{settings.champion.metric}"
    best, value = champion, _value_of(champion, metric, ours.digest("test"))
    withdrawn = rolled_back(champion.name)
    for version in promoted_versions(champion.name):
        other = _value_of(version, metric, ours.digest("test"))
        if version.run_id not in (*withdrawn, champion.run_id, ours.id) and other > value:
            best, value = version, other
    if best is champion:
        return None
    return _champion_gate(best, f"best champion so far, {best.version}", ours, settings, level)


def _value_of(version: ModelVersion, metric: str, test_set: str | None) -> float:
    """Return a metric of a version's run on a test set; minus infinity if it has none."""
    try:
        record = RunRecord.read(version.run_id)
        same = test_set is not None and record.digest("test") == test_set
        return record.metrics.get(stored_name(metric), -inf) if same else -inf
    except ModelError:
        return -inf


def _champion_gate(
    champion: ModelVersion, title: str, ours: RunRecord, settings: RegistryConfig, level: float
) -> Gate | None:
    metric = settings.champion.metric
    gate = partial(champion_gate, champion=title, settings=settings.champion)
    if gate([]) is None:
        return None
    name, task = f"against {title}, {metric}", metric.rpartition("/")[0]
    try:
        if not champion.run_id:
            raise ModelError("it was registered without a run")
        theirs = RunRecord.read(champion.run_id)
        tables = [theirs.predictions("test"), ours.predictions("test")]
        classes, other = (class_names_in(table) for table in reversed(tables))
        if set(other) != set(classes):
            raise DataError(f"it has other classes: {', '.join(other)}")
        if theirs.binary_tasks.get(task) != ours.binary_tasks.get(task):
            raise DataError(f"{task} is of {theirs.binary_tasks.get(task)}, and here of {ours.binary_tasks.get(task)}")
    except (ModelError, DataError) as error:
        return Gate(name, False, f"cannot be compared: {error}")
    try:
        (reference, model), _, _ = matched_predictions(tables, "test", False)
    except DataError:
        return Gate(name, False, "cannot be compared: the two runs have different test images")
    [compared] = predictions_of_tables([model], classes, ours.binary_tasks)
    draws = Bootstrap(ceil(_TAIL_DRAWS / (1 - level)), level)
    found = compare_tables(model, reference, classes, ours.binary_tasks, draws)
    return gate(found, reason=scarcity(compared).get(metric, "not measured on both"))
