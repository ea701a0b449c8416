"""A sweep, from its plan to its leaderboard."""

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.trial import TrialState

from melanoma.audit.findings import Audit
from melanoma.config.checks import as_list
from melanoma.config.launch import typed
from melanoma.config.schema import FOLDED, TrainConfig
from melanoma.data.dataset import Dataset
from melanoma.data.sources import Source
from melanoma.errors import ConfigError, TrialsFailed
from melanoma.protocol import SHORTCUTS, joined_protocol, shortcuts
from melanoma.source_checks import check_experiment, kept_classes
from melanoma.stages import audited, cleaned, decoded, folds_of, number_of_folds, prepared, read_source
from melanoma.sweeps.launchers import launched
from melanoma.sweeps.loop import CHOSEN, ON_TEST, OVERRIDES, RUN, Sweep, run_trials, settle_interrupted, trials_that
from melanoma.sweeps.objectives import check_metrics, logged_metrics
from melanoma.sweeps.plan import Plan, resolved_plan
from melanoma.sweeps.report import best_trial, leaderboard, show_leaderboard, sweep_figures
from melanoma.sweeps.space import Dimension, combinations
from melanoma.sweeps.study import check_name, open_study, storage_address
from melanoma.terminal import log_to, out, quiet_native_imports
from melanoma.tracking.log_config import log_config
from melanoma.tracking.run import tracked_run
from melanoma.tracking.store import tracking_uri, ui_command
from melanoma.tracking.trials import close_unfinished, read_trial, tag_best

__all__ = ["run_sweep"]

log = logging.getLogger("melanoma")


