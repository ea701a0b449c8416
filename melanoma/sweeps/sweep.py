"""Execution of a sweep, from its plan to its leaderboard."""

import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import optuna
from omegaconf import ListConfig, OmegaConf
from optuna.trial import TrialState

from melanoma.auditing.findings import Audit
from melanoma.config.launch import typed
from melanoma.config.schema import FOLDED, TrainConfig
from melanoma.data.csv_text import csv_text
from melanoma.data.dataset import Dataset
from melanoma.data.sources import Source
from melanoma.errors import ConfigError, TrialsFailed
from melanoma.evaluation.metrics import is_error
from melanoma.lineage.protocol import CLEAN, SHORTCUTS_VARIABLE, Protocol, Shortcut, protocol_of
from melanoma.sweeps.launchers import open_launcher
from melanoma.sweeps.loop import CHOSEN, OVERRIDES, RUN, Sweep, run_trials, settle_interrupted, trials_in
from melanoma.sweeps.objectives import check_metrics, logged_metrics
from melanoma.sweeps.plan import Plan, resolved_plan
from melanoma.sweeps.report import best_trial, leaderboard, show_leaderboard, sweep_figures
from melanoma.sweeps.space import Dimension, combinations
from melanoma.sweeps.study import check_name, open_study, storage_address, stored_settings
from melanoma.terminal import log_to, out, quiet_native_imports
from melanoma.tracking.log_config import log_config
from melanoma.tracking.names import Artifact, Tag
from melanoma.tracking.records import RunRecord
from melanoma.tracking.run import tracked_run
from melanoma.tracking.store import predict_command, report_command, tracking_uri, ui_command
from melanoma.tracking.trials import close_unfinished, tag_best
from melanoma.workflows.checks import as_list, epoch_metric_faults
from melanoma.workflows.defaults import announce, with_defaults
from melanoma.workflows.source_checks import check_experiment, kept_classes
from melanoma.workflows.stages import clean_images, folds_of, number_of_folds, prepare_once, read_source

__all__ = ["run_sweep"]

log = logging.getLogger("melanoma")


def run_sweep(plan: Plan, folder: Path) -> str:
    """Run the trials of a sweep, each in a separate process, under one parent run, and return its ID.

    Args:
        plan: Plan of the sweep.
        folder: Folder for log files.

    Raises:
        ConfigError: If the sweep cannot start; no trial was run.
        TrialsFailed: If some trials failed; the others finished.
    """
    log_file = log_to(folder, "sweep")
    settings: TrainConfig = typed(TrainConfig, plan.config)
    source = read_source(settings.data)
    folds = number_of_folds(settings, source) > 0
    _check(plan, settings, source)
    settings, source = with_defaults(settings, source)
    resolved: Any = OmegaConf.to_container(plan.config, resolve=True)
    announce(settings, resolved, [one.key for one in plan.space])
    uri = tracking_uri(settings.tracking.uri)
    storage = storage_address(plan.sweep.storage, uri)
    before = stored_settings(plan.sweep.resume, storage) if plan.sweep.resume is not None else {}
    plan = _with_objectives(_with_stored_objectives(plan, before), settings)
    metrics = _checked_metrics(plan, settings, source, folds)
    name = plan.sweep.resume or plan.sweep.name or f"{settings.data.name}-{datetime.now():%Y%m%d-%H%M%S-%f}"
    check_name(plan.sweep, name, storage)
    with ExitStack() as launcher:
        run_trial = launcher.enter_context(open_launcher(plan.launcher, folder))
        # Done once before the trials, so that all of them find the images in the cache.
        audit, dataset = clean_images(settings, source) if folds else prepare_once(settings, source)
        of_folds = not plan.space  # the folds are the trials
        if of_folds:
            numbers = range(1, len(folds_of(settings, dataset.table)) + 1)
            plan = replace(plan, space=[Dimension("split.fold", choices=tuple(map(str, numbers)))])
        about = _about(plan, metrics, dataset.fingerprint, settings)
        if before and "monitor" not in before and plan.config.training.monitor is None:
            log.info("The sweep of an older version continues to select epochs by val/loss")
            plan = replace(plan, fixed=[*plan.fixed, "training.monitor=val/loss"])
        grid = combinations(plan.space) if plan.sweep.sampler == "grid" else []
        total = min(plan.sweep.n_trials or len(grid), len(grid)) if grid else int(plan.sweep.n_trials or 0)
        protocol = protocol_of(settings, source.table.columns) | _selection(metrics)
        tags = {
            Tag.TASK: settings.data.name,
            Tag.PROTOCOL: str(protocol),
            Tag.PRIMARY_METRIC: str(settings.primary_metric),
            Tag.SWEEP: name,
        }
        # The trials log system metrics. The sweep logs its own figures even if the trials log none.
        tracking = replace(settings.tracking, system_metrics=False, figures=True)
        with (
            open_study(plan.sweep, name, storage, about) as study,
            tracked_run(
                uri,
                tracking,
                tags=tags,
                name=tracking.run_name or name,
                resume=None if os.environ.get("MLFLOW_RUN_ID") else study.user_attrs.get(RUN),
            ) as run,
        ):
            study.set_user_attr(RUN, run.id)
            sweep = Sweep(plan, settings, study, metrics, uri, storage, run, protocol, total, of_folds)
            log.info("Sweep %s: %d trials, MLflow run %s", name, total, run.id)
            _log_plan(sweep)
            for chosen in grid[:total]:
                study.enqueue_trial(chosen, skip_if_exists=True)
            try:
                settle_interrupted(sweep)
                failed = run_trials(sweep, run_trial)
                if of_folds and not failed:
                    _pool_folds(sweep, audit, dataset)
            except TrialsFailed:
                _report(sweep)
                _conclude(sweep, name)
                raise
            finally:
                launcher.close()  # ends the running trials
                close_unfinished(run.id)
                run.log_file(str(log_file), "logs")
            _report(sweep)
            _conclude(sweep, name)
    if failed:
        raise TrialsFailed(
            f"{len(failed)} of {total} trials failed; the others are done. Look at the children of run {run.id}. "
            f"Received: {failed[0]}"
        )
    return run.id


