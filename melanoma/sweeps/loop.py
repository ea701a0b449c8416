"""The loop of a sweep: draw trials, run them, and record their results."""

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

import optuna
from mlflow.exceptions import MlflowException
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from melanoma.config.schema import TrainConfig
from melanoma.errors import RunKilled, TrainingError, TrialsFailed
from melanoma.evaluation.metrics import is_error
from melanoma.lineage.protocol import SHORTCUTS_VARIABLE, Protocol, Shortcut
from melanoma.sweeps.launchers import Job, Outcome
from melanoma.sweeps.plan import Plan
from melanoma.sweeps.report import best_trial
from melanoma.sweeps.space import suggested
from melanoma.sweeps.study import remember
from melanoma.terminal import stage
from melanoma.tracking.names import Tag, stored_name
from melanoma.tracking.run import Run
from melanoma.tracking.trials import TrialRun, close_trial, epochs_done, latest_epoch, make_trial, read_trial, take_over
from melanoma.training.pruning import PRUNING_VARIABLE, PruningOrder
from melanoma.workflows.checks import as_list

__all__ = ["CHOSEN", "OVERRIDES", "RUN", "Sweep", "run_trials", "settle_interrupted", "trials_in"]

log = logging.getLogger("melanoma")
_LOOK = 10  # seconds between two looks at the epochs of running trials
# User attributes of a trial: its run, its overrides as text and as a list, its error, the trial that it goes on with,
# and the number of epochs that this one had.
RUN, OVERRIDES, CHOSEN, ERROR, RETRY, EPOCHS = "run", "overrides", "chosen", "error", "retry_of", "epochs"


@dataclass
class Sweep:
    """The shared state of the steps of a sweep."""

    plan: Plan
    settings: TrainConfig
    study: optuna.Study
    metrics: list[str]
    uri: str
    storage: str
    run: Run
    protocol: Protocol
    total: int
    of_folds: bool
    started: float = field(default_factory=time.monotonic)
    ended_before: int = 0
    epochs: dict[int, int] = field(default_factory=dict)  # shown so far, by number of the trial


def run_trials(sweep: Sweep, run_trial: Callable[[Job], Outcome]) -> list[str]:
    """Run trials on all workers until all have ended, and return the errors of the failed ones.

    Raises:
        TrialsFailed: If `sweep.max_failures` trials failed, or one trial with `sweep.fail_fast`.
        TrainingError: If a store cannot be used.
    """
    limits = sweep.plan.sweep
    most = 1 if limits.fail_fast else limits.max_failures
    failed = _failures(sweep)
    before = len(failed)
    sweep.ended_before = before + sum(
        len(trials_in(sweep, state)) for state in (TrialState.COMPLETE, TrialState.PRUNED)
    )
    pending: dict[Future[Outcome], Trial] = {}
    pool = ThreadPoolExecutor(sweep.plan.launcher.workers)
    try:
        while True:
            while len(pending) < sweep.plan.launcher.workers and _is_more(sweep):
                trial, job = _next_trial(sweep)
                pending[pool.submit(run_trial, job)] = trial
            if not pending:
                return failed
            done = _wait(sweep, pending)
            for future in done:
                error = _ended(sweep, pending.pop(future), future.result())
                failed += [error] if error else []
                _log_progress(sweep, len(failed))
            if most is not None and len(failed) - before >= most:
                raise TrialsFailed(
                    f"The sweep was ended after {len(failed) - before} failed trials (sweep.max_failures, "
                    f"sweep.fail_fast); continue with sweep.resume={sweep.study.study_name}. Received: {failed[-1]}"
                )
    except (MlflowException, StorageInternalError, SQLAlchemyError) as error:
        raise TrainingError(
            "The sweep cannot continue because a store does not respond; repair it, and continue with "
            f"sweep.resume={sweep.study.study_name}. Received: {str(error).splitlines()[0]}"
        ) from error
    finally:
        # Does not wait, because the launcher ends the running trials.
        pool.shutdown(wait=False, cancel_futures=True)


def _wait(sweep: Sweep, pending: Mapping[Future[Outcome], Trial]) -> set[Future[Outcome]]:
    """Wait until a trial ends, and show the epochs of the running trials meanwhile."""
    name = f"val/{sweep.settings.primary_metric}"
    with stage(f"Running {len(pending)} trial{'s' if len(pending) > 1 else ''}"):
        while True:
            done, _ = wait(pending, timeout=_LOOK, return_when=FIRST_COMPLETED)
            if done:
                return done
            for trial in pending.values():
                epoch, value = latest_epoch(str(trial.user_attrs[RUN]), name)
                if epoch > sweep.epochs.get(trial.number, 0):
                    sweep.epochs[trial.number] = epoch
                    log.info("Trial %d, epoch %d: %s %.4f", trial.number, epoch, name, value)


