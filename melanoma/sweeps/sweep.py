"""A sweep, from its plan to its leaderboard."""

import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.trial import Trial, TrialState

from melanoma.audit.findings import Audit
from melanoma.config.checks import as_list
from melanoma.config.launch import typed
from melanoma.config.schema import TrainConfig
from melanoma.data.dataset import Dataset
from melanoma.data.sources import Source
from melanoma.errors import TrialsFailed
from melanoma.pipeline import check_experiment
from melanoma.stages import (
    FOLDED,
    audited,
    cleaned,
    decoded,
    folds_of,
    number_of_folds,
    prepared,
    read_source,
    shortcuts,
)
from melanoma.sweeps.launchers import Job, Outcome, launched
from melanoma.sweeps.objectives import check_metrics, logged_metrics
from melanoma.sweeps.plan import Plan, resolved_plan
from melanoma.sweeps.pruning import PRUNING, pruning_order
from melanoma.sweeps.report import best_trial, leaderboard, show_leaderboard, sweep_figures
from melanoma.sweeps.space import Dimension, combinations, suggested
from melanoma.sweeps.study import open_study, storage_address
from melanoma.terminal import log_to, out
from melanoma.tracking.log_config import log_config
from melanoma.tracking.run import Run, tracked_run
from melanoma.tracking.store import tracking_uri, ui_command
from melanoma.tracking.trials import close_trial, make_trial, read_trial, tag_best

__all__ = ["run_sweep"]

log = logging.getLogger("melanoma")
_RUN, _OVERRIDES, _ERROR, _RETRY = "run", "overrides", "error", "retry_of"


@dataclass
class _Sweep:
    """What the steps of a sweep share."""

    plan: Plan
    settings: TrainConfig
    study: optuna.Study
    metrics: list[str]
    uri: str
    storage: str
    run: Run
    protocol: str
    total: int
    of_folds: bool


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
    source = read_source(settings.data)
    model: Any = OmegaConf.to_container(plan.config.model, resolve=True)
    check_experiment(settings, model, source)
    folds = number_of_folds(settings, source)
    of_folds = not plan.space  # the folds are the trials
    if of_folds:
        numbers = tuple(str(number) for number in range(1, folds + 1))
        plan = replace(plan, space=[Dimension("split.fold", choices=numbers)])
    inside = folds > 0 and "split.fold" not in {one.key for one in plan.space}
    metrics = _metrics(plan, inside)
    check_metrics(metrics, logged_metrics(source.classes, settings.data.views, folds=inside))
    uri = tracking_uri(settings.tracking.uri)
    storage = storage_address(plan.sweep.storage, uri)
    name = plan.sweep.resume or plan.sweep.name or f"{settings.data.name}-{datetime.now():%Y%m%d-%H%M%S}"
    grid = combinations(plan.space) if plan.sweep.sampler == "grid" else []
    with launched(plan.launcher, folder) as run_trial:
        audit, dataset = _warmed_up(settings, source, folds > 0)
        about = _about(plan, metrics, dataset.fingerprint)
        study = open_study(plan.sweep, name, storage, about)
        taken = [*shortcuts(settings, source.table.columns), *(["selected_on_test"] if _on_test(metrics) else [])]
        protocol = ",".join(taken) or "clean"
        with tracked_run(
            uri=uri,
            experiment=settings.tracking.experiment,
            name=settings.tracking.run_name or name,
            system_metrics=False,  # the trials have them
            tags={"melanoma.task": settings.data.name, "melanoma.protocol": protocol, "melanoma.sweep": name},
            again=None if os.environ.get("MLFLOW_RUN_ID") else study.user_attrs.get(_RUN),
        ) as run:
            study.set_user_attr(_RUN, run.id)
            total = min(plan.sweep.n_trials or len(grid), len(grid)) if grid else int(plan.sweep.n_trials or 0)
            sweep = _Sweep(plan, settings, study, metrics, uri, storage, run, protocol, total, of_folds)
            log.info("Sweep %s: %d trials, MLflow run %s", name, total, run.id)
            try:
                _log_plan(sweep)
                for chosen in grid[:total]:
                    study.enqueue_trial(chosen, skip_if_exists=True)
                _settle_interrupted(sweep)
                failed = _run_trials(sweep, run_trial)
                if of_folds and not failed:
                    _pool_folds(sweep, audit, dataset)
            finally:
                _report(sweep)
                run.log_file(str(log_file), "logs")
    _conclude(sweep, name)
    if failed:
        raise TrialsFailed(
            f"{len(failed)} of {total} trials failed; the others are done. Look at the children of run {run.id}. "
            f"Received: {failed[0]}"
        )