def _check(plan: Plan, settings: TrainConfig, source: Source) -> None:
    """Check that the experiment fits the data.

    Raises:
        ConfigError, DataError: If it does not.
    """
    if settings.protocol == "both":
        raise ConfigError(
            ["A trial has one protocol; vary it, as in protocol=published,clean, or train without a sweep. "
             "Received: protocol=both"]
        )  # fmt: skip
    model: Any = OmegaConf.to_container(plan.config.model, resolve=True)
    check_experiment(settings, model, source)


def _with_stored_objectives(plan: Plan, before: Mapping[str, Any]) -> Plan:
    """Return the plan with the objectives of the sweep that it resumes, unless others are given."""
    metric = before.get("metric")
    if plan.sweep.metric is not None or not metric:
        return plan
    return replace(
        plan,
        sweep=replace(
            plan.sweep,
            metric=metric if len(metric) > 1 else metric[0],
            direction=plan.sweep.direction or before["direction"],
        ),
    )


def _with_objectives(plan: Plan, settings: TrainConfig) -> Plan:
    """Return the plan with objectives; they are the primary metric unless the sweep names others.

    Raises:
        ConfigError: If the metric for pruning is not measured after each epoch.
    """
    sweep = plan.sweep
    metric = sweep.metric if sweep.metric is not None else f"validation/{settings.primary_metric}"
    directions = ["minimize" if is_error(name) else "maximize" for name in as_list(metric)]
    direction = sweep.direction if sweep.direction is not None else directions
    if not isinstance(metric, list | tuple | ListConfig):
        direction = as_list(direction)[0]
    pruning_metric = sweep.pruning_metric or f"val/{settings.primary_metric}"
    if faults := epoch_metric_faults("sweep.pruning_metric", pruning_metric, settings.primary_metric):
        raise ConfigError(faults)
    return replace(plan, sweep=replace(sweep, metric=metric, direction=direction, pruning_metric=pruning_metric))


def _checked_metrics(plan: Plan, settings: TrainConfig, source: Source, folds: bool) -> list[str]:
    """Return the objectives after a check that trials log them.

    Raises:
        ConfigError: If they do not.
    """
    # Each trial is a complete cross-validation, whose parent run has the means over its folds.
    nested = folds and bool(plan.space) and "split.fold" not in {one.key for one in plan.space}
    metrics = _metrics(plan, nested)
    classes = kept_classes(settings.data, source.classes)
    check_metrics(metrics, logged_metrics(classes, settings.data.binary_tasks, folds=nested))
    return metrics


def _report(sweep: Sweep) -> None:
    table = leaderboard(sweep.study, sweep.metrics)
    sweep.run.log_text(csv_text(table), Artifact.LEADERBOARD)
    for name, figure in sweep_figures(sweep.study, sweep.metrics).items():
        sweep.run.log_figure(figure, name)
    if sweep.of_folds:
        return  # folds are not ranked
    columns = ["trial", "state", *sweep.metrics, "overrides"]
    rows = [[str(value).replace("|", "\\|") for value in row] for row in table[columns].head(20).to_numpy()]
    lines = [columns, ["---"] * len(columns), *rows]
    note = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    best = best_trial(sweep.study)
    if best is not None:
        run_id = str(best.user_attrs[RUN])
        others = [str(t.user_attrs[RUN]) for t in trials_in(sweep, TrialState.COMPLETE) if RUN in t.user_attrs]
        tag_best(run_id, others)
        sweep.run.set_tags({Tag.BEST_RUN: run_id})
        note = f"Best: {best.user_attrs[OVERRIDES]}\n\n`{_repeat(sweep, best)}`\n\n{note}"
    sweep.run.set_tags({Tag.NOTE: note})