def run_sweep(plan: Plan, folder: Path) -> None:
    """Run the trials of a sweep, each in a process of its own, below one run in MLflow.

    Args:
        plan: what is varied and how.
        folder: for log files.

    Raises:
        ConfigError: the sweep cannot be begun; nothing was trained.
        TrialsFailed: some trials failed; the others are done.
    """
    log_file = log_to(folder, "sweep")
    settings: TrainConfig = typed(TrainConfig, plan.config)
    if settings.protocol == "both":
        raise ConfigError(
            ["A trial has one protocol; vary it, as in protocol=published,clean, or train without a sweep. "
             "Received: protocol=both"]
        )  # fmt: skip
    source = read_source(settings.data)
    model: Any = OmegaConf.to_container(plan.config.model, resolve=True)
    check_experiment(settings, model, source)
    several = number_of_folds(settings, source) > 0
    of_folds = not plan.space  # the folds are the trials
    inside = several and not of_folds and "split.fold" not in {one.key for one in plan.space}
    metrics = _metrics(plan, inside)
    classes = kept_classes(settings.data, source.classes)
    check_metrics(metrics, logged_metrics(classes, settings.data.views, folds=inside))
    uri = tracking_uri(settings.tracking.uri)
    storage = storage_address(plan.sweep.storage, uri)
    name = plan.sweep.resume or plan.sweep.name or f"{settings.data.name}-{datetime.now():%Y%m%d-%H%M%S-%f}"
    check_name(plan.sweep, name, storage)
    with ExitStack() as launcher:
        run_trial = launcher.enter_context(launched(plan.launcher, folder))
        audit, dataset = _warmed_up(settings, source, several)
        if of_folds:
            numbers = range(1, len(folds_of(settings, dataset.table)) + 1)
            plan = replace(plan, space=[Dimension("split.fold", choices=tuple(map(str, numbers)))])
        grid = combinations(plan.space) if plan.sweep.sampler == "grid" else []
        total = min(plan.sweep.n_trials or len(grid), len(grid)) if grid else int(plan.sweep.n_trials or 0)
        taken = [*shortcuts(settings, source.table.columns), *([ON_TEST] if _on_test(metrics) else [])]
        protocol = joined_protocol(*taken)
        with (
            open_study(plan.sweep, name, storage, _about(plan, metrics, dataset.fingerprint)) as study,
            tracked_run(
                uri=uri,
                experiment=settings.tracking.experiment,
                name=settings.tracking.run_name or name,
                system_metrics=False,  # the trials have them
                tags={"melanoma.task": settings.data.name, "melanoma.protocol": protocol, "melanoma.sweep": name},
                again=None if os.environ.get("MLFLOW_RUN_ID") else study.user_attrs.get(RUN),
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
                launcher.close()  # ends the trials that are still under way
                close_unfinished(run.id)
                run.log_file(str(log_file), "logs")
            _report(sweep)
            _conclude(sweep, name)
    if failed:
        raise TrialsFailed(
            f"{len(failed)} of {total} trials failed; the others are done. Look at the children of run {run.id}. "
            f"Received: {failed[0]}"
        )


def _report(sweep: Sweep) -> None:
    table = leaderboard(sweep.study, sweep.metrics)
    sweep.run.log_text(table.to_csv(index=False), "sweep/leaderboard.csv")
    for name, figure in sweep_figures(sweep.study, sweep.metrics).items():
        sweep.run.log_figure(figure, name)
    if sweep.of_folds:
        return  # none is better than another
    columns = ["trial", "state", *sweep.metrics, "overrides"]
    rows = [[str(value).replace("|", "\\|") for value in row] for row in table[columns].head(20).to_numpy()]
    lines = [columns, ["---"] * len(columns), *rows]
    note = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    best = best_trial(sweep.study)
    if best is not None:
        run_id = str(best.user_attrs[RUN])
        others = [str(t.user_attrs[RUN]) for t in trials_that(sweep, TrialState.COMPLETE) if RUN in t.user_attrs]
        tag_best(run_id, others)
        sweep.run.set_tags({"melanoma.best_run": run_id})
        note = f"Best: {best.user_attrs[OVERRIDES]}\n\n`{_repeat(sweep, best)}`\n\n{note}"
    sweep.run.set_tags({"mlflow.note.content": note})


def _conclude(sweep: Sweep, name: str) -> None:
    """Tell the user what was found and what to do with it."""
    show_leaderboard(leaderboard(sweep.study, sweep.metrics), sweep.metrics)
    console, best = out(), best_trial(sweep.study)
    lines = [f"Sweep    {name}, run {sweep.run.id}"]
    if best is not None and not sweep.of_folds:
        run_id = best.user_attrs[RUN]
        if sweep.settings.split.method not in FOLDED:
            lines.append(f"Model    runs:/{run_id}/model   (melanoma predict model={run_id} input=IMAGE)")
        lines.append(f"Best     {_repeat(sweep, best)}")
    lines.append(f"Compare  {ui_command(sweep.uri)}")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _repeat(sweep: Sweep, trial: optuna.trial.FrozenTrial) -> str:
    # Trained again, it was selected on test all the same.
    told = f"{SHORTCUTS}={ON_TEST} " if ON_TEST in sweep.protocol else ""
    return told + shlex.join(["melanoma", "train", *sweep.plan.trial_arguments(trial.user_attrs[CHOSEN])])


def _log_plan(sweep: Sweep) -> None:
    log_config(sweep.run, resolved_plan(sweep.plan), [*sys.argv[1:]])
    sweep.run.log_text(OmegaConf.to_yaml(sweep.plan.config, resolve=True), "config/first_trial.yaml")


def _warmed_up(settings: TrainConfig, source: Source, folds: bool) -> tuple[Audit, Dataset]:
    """Audit, decode and divide the images once, so that all trials find it in the cache."""
    audit = audited(source, settings.audit, settings.data.max_megapixels)
    if folds:
        return audit, cleaned(settings, decoded(settings.data, source), audit)
    return audit, prepared(settings, source, audit)


def _pool_folds(sweep: Sweep, audit: Audit, dataset: Dataset) -> None:
    """The folds' predictions together, as a cross-validation without trials logs them."""
    with quiet_native_imports():
        from melanoma.studies import log_cross_validation
        from melanoma.summary import show_result, show_spread
        from melanoma.tracking.log import log_audit
        from melanoma.tracking.predictions import stored_evaluation

    folds = folds_of(sweep.settings, dataset.table)
    done = sorted(trials_that(sweep, TrialState.COMPLETE), key=lambda trial: int(trial.params["split.fold"]))
    views = sweep.settings.data.views
    evaluations = {
        name: [stored_evaluation(trial.user_attrs[RUN], part, dataset, views) for part in ("validation", "test")]
        for name, trial in zip(folds, done, strict=True)
    }
    log_audit(sweep.run, audit, dataset, announce=False)
    taken = [read_trial(str(trial.user_attrs[RUN])).tags.get("melanoma.protocol", "") for trial in done]
    protocol = joined_protocol(sweep.protocol, *taken)
    sweep.run.set_tags({"melanoma.protocol": protocol})
    pooled = log_cross_validation(sweep.run, dataset, folds, evaluations, sweep.settings, protocol)
    show_result([pooled], sweep.run.id, sweep.uri, None)
    show_spread([parts[-1] for parts in evaluations.values()])


def _about(plan: Plan, metrics: Sequence[str], fingerprint: str) -> dict[str, Any]:
    """What must be the same when a study is resumed."""
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
        "space": space, "fixed": fixed, "metric": list(metrics), "direction": plan.sweep.direction, "data": fingerprint
    }  # fmt: skip


def _metrics(plan: Plan, folds: bool) -> list[str]:
    """The objectives; of a cross-validation their means over the folds."""
    given = as_list(plan.sweep.metric)
    return [f"{name}_mean" if folds and not name.endswith("_mean") else name for name in given]


def _on_test(metrics: Sequence[str]) -> bool:
    return any(name.startswith("test/") for name in metrics)
