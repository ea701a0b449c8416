"""Promotion: make the best run by a validation metric the champion if it passes the gates."""

import logging
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import mlflow
from mlflow.entities.model_registry import ModelVersion
from rich.markup import escape
from rich.table import Table

from melanoma.card.card import abridged
from melanoma.config.command_schema import PromoteConfig, RegistryConfig
from melanoma.errors import ConfigError, ModelError, PromotionRefused
from melanoma.evaluation.metrics import is_error
from melanoma.registry.candidates import (
    Candidate,
    Exclusion,
    candidate_of,
    find_candidates,
    primary_metric,
    ranked,
    task_of,
)
from melanoma.registry.evidence import gates_of
from melanoma.registry.gates import Gate
from melanoma.registry.smoke import smoke_gate
from melanoma.registry.trail import Decision, new_decision, write_down
from melanoma.registry.versions import (
    PROMOTED,
    alias_of,
    carry_out,
    register,
    registry_lock,
    repair,
    rolled_back,
    withdraw,
)
from melanoma.serving.package import save_package, write_package
from melanoma.terminal import out
from melanoma.tracking.names import Alias, Artifact, Tag, stored_name
from melanoma.tracking.records import RunRecord
from melanoma.tracking.registered import model_name
from melanoma.tracking.store import command_on_store, predict_command

__all__ = ["promote"]

log = logging.getLogger("melanoma")

_MAX_DESCRIPTION = 5000
_SHOWN = 15


def promote(settings: PromoteConfig, uri: str) -> ModelVersion | None:
    """Promote the best run of an experiment, or a given run.

    Args:
        settings: Settings of the command.
        uri: URI of the MLflow store.

    Returns:
        The version that became the champion; None for a dry run, or if the run is already the champion.

    Raises:
        PromotionRefused: If no run is a candidate, or if the run failed a gate.
        ModelError: If the run or the experiment does not exist.
    """
    settings = _with_metric(settings)
    task = settings.task or task_of(_listed(settings))
    name = model_name(task)
    with registry_lock(uri, name):
        if not settings.dry_run:
            for sentence in repair(name):
                log.warning("%s", sentence)
        champion = alias_of(name, Alias.CHAMPION)
        listed = _listed(settings)  # again, because another promotion or a rollback may have finished in the meantime
        chosen = listed[0] if settings.run else _best(listed, settings.registry, task, champion)
        if settings.run is not None and not chosen.run_id.startswith(settings.run):
            log.info("The run has several seeds; the best by %s is %s", settings.registry.metric, chosen.record.label)
        if chosen.task != task:
            raise ModelError(f"The run is of another task than {task}. Received: run={settings.run} of {chosen.task}")
        if champion is not None and champion.run_id == chosen.run_id:
            out().print(f"{chosen.name} is the champion already: {name}, version {champion.version}", markup=False)
            return None
        gates = gates_of(chosen, champion, settings.registry)
        if settings.dry_run:
            _dry_run(chosen, champion, name, gates, settings.registry, uri)
            return None
        if not all(gate.passed for gate in gates):
            raise _refused(name, chosen, None, champion, gates, settings.registry)
        version = _registered(name, task, chosen, champion, gates, settings.registry, uri)
    uri_typed, address = settings.tracking.uri, f"models:/{name}@{Alias.CHAMPION}"
    lines = {
        "Use": predict_command(address, uri_typed),
        "Serve": command_on_store(uri_typed, "serve", f"model={address}"),
    }
    if champion is not None:
        lines["Undo"] = command_on_store(uri_typed, "rollback", f"task={task}")
    for title, command in lines.items():
        out().print(f"{title:10}{command}", soft_wrap=True, markup=False)
    return version


def _registered(
    name: str,
    task: str,
    chosen: Candidate,
    compared: ModelVersion | None,
    gates: list[Gate],
    settings: RegistryConfig,
    uri: str,
) -> ModelVersion:
    """Register the package, run the smoke test of serving, and make it the champion."""
    package = save_package(chosen.run_id)
    version = register(name, task, package.address, package.model_id, chosen.run_id, package.tags)
    try:
        serving = [smoke_gate(f"models:/{name}/{version.version}", chosen.run_id, uri)] if settings.smoke_test else []
        champion = alias_of(name, Alias.CHAMPION)
        if _number(champion) != _number(compared):
            gates = gates_of(chosen, champion, settings)  # changed by a rollback or by another machine
        gates = [*gates, *serving]
        if not all(gate.passed for gate in gates):
            raise _refused(name, chosen, version, champion, gates, settings)
        decision = new_decision("promote", version, champion, chosen.run_id, [])
        write_down(name, decision)
        _record(chosen, version, decision, gates, settings)
    except PromotionRefused:
        raise
    except BaseException:
        withdraw(version)
        raise
    carry_out(name, decision)
    _show_gates(chosen, gates)
    was = f" (previous: version {champion.version})" if champion else ""
    out().print(f"Promoted: {name}, version {version.version}, is the champion{was}", markup=False)
    return version