def _conclude(sweep: Sweep, name: str) -> None:
    """Print the leaderboard and the next steps."""
    show_leaderboard(leaderboard(sweep.study, sweep.metrics), sweep.metrics)
    console, best = out(), best_trial(sweep.study)
    lines = [f"Sweep    {name}, run {sweep.run.id}"]
    if best is not None and not sweep.of_folds:
        run_id = best.user_attrs[RUN]
        if sweep.settings.split.method not in FOLDED and sweep.settings.seeds is None:
            lines.append(f"Model    runs:/{run_id}/model   ({predict_command(run_id, sweep.settings.tracking.uri)})")
        lines.append(f"Best     {_repeat(sweep, best)}")
        lines.append(f"Report   {report_command(sweep.run.id, sweep.settings.tracking.uri)}")
    lines.append(f"Compare  {ui_command(sweep.uri)}")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _repeat(sweep: Sweep, trial: optuna.trial.FrozenTrial) -> str:
    # The settings were selected on the test set, also for a repeated training.
    on_test = Shortcut.SELECTED_ON_TEST
    variable = f"{SHORTCUTS_VARIABLE}={on_test} " if on_test in sweep.protocol else ""
    return variable + shlex.join(["melanoma", "train", *sweep.plan.trial_arguments(trial.user_attrs[CHOSEN])])


def _log_plan(sweep: Sweep) -> None:
    log_config(sweep.run, resolved_plan(sweep.plan), sweep.plan.words)
    sweep.run.log_text(OmegaConf.to_yaml(sweep.plan.config, resolve=True), "config/first_trial.yaml")


def _pool_folds(sweep: Sweep, audit: Audit, dataset: Dataset) -> None:
    """Log the pooled predictions of the folds, as a cross-validation without a sweep does."""
    with quiet_native_imports():
        from melanoma.tracking.log import log_audit
        from melanoma.workflows.nested import log_cross_validation, stored_evaluation
        from melanoma.workflows.summary import show_result, show_spread

    folds = folds_of(sweep.settings, dataset.table)
    done = sorted(trials_in(sweep, TrialState.COMPLETE), key=lambda trial: int(trial.params["split.fold"]))
    records = [RunRecord.read(trial.user_attrs[RUN]) for trial in done]
    evaluations = {
        name: [stored_evaluation(record, part, dataset) for part in ("validation", "test")]
        for name, record in zip(folds, records, strict=True)
    }
    log_audit(sweep.run, audit, dataset, announce=False)
    protocol = reduce(or_, (record.protocol for record in records), sweep.protocol)
    sweep.run.set_tags({Tag.PROTOCOL: str(protocol)})
    pooled = log_cross_validation(sweep.run, dataset, folds, evaluations, sweep.settings, protocol)
    primary = sweep.settings.primary_metric
    show_result([pooled], sweep.run.id, sweep.uri, None, primary=primary)
    show_spread([parts[-1] for parts in evaluations.values()], pooled, primary)


def _about(plan: Plan, metrics: Sequence[str], fingerprint: str, settings: TrainConfig) -> dict[str, Any]:
    """Return the settings that must not change when a study is resumed."""
    space = {
        one.key: {
            **({"choices": list(one.choices)} if one.choices else {"low": one.low, "high": one.high}),
            **({"step": one.step} if one.step else {}), **({"log": True} if one.log else {}),
            **({"when": {key: list(values) for key, values in one.when.items()}} if one.when else {}),
        }
        for one in plan.space
    }  # fmt: skip
    fixed = sorted(word for word in plan.fixed if not word.startswith(("tracking.", "hydra.")))
    return {
        "space": space, "fixed": fixed, "metric": list(metrics), "direction": plan.sweep.direction, "data": fingerprint,
        "monitor": settings.training.monitor,
    }  # fmt: skip


def _metrics(plan: Plan, folds: bool) -> list[str]:
    """Return the objectives; with `folds`, their means over the folds."""
    given = as_list(plan.sweep.metric)
    return [f"{name}_mean" if folds and not name.endswith("_mean") else name for name in given]


def _selection(metrics: Sequence[str]) -> Protocol:
    on_test = any(name.startswith("test/") for name in metrics)
    return Protocol.of(Shortcut.SELECTED_ON_TEST) if on_test else CLEAN