def _run_trials(sweep: _Sweep, run_trial: Callable[[Job], Outcome]) -> list[str]:
    """Keep the workers busy until all trials have ended; returns why some failed."""
    limits = sweep.plan.sweep
    most = 1 if limits.fail_fast else limits.max_failures
    failed = _failures(sweep)
    before = len(failed)
    pending: dict[Future[Outcome], Trial] = {}
    pool = ThreadPoolExecutor(sweep.plan.launcher.workers)
    try:
        while True:
            enough = most is not None and len(failed) - before >= most
            while not enough and len(pending) < sweep.plan.launcher.workers and _is_more(sweep):
                trial, job = _next_trial(sweep)
                pending[pool.submit(run_trial, job)] = trial
            if not pending:
                break
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                error = _ended(sweep, pending.pop(future), future.result())
                failed += [error] if error else []
                _log_progress(sweep, len(failed))
    finally:
        # Without waiting: the launcher ends the trials that are under way when this was interrupted.
        pool.shutdown(wait=False, cancel_futures=True)
    if most is not None and len(failed) - before >= most:
        raise TrialsFailed(
            f"The sweep was ended after {len(failed) - before} failed trials, as it was told to; go on with "
            f"sweep.resume={sweep.study.study_name}. Received: {failed[-1]}"
        )
    return failed


def _next_trial(sweep: _Sweep) -> tuple[Trial, Job]:
    """A trial of the study, with a run of its own in MLflow, as a job."""
    trial, settings = sweep.study.ask(), sweep.plan.sweep
    chosen = [f"{key}={value}" for key, value in suggested(trial, sweep.plan.space).items()]
    text = " ".join(chosen)
    run_id = make_trial(
        sweep.run.id,
        text,
        {"melanoma.sweep": sweep.study.study_name, "melanoma.trial": str(trial.number), "melanoma.overrides": text},
    )
    trial.set_user_attr(_RUN, run_id)
    trial.set_user_attr(_OVERRIDES, text)
    environment = {"MLFLOW_RUN_ID": run_id, "MLFLOW_TRACKING_URI": sweep.uri}
    if settings.pruner != "none":
        maximised = settings.direction == "maximize"
        environment[PRUNING] = pruning_order(
            storage=sweep.storage,
            study=sweep.study.study_name,
            trial_id=trial._trial_id,
            pruner=settings.pruner,
            startup_trials=settings.startup_trials,
            metric=settings.pruning_metric,
            sign=1 if maximised == (settings.pruning_metric != "val/loss") else -1,
        )
    command = [sys.executable, "-m", "melanoma", "train", *sweep.plan.trial_arguments(chosen)]
    log.info("Trial %d begins: %s", trial.number, text)
    return trial, Job(command, str(Path.cwd()), environment)


