"""`melanoma train`: one run, several seeds, the folds of a cross-validation, or both protocols."""

import logging
import os
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from melanoma.config.launch import typed
from melanoma.config.schema import TrainConfig
from melanoma.errors import ConfigError
from melanoma.paths import user_path
from melanoma.terminal import log_to, quiet_native_imports
from melanoma.tracking.store import predict_command, store_errors, tracking_uri
from melanoma.workflows.defaults import announce, recorded, with_defaults
from melanoma.workflows.experiment import Experiment, Result, run_experiment
from melanoma.workflows.source_checks import check_experiment
from melanoma.workflows.stages import number_of_folds, prepare_once, read_source

__all__ = ["train", "train_configured"]

log = logging.getLogger("melanoma")

AUTO = "auto"  # the value of `resume` for the newest interrupted run of the same configuration


def train(config: DictConfig, overrides: list[str], folder: Path) -> Result:
    """Run one experiment: data, audit, split, model, fit and evaluation, all logged to MLflow.

    Args:
        config: Composed configuration, checked by `melanoma.config`.
        overrides: Overrides of the command line.
        folder: Folder for the run's log file.

    Raises:
        MelanomaError: If an expected error occurs; the message states the problem and the remedy.
    """
    settings: TrainConfig = typed(TrainConfig, config)
    resolved, resume = _with_absolute_paths(config), settings.resume
    log_file = log_to(folder, "train" if resume is None else f"train-{datetime.now():%Y%m%d-%H%M%S}")
    run_id = None
    if resume is not None and os.environ.get("MLFLOW_RUN_ID"):
        raise ConfigError([f"`mlflow run` makes a run of its own; use `melanoma train`. Received: resume={resume}"])
    if resume not in (None, AUTO):
        with quiet_native_imports():
            from melanoma.workflows.resume import recorded_configuration
        with store_errors():
            run_id, settings, resolved, overrides = recorded_configuration(settings, resolved, overrides)
    return train_configured(settings, resolved, overrides, log_file, run_id=run_id, auto=resume == AUTO)


def train_configured(
    settings: TrainConfig,
    resolved: dict[str, Any],
    overrides: list[str],
    log_file: Path,
    *,
    run_id: str | None = None,
    auto: bool = False,
    replay_of: str | None = None,
) -> Result:
    """Run one experiment; see `train`.

    Args:
        settings: The whole configuration.
        resolved: The same as plain dictionaries.
        overrides: Overrides of the command line.
        log_file: The log file.
        run_id: ID of the run to go on with; None for a new one.
        auto: Whether to go on with the newest interrupted run of this configuration, if there is one.
        replay_of: ID of the run that this one repeats, if any.
    """
    source = read_source(settings.data)
    check_experiment(settings, resolved["model"], source)
    settings, source = with_defaults(settings, source)
    announce(settings, resolved)
    uri = tracking_uri(settings.tracking.uri)
    experiment = Experiment(settings, recorded(resolved, settings), overrides, source, log_file, uri, run_id, replay_of)

    # Imported after the checks of configuration and data, because TensorFlow and MLflow take seconds to import.
    with quiet_native_imports():
        from melanoma.tracking.records import RunRecord
        from melanoma.workflows.resume import claimed, newest_interrupted, refuse_what_cannot_be_resumed

    if auto:
        with store_errors():
            experiment = replace(experiment, resume=newest_interrupted(experiment))
    with claimed(experiment.resume):
        if experiment.resume is not None:
            # Again, because another process may have resumed it meanwhile.
            record = RunRecord.read(experiment.resume)
            refuse_what_cannot_be_resumed(record, settings.training.checkpoint.folder)
            log.info("Resuming run %s", experiment.resume)
        return _run(experiment)


def _run(experiment: Experiment) -> Result:
    """Run the experiment, or those that it consists of."""
    with quiet_native_imports():
        from melanoma.workflows.nested import compare_protocols, cross_validate
        from melanoma.workflows.seeds import train_seeds
        from melanoma.workflows.summary import show_findings, show_result

    settings, source = experiment.settings, experiment.source
    if settings.seeds is not None:
        return train_seeds(experiment, settings.seeds)
    if settings.protocol == "both":
        return compare_protocols(experiment)
    if number_of_folds(settings, source):
        return cross_validate(experiment)
    result = run_experiment(experiment, partial(prepare_once, settings, source), name=experiment.name)
    command = predict_command(result.run_id, settings.tracking.uri)
    model = None if result.model is None else f"{result.model}   ({command})"
    show_result(
        result.evaluations, result.run_id, experiment.uri, model,
        measures=result.measures, primary=settings.primary_metric,
    )  # fmt: skip
    show_findings(result.findings)
    return result


def _with_absolute_paths(config: DictConfig) -> dict[str, Any]:
    """Return the configuration as plain dictionaries, so that the run can be repeated from any folder."""
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    data = resolved["data"]
    for node, key in (
        (data, "path"), (data.get("metadata") or {}, "path"), (data, "corrections"), (resolved["split"], "file"),
    ):  # fmt: skip
        if node.get(key) is not None:
            node[key] = str(user_path(node[key]).absolute())
    return dict(resolved)
