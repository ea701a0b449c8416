"""What a run shows for itself, put through the gates."""

from functools import partial
from io import StringIO

import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from melanoma.config.command_schema import RegistryConfig
from melanoma.errors import DataError, ModelError
from melanoma.evaluation.paired import compare_tables, matched_predictions
from melanoma.registry.candidates import Candidate
from melanoma.registry.gates import (
    Gate,
    champion_gate,
    interval_gate,
    limit_gates,
    protocol_gate,
    question_gate,
    subgroup_gate,
)
from melanoma.tracking.predictions import config_of, load_run
from melanoma.tracking.run import EVIDENCE, evidence

__all__ = ["gates_of"]

_SUBGROUPS = "evaluation/subgroups.csv"  # not there where no subgroup is known
_RESTS_ON = ("config/resolved.yaml", "evaluation/predictions.csv")


def gates_of(chosen: Candidate, champion: ModelVersion | None, settings: RegistryConfig) -> list[Gate]:
    """All gates but that of serving; only the first ones where the others would rest on changed files."""
    gates = [protocol_gate(chosen.tags)]
    # Of the protocol and its leaks the gate above speaks.
    if chosen.excluded is not None and not chosen.excluded.startswith(("protocol ", "known leaks")):
        gates.append(Gate("candidate", False, chosen.excluded))
    gates.append(_recorded(chosen))
    if not gates[-1].passed:
        return gates
    config = config_of(chosen.run_id)
    looked_at = list(config["evaluation"].get("subgroups") or [])
    found = [
        interval_gate(chosen.params),
        question_gate(config["data"].get("views") or {}, settings.views),
        *limit_gates(chosen.metrics, settings.floors, settings.ceilings),
        subgroup_gate(_subgroups(chosen), looked_at, settings.subgroups),
        _against(champion, chosen, settings),
    ]
    return gates + [gate for gate in found if gate is not None]


def _recorded(chosen: Candidate) -> Gate:
    """The files that the gates look at are as the run has logged them."""
    name = "evidence"
    unknown = [path for path in _RESTS_ON if f"{EVIDENCE}{path}" not in chosen.tags]
    if unknown:
        return Gate(name, False, f"the run has logged no hash of {unknown[0]}; train again")
    paths = [*_RESTS_ON, *([_SUBGROUPS] if f"{EVIDENCE}{_SUBGROUPS}" in chosen.tags else [])]
    try:
        for path in paths:
            evidence(chosen.run_id, path)
    except (ModelError, MlflowException, OSError) as error:
        return Gate(name, False, str(error).splitlines()[0])
    return Gate(name, True, f"{', '.join(paths)}: as the run has logged them")


def _subgroups(chosen: Candidate) -> pd.DataFrame:
    if f"{EVIDENCE}{_SUBGROUPS}" not in chosen.tags:
        return pd.DataFrame()
    return pd.read_csv(StringIO(evidence(chosen.run_id, _SUBGROUPS)), keep_default_na=False, dtype=str)


def _against(champion: ModelVersion | None, chosen: Candidate, settings: RegistryConfig) -> Gate | None:
    if champion is None:
        return None
    title, metric = f"champion {champion.version}", settings.champion.metric
    gate = partial(champion_gate, champion=title, settings=settings.champion)
    if gate([]) is None:
        return None
    question = metric.rpartition("/")[0]
    try:
        if not champion.run_id:
            raise ModelError("it was registered without a run")
        theirs, ours = load_run(champion.run_id, "test"), load_run(chosen.run_id, "test")
        if theirs.classes != ours.classes:
            raise DataError(f"it knows other classes: {', '.join(theirs.classes)}")
        if theirs.views.get(question) != ours.views.get(question):
            raise DataError(f"{question} is of {theirs.views.get(question)}, and here of {ours.views.get(question)}")
    except (ModelError, DataError) as error:
        return Gate(f"against {title}, {metric}", False, f"cannot be compared: {error}")
    try:
        (reference, model), _, _ = matched_predictions([theirs.predictions, ours.predictions], "test", False)
    except DataError:
        return Gate(f"against {title}, {metric}", False, "cannot be compared: the two were tested on other images")
    return gate(compare_tables(model, reference, ours.classes, ours.views))