def _ended(sweep: _Sweep, trial: Trial, outcome: Outcome) -> str | None:
    """Write down how a trial ended, in the study and on its run; returns why, if it failed."""
    run = read_trial(str(trial.user_attrs[_RUN]))
    text = trial.user_attrs[_OVERRIDES]
    if "melanoma.pruned" in run.tags:
        sweep.study.tell(trial, state=TrialState.PRUNED)
        log.info("Trial %d was pruned (%s): %s", trial.number, text, run.tags["melanoma.pruned"])
        return None
    values = [run.metrics.get(name, float("nan")) for name in sweep.metrics]
    if outcome.code == 0 and run.status == "FINISHED" and all(map(isfinite, values)):
        sweep.study.tell(trial, values)
        if sweep.protocol != "clean":
            close_trial(run.id, tags={"melanoma.protocol": sweep.protocol})
        shown = ", ".join(f"{name} {value:.4f}" for name, value in zip(sweep.metrics, values, strict=True))
        log.info("Trial %d done (%s): %s", trial.number, text, shown)
        return None
    error = _why(outcome, sweep.metrics)
    return _failed(sweep, trial.number, run.id, text, error, again=outcome.lost)


def _failed(sweep: _Sweep, number: int, run_id: str, text: str, error: str, *, again: bool) -> str | None:
    trial = sweep.study.get_trials(deepcopy=False)[number]
    sweep.study._storage.set_trial_user_attr(trial._trial_id, _ERROR, error.strip().splitlines()[-1])
    sweep.study.tell(number, state=TrialState.FAIL)
    close_trial(run_id, error=error)
    log.warning("Trial %d failed (%s): %s", number, text, error.strip().splitlines()[-1])
    if again and _RETRY not in trial.user_attrs:
        sweep.study.enqueue_trial(trial.params, user_attrs={_RETRY: number})
        log.info("Trial %d is begun again once: it did not fail by itself", number)
        return None
    return f"{text}: {error.strip().splitlines()[-1]}"


def _settle_interrupted(sweep: _Sweep) -> None:
    """Trials that were under way when the sweep was killed: take what they finished, begin the others again once."""
    for trial in _trials(sweep, TrialState.RUNNING):
        run_id = trial.user_attrs.get(_RUN)
        text = str(trial.user_attrs.get(_OVERRIDES, ""))
        if run_id is None:  # killed between its number and its run
            sweep.study.tell(trial.number, state=TrialState.FAIL)
            sweep.study.enqueue_trial(trial.params, user_attrs={_RETRY: trial.number})
            continue
        run = read_trial(str(run_id))
        values = [run.metrics.get(name, float("nan")) for name in sweep.metrics]
        if run.status == "FINISHED" and all(map(isfinite, values)):
            sweep.study.tell(trial.number, values)
            log.info("Trial %d had been finished (%s)", trial.number, text)
        else:
            _failed(sweep, trial.number, run.id, text, "The sweep died while this trial was under way.", again=True)


def _is_more(sweep: _Sweep) -> bool:
    """Whether a trial is waiting, or fewer were begun than there shall be; one that was begun again counts once."""
    trials = sweep.study.get_trials(deepcopy=False)
    if any(trial.state == TrialState.WAITING for trial in trials):
        return True
    begun = sum(_RETRY not in trial.user_attrs for trial in trials)
    return sweep.plan.sweep.sampler != "grid" and begun < sweep.total


def _report(sweep: _Sweep) -> None:
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
        run_id = str(best.user_attrs[_RUN])
        others = [str(t.user_attrs[_RUN]) for t in _trials(sweep, TrialState.COMPLETE) if _RUN in t.user_attrs]
        tag_best(run_id, others)
        sweep.run.set_tags({"melanoma.best_run": run_id})
        note = f"Best: {best.user_attrs[_OVERRIDES]}\n\n`{_repeat(sweep, best)}`\n\n{note}"
    sweep.run.set_tags({"mlflow.note.content": note})