def settle_interrupted(sweep: Sweep) -> None:
    """Settle the trials that were running when the sweep was killed: keep finished ones, and go on with the others."""
    for trial in trials_in(sweep, TrialState.RUNNING):
        run_id = trial.user_attrs.get(RUN)
        if run_id is None:  # killed before the creation of its run
            _retry(sweep, trial)
            sweep.study.tell(trial.number, state=TrialState.FAIL)
        elif not _settled(sweep, trial, read_trial(str(run_id), sweep.metrics)):
            _failed(sweep, trial, "The sweep's process died while this trial was running.", "", retry=True)


def _next_trial(sweep: Sweep) -> tuple[Trial, Job]:
    """Draw the next trial, create an MLflow run for it, and return the trial and its job."""
    trial, settings = sweep.study.ask(), sweep.plan.sweep
    chosen = [f"{key}={value}" for key, value in suggested(trial, sweep.plan.space).items()]
    text = " ".join(chosen)
    tags = {Tag.SWEEP: sweep.study.study_name, Tag.TRIAL: str(trial.number), Tag.OVERRIDES: text}
    run_id = trial.user_attrs.get(RUN)  # of a trial that goes on with an interrupted one
    if run_id is None or not take_over(run_id, tags):
        run_id = make_trial(sweep.run.id, text, tags)
    trial.set_user_attr(OVERRIDES, text)
    trial.set_user_attr(CHOSEN, chosen)
    trial.set_user_attr(RUN, run_id)
    environment = {"MLFLOW_RUN_ID": run_id, "MLFLOW_TRACKING_URI": sweep.uri}
    if Shortcut.SELECTED_ON_TEST in sweep.protocol:
        environment[SHORTCUTS_VARIABLE] = Shortcut.SELECTED_ON_TEST
    if settings.pruner != "none":
        maximised = as_list(settings.direction)[0] == "maximize"
        order = PruningOrder(
            storage=sweep.storage,
            study=sweep.study.study_name,
            trial_number=trial.number,
            pruner=settings.pruner,
            startup_trials=settings.startup_trials,
            metric=str(settings.pruning_metric),
            sign=1 if maximised != is_error(str(settings.pruning_metric)) else -1,
        )
        environment[PRUNING_VARIABLE] = str(order)
    command = [sys.executable, "-m", "melanoma", "train", *sweep.plan.trial_arguments(chosen)]
    log.info("Trial %d starts: %s", trial.number, text)
    return trial, Job(command, str(Path.cwd()), environment)


def _ended(sweep: Sweep, drawn: Trial, outcome: Outcome) -> str | None:
    """Record the result of a trial in the study and on its run, and return the error if it failed."""
    trial = sweep.study.get_trials(deepcopy=False)[drawn.number]
    if _settled(sweep, trial, read_trial(str(trial.user_attrs[RUN]), sweep.metrics)):
        return None
    interrupted = outcome.code == RunKilled.exit_code
    retry = outcome.lost or interrupted
    return _failed(sweep, trial, _why(outcome, sweep.metrics), outcome.output, retry=retry, always=interrupted)


def _settled(sweep: Sweep, trial: FrozenTrial, run: TrialRun) -> bool:
    """Return whether the trial's run finished or was pruned; if so, report its result to the study."""
    text = trial.user_attrs[OVERRIDES]
    if Tag.PRUNED in run.tags:
        sweep.study.tell(trial.number, state=TrialState.PRUNED)
        log.info("Trial %d was pruned (%s): %s", trial.number, text, run.tags[Tag.PRUNED])
        return True
    values = [run.metrics.get(stored_name(name), float("nan")) for name in sweep.metrics]
    if run.status != "FINISHED" or not all(map(isfinite, values)):
        return False
    sweep.study.tell(trial.number, values)
    shown = ", ".join(f"{name} {value:.4f}" for name, value in zip(sweep.metrics, values, strict=True))
    log.info("Trial %d done (%s): %s", trial.number, text, shown)
    return True


