"""Application of the gates to what a run recorded."""

from contextlib import suppress
from functools import partial

import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from melanoma.config.command_schema import RegistryConfig
from melanoma.errors import DataError, ModelError
from melanoma.evaluation.intervals import scarcity
from melanoma.evaluation.paired import compare_tables, matched_predictions, predictions_of_tables
from melanoma.registry.candidates import Candidate, Exclusion
from melanoma.registry.gates import (
    Gate,
    binary_task_gate,
    champion_gate,
    interval_gate,
    limit_gates,
    protocol_gate,
    subgroup_gate,
)
from melanoma.terminal import stage
from melanoma.tracking.names import Artifact, Tag
from melanoma.tracking.records import NotRecorded, RunRecord, class_names_in

__all__ = ["gates_of"]

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
    found = [
        interval_gate(record.params),
        binary_task_gate(record.binary_tasks, settings.binary_tasks),
        *limit_gates(record.metrics, settings.floors, settings.ceilings, _scarcity(record)),
        subgroup_gate(_hashed_subgroups(record), subgroup_columns, settings.subgroups),
        _champion_gate(champion, record, settings),
    ]
    return gates + [gate for gate in found if gate is not None]


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


def _hashed_subgroups(record: RunRecord) -> pd.DataFrame:
    return record.subgroups if record.is_hashed(Artifact.SUBGROUPS) else pd.DataFrame()


def _scarcity(record: RunRecord) -> dict[str, str]:
    """Return the metrics of each part for which it has too few images, with the reason."""
    found: dict[str, str] = {}
    for part in ("validation", "test"):
        with suppress(NotRecorded):  # a run that only evaluated has no validation images
            table = record.predictions(part)
            [predictions] = predictions_of_tables([table], class_names_in(table), record.binary_tasks)
            found |= {f"{part}/{name}": reason for name, reason in scarcity(predictions).items()}
    return found


def _champion_gate(champion: ModelVersion | None, ours: RunRecord, settings: RegistryConfig) -> Gate | None:
    if champion is None:
        return None
    title, metric = f"champion {champion.version}", settings.champion.metric
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
    found = compare_tables(model, reference, classes, ours.binary_tasks)
    return gate(found, reason=scarcity(compared).get(metric, "not measured on both"))