def _conclude(sweep: _Sweep, name: str) -> None:
    """Tell the user what was found and what to do with it."""
    show_leaderboard(leaderboard(sweep.study, sweep.metrics), sweep.metrics)
    console, best = out(), best_trial(sweep.study)
    lines = [f"Sweep    {name}, run {sweep.run.id}"]
    if best is not None and not sweep.of_folds:
        run_id = best.user_attrs[_RUN]
        if sweep.settings.split.method not in FOLDED:
            lines.append(f"Model    runs:/{run_id}/model   (melanoma predict model={run_id} input=IMAGE)")
        lines.append(f"Best     {_repeat(sweep, best)}")
    lines.append(f"Compare  {ui_command(sweep.uri)}")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _repeat(sweep: _Sweep, trial: optuna.trial.FrozenTrial) -> str:
    chosen = shlex.split(str(trial.user_attrs[_OVERRIDES]))
    return shlex.join(["melanoma", "train", *sweep.plan.trial_arguments(chosen)])


def _log_plan(sweep: _Sweep) -> None:
    log_config(sweep.run, resolved_plan(sweep.plan), [*sys.argv[1:]])
    sweep.run.log_text(OmegaConf.to_yaml(sweep.plan.config, resolve=True), "config/first_trial.yaml")


def _log_progress(sweep: _Sweep, failed: int) -> None:
    done, pruned = (len(_trials(sweep, state)) for state in (TrialState.COMPLETE, TrialState.PRUNED))
    progress: dict[str, float] = {"sweep/finished": done, "sweep/pruned": pruned, "sweep/failed": failed}
    best = best_trial(sweep.study)
    if best is not None:
        progress |= {f"sweep/best_{name}": v for name, v in zip(sweep.metrics, best.values, strict=True)}
    sweep.run.log_metrics(progress, step=done + pruned + failed)
    log.info(
        "%d of %d trials: %d done, %d pruned, %d failed", done + pruned + failed, sweep.total, done, pruned, failed
    )


def _warmed_up(settings: TrainConfig, source: Source, folds: bool) -> tuple[Audit, Dataset]:
    """Audit, decode and divide the images once, so that all trials find it in the cache."""
    audit = audited(source, settings.audit, settings.data.max_megapixels)
    if folds:
        return audit, cleaned(settings, decoded(settings.data, source), audit)
    return audit, prepared(settings, source, audit)


def _pool_folds(sweep: _Sweep, audit: Audit, dataset: Dataset) -> None:
    """The folds' predictions together, as a cross-validation without trials logs them."""
    from melanoma.studies import log_cross_validation
    from melanoma.tracking.log import log_audit
    from melanoma.tracking.predictions import stored_evaluation

    folds = folds_of(sweep.settings, dataset.table)
    done = sorted(_trials(sweep, TrialState.COMPLETE), key=lambda trial: int(trial.params["split.fold"]))
    views = sweep.settings.data.views
    evaluations = {
        name: [stored_evaluation(trial.user_attrs[_RUN], part, dataset, views) for part in ("validation", "test")]
        for name, trial in zip(folds, done, strict=True)
    }
    log_audit(sweep.run, audit, dataset, announce=False)
    log_cross_validation(sweep.run, dataset, folds, evaluations, sweep.settings, sweep.protocol)


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


def _trials(sweep: _Sweep, state: TrialState) -> list[optuna.trial.FrozenTrial]:
    return sweep.study.get_trials(deepcopy=False, states=(state,))


def _failures(sweep: _Sweep) -> list[str]:
    """Why trials failed that were not begun again."""
    retried = {trial.user_attrs.get(_RETRY) for trial in sweep.study.get_trials(deepcopy=False)}
    return [str(t.user_attrs.get(_ERROR)) for t in _trials(sweep, TrialState.FAIL) if t.number not in retried]


def _why(outcome: Outcome, metrics: Sequence[str]) -> str:
    """What to write on a failed trial."""
    if outcome.code < 0:
        hint = "; was the memory full?" if outcome.code == -9 else ""
        return f"{outcome.said}\nThe trial's process was killed by signal {-outcome.code}{hint}"
    if outcome.code == 0:
        return f"{outcome.said}\nThe trial ended without a finite {' and '.join(metrics)}"
    said = outcome.said.strip().replace("melanoma: ", "")
    return said or f"The trial's process ended with exit code {outcome.code}"