def _failed(
    sweep: Sweep, trial: FrozenTrial, error: str, output: str, *, retry: bool, always: bool = False
) -> str | None:
    """Record a failed trial, and return its error unless another trial goes on with it.

    The study is updated last: if the sweep dies before that, the trial is still running in the study, and these steps
    are repeated on resume.
    """
    reason, text = error.strip().splitlines()[-1], str(trial.user_attrs[OVERRIDES])
    retried = retry and _retry(sweep, trial, always=always)
    if not retried:
        close_trial(str(trial.user_attrs[RUN]), error=error, output=output)
        log.warning("Trial %d failed (%s): %s", trial.number, text, reason)
        remember(sweep.study, trial.number, ERROR, f"{text}: {reason}", sweep.storage)
    sweep.study.tell(trial.number, state=TrialState.FAIL)
    return None if retried else f"{text}: {reason}"


def _retry(sweep: Sweep, trial: FrozenTrial, *, always: bool = False) -> bool:
    """Queue a trial again after it was ended from outside, to go on in its run; return whether it is.

    A trial that is a retry itself is only retried if it has made progress, because its own process may be the reason,
    such as by its need of memory; with `always`, in any case.
    """
    run_id = trial.user_attrs.get(RUN)
    epochs = 0 if run_id is None else epochs_done(run_id)
    if RETRY in trial.user_attrs and not always and epochs <= trial.user_attrs.get(EPOCHS, 0):
        return False
    if trial.number not in _retried(sweep):
        # The values of a grid are known before the trial suggests any parameter.
        params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        attributes = {RETRY: trial.number, EPOCHS: epochs, **({} if run_id is None else {RUN: run_id})}
        sweep.study.enqueue_trial(params, user_attrs=attributes)
        log.info(
            "Trial %d was ended from outside; another one goes on with it%s",
            trial.number, f" after {epochs} epochs" if epochs else "",
        )  # fmt: skip
    return True


def _is_more(sweep: Sweep) -> bool:
    """Return whether trials are left to start; a retry is not counted as a further trial."""
    trials = sweep.study.get_trials(deepcopy=False)
    waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
    started = sum(RETRY not in trial.user_attrs and trial.state != TrialState.WAITING for trial in trials)
    if any(RETRY in trial.user_attrs for trial in waiting):
        return True
    return started < sweep.total and (bool(waiting) or sweep.plan.sweep.sampler != "grid")


def _log_progress(sweep: Sweep, failed: int) -> None:
    done, pruned = (len(trials_in(sweep, state)) for state in (TrialState.COMPLETE, TrialState.PRUNED))
    progress: dict[str, float] = {"sweep/finished": done, "sweep/pruned": pruned, "sweep/failed": failed}
    best = best_trial(sweep.study)
    if best is not None:
        progress |= {f"sweep/best_{name}": v for name, v in zip(sweep.metrics, best.values, strict=True)}
    ended = done + pruned + failed
    sweep.run.log_metrics(progress, step=ended)
    log.info(
        "%d of %d trials: %d done, %d pruned, %d failed%s",
        ended, sweep.total, done, pruned, failed, _time_left(sweep, ended),
    )  # fmt: skip


def _time_left(sweep: Sweep, ended: int) -> str:
    """Estimate the remaining time, once a trial has ended since the sweep was started or resumed."""
    now, left = ended - sweep.ended_before, sweep.total - ended
    if now <= 0 or left <= 0:
        return ""
    minutes = (time.monotonic() - sweep.started) / now * left / 60
    return f"; about {minutes:.0f} min left" if minutes >= 1 else "; less than a minute left"


def trials_in(sweep: Sweep, state: TrialState) -> list[FrozenTrial]:
    """Return the trials in a state."""
    return sweep.study.get_trials(deepcopy=False, states=(state,))


def _failures(sweep: Sweep) -> list[str]:
    """Return the errors of failed trials that were not retried."""
    retried = _retried(sweep)
    return [str(t.user_attrs.get(ERROR)) for t in trials_in(sweep, TrialState.FAIL) if t.number not in retried]


def _retried(sweep: Sweep) -> set[int]:
    return {t.user_attrs[RETRY] for t in sweep.study.get_trials(deepcopy=False) if RETRY in t.user_attrs}


def _why(outcome: Outcome, metrics: Sequence[str]) -> str:
    """Return why a trial failed, with a summary in the last line."""
    if outcome.code < 0:
        hint = "; out of memory?" if outcome.code == -9 else ""
        return f"The trial's process was killed by signal {-outcome.code}{hint}"
    if outcome.code == 0:
        return f"The trial ended without a finite {' and '.join(metrics)}"
    return outcome.message or outcome.output.strip() or f"The trial's process ended with exit code {outcome.code}"