def _with_metric(settings: PromoteConfig) -> PromoteConfig:
    """Fill in `registry.metric` and `registry.direction`.

    Raises:
        ConfigError: If the given direction is not that of the metric.
    """
    registry = settings.registry
    metric = registry.metric or f"validation/{primary_metric(settings)}"
    direction: Literal["maximize", "minimize"] = "minimize" if is_error(metric) else "maximize"
    if registry.direction not in (None, direction):
        raise ConfigError(
            [f"registry.direction must be {direction} for {metric}. Received: registry.direction={registry.direction}"]
        )
    return replace(settings, registry=replace(registry, metric=metric, direction=direction))


def _listed(settings: PromoteConfig) -> list[Candidate]:
    """Return the given run, or all runs of the experiment."""
    if settings.run is None:
        return find_candidates(settings.tracking.experiment, str(settings.registry.metric))
    return [candidate_of(settings.run, str(settings.registry.metric))]


def _number(version: ModelVersion | None) -> str | None:
    return None if version is None else str(version.version)


def _best(listed: list[Candidate], settings: RegistryConfig, task: str, champion: ModelVersion | None) -> Candidate:
    test_set = None
    if champion is not None:
        try:
            test_set = candidate_of(champion.run_id or "", str(settings.metric)).test_set
        except ModelError:
            log.warning(
                "The run of the champion no longer exists: %s", champion.run_id or "it was registered without one"
            )
    withdrawn = rolled_back(model_name(task))
    listed = [
        replace(one, excluded=Exclusion.ROLLED_BACK) if one.excluded is None and one.run_id in withdrawn else one
        for one in listed
    ]
    order = ranked(listed, task, test_set)
    if not order:
        raise ModelError(f"No run of the experiment is of this task. Received: task={task}")
    table = Table(title=f"Runs of task {task} by {settings.metric}", title_justify="left")
    for column in ("run", "name", str(settings.metric), ""):
        table.add_column(column)
    place = 0
    for one in order[:_SHOWN]:
        place += one.excluded is None
        table.add_row(one.run_id, escape(one.name), one.text, escape(one.reason or f"candidate {place}"))
    out().print(table)
    if len(order) > _SHOWN:
        out().print(f"... and {len(order) - _SHOWN} more")
    if any(one.excluded is Exclusion.OTHER_IMAGES for one in order):
        out().print(
            "Runs that were validated or tested on other images cannot be ranked with these; name one with run=RUN_ID."
        )
    for sentence in _other_choices(order):
        out().print(sentence, soft_wrap=True, markup=False)
    if order[0].excluded is not None:
        raise PromotionRefused(
            "No run can be promoted: each must be finished, with a clean protocol, a model and a test set. "
            f"Received: {'; '.join(f'{one.name}: {one.reason}' for one in order[:5])}"
        )
    return order[0]


def _other_choices(order: list[Candidate]) -> list[str]:
    """Describe each sweep whose best trial is not the run that is chosen here, and why it is not."""
    sentences = []
    for place, one in enumerate(order[1:], start=2):
        if Tag.BEST in one.record.tags:
            try:
                sweep = RunRecord.read(one.record.tags.get(Tag.PARENT))
            except ModelError:
                continue  # the sweep was deleted
            metric = sweep.params.get("sweep.metric", "another metric")
            why = f"it is not a candidate: {one.reason}" if one.excluded else f"by {one.metric} it is candidate {place}"
            sentences.append(
                f"Sweep {sweep.name} ranks {one.name} ({one.run_id}) first, by {metric}; here {why}. "
                f"run={one.run_id} promotes it."
            )
    return sentences


def _dry_run(
    chosen: Candidate, champion: ModelVersion | None, name: str, gates: list[Gate], settings: RegistryConfig, uri: str
) -> None:
    if settings.smoke_test and all(gate.passed for gate in gates):
        with tempfile.TemporaryDirectory(prefix="melanoma-dry-run-") as folder:
            write_package(chosen.run_id, Path(folder) / "package")
            gates = [*gates, smoke_gate(str(Path(folder) / "package"), chosen.run_id, uri)]
    _show_gates(chosen, gates)
    failed = [gate for gate in gates if not gate.passed]
    would = f"refuse {chosen.name}: {', '.join(gate.name for gate in failed)}" if failed else f"promote {chosen.name}"
    now = "none" if champion is None else f"version {champion.version}"
    out().print(
        f"Dry run: would {would}. Nothing was changed, but it counts as a promotion attempt on the "
        f"test images; champion of {name}: {now}.",
        soft_wrap=True,
        markup=False,
    )
    if failed:
        raise PromotionRefused(_reasons(chosen, champion, failed))


def _refused(
    name: str,
    chosen: Candidate,
    version: ModelVersion | None,
    champion: ModelVersion | None,
    gates: list[Gate],
    settings: RegistryConfig,
) -> PromotionRefused:
    """Record a refusal, and return the exception with its reasons."""
    failed = [gate for gate in gates if not gate.passed]
    decision = new_decision("refuse", version, champion, chosen.run_id, [gate.name for gate in failed])
    _record(chosen, version, decision, gates, settings)
    if version is not None or champion is not None:
        write_down(name, replace(decision, state="done"))
    _show_gates(chosen, gates)
    return PromotionRefused(_reasons(chosen, champion, failed))


def _reasons(chosen: Candidate, champion: ModelVersion | None, failed: list[Gate]) -> str:
    lines = [f"The promotion of {chosen.name} ({chosen.run_id}) was refused:"]
    lines += [f"  - {gate.name}: {gate.text}" for gate in failed]
    lines += [f"Next: {step}" for step in _next_steps(chosen, champion, failed)]
    return "\n".join(lines)


def _next_steps(chosen: Candidate, champion: ModelVersion | None, failed: list[Gate]) -> list[str]:
    """Return what to run after a refusal."""
    steps = []
    names = {gate.name for gate in failed}
    if "protocol" in names:
        steps.append("train again without shortcuts (protocol=clean), or see `melanoma.known_leaks` of the run")
    if chosen.excluded is Exclusion.NO_MODEL:
        steps.append("train with one split (split=auto) and the settings of this run, for a model that can be promoted")
    elif {"evidence", "candidate"} & names:
        steps.append("train again; what a run has logged cannot be repaired")
    if "intervals" in names:
        steps.append("train again with evaluation.bootstrap=1000 evaluation.confidence=0.95")
    if champion is not None and champion.run_id and any(name.startswith("against") for name in names):
        steps.append(f"melanoma compare {champion.run_id} {chosen.run_id} --html compare.html")
    if any(name.startswith("subgroups") for name in names):
        steps.append(
            "look at evaluation/subgroups.csv of the run; more images of the subgroup, or registry.subgroups.floor"
        )
    if any("/" in name and not name.startswith("against") for name in names):
        told = chosen.record.tags.get(Tag.FINDINGS, "").splitlines()
        steps += [f"a finding of the run: {line}" for line in told if "Try" in line]
        steps.append("more test images narrow the intervals; registry.floors and registry.ceilings set the limits")
    return steps


def _record(
    chosen: Candidate,
    version: ModelVersion | None,
    decision: Decision,
    gates: list[Gate],
    settings: RegistryConfig,
) -> None:
    """Record the decision in tags, in `promotion.json` of the run, and in the description of the version, if any."""
    client = mlflow.MlflowClient()
    state = {"promote": PROMOTED, "refuse": "refused"}[decision.action]
    content = {**asdict(decision), "decision": state, "gates": [asdict(gate) for gate in gates]}
    content["registry"] = asdict(settings)
    for internal in ("state", "owner", "key", "failed"):
        del content[internal]
    client.log_dict(chosen.run_id, content, Artifact.PROMOTION)
    tags = {
        Tag.PROMOTION: state,
        f"{Tag.PROMOTION}.by": decision.by,
        f"{Tag.PROMOTION}.when": decision.when,
        f"{Tag.PROMOTION}.command": decision.command,
        **{
            stored_name(f"{Tag.GATE}{gate.name}"): f"{'passed' if gate.passed else 'failed'}: {gate.text}"[:5000]
            for gate in gates
        },
    }
    for key, value in tags.items():
        client.set_tag(chosen.run_id, key, value)
    if version is None:
        return
    for key, value in tags.items():
        if key != Tag.PROMOTION or state == "refused":  # `promoted` is written after the promotion
            client.set_model_version_tag(version.name, version.version, key, value)
    client.update_model_version(version.name, version.version, _description(chosen, decision, gates, state))


def _description(chosen: Candidate, decision: Decision, gates: list[Gate], state: str) -> str:
    lines = [
        f"**{state.capitalize()}** by {decision.by} on {decision.when}: `{decision.command}`",
        "",
        f"Run {chosen.name} (`{chosen.run_id}`), task {chosen.task}, protocol {chosen.record.protocol}. "
        "Its model card is `model_card.md` of the run and of the package. Research software, not a medical device.",
        "",
        "| gate | decision | numbers |",
        "|---|---|---|",
        *(f"| {gate.name} | {'passed' if gate.passed else '**failed**'} | {gate.text} |" for gate in gates),
    ]
    decided = "\n".join(lines)[:_MAX_DESCRIPTION]
    try:
        card = chosen.record.text(Artifact.MODEL_CARD)
    except ModelError:
        return decided
    return decided + abridged(card, _MAX_DESCRIPTION - len(decided))


def _show_gates(chosen: Candidate, gates: list[Gate]) -> None:
    table = Table(title=f"Gates for {escape(chosen.name)} ({chosen.run_id})", title_justify="left")
    for column in ("gate", "", "numbers"):
        table.add_column(column)
    for gate in gates:
        mark = "[green]passed[/]" if gate.passed else "[red]failed[/]"
        table.add_row(escape(gate.name), mark, escape(gate.text))
    out().print(table)
