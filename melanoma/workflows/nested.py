"""Several runs under one parent run: the folds of a cross-validation, and the comparison of two protocols."""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, reduce
from math import isfinite
from operator import or_
from typing import Any

import keras
import numpy as np
import pandas as pd

from melanoma.auditing.audit import audit_source
from melanoma.auditing.findings import Audit
from melanoma.config.schema import TrainConfig
from melanoma.data.dataset import Dataset, with_split
from melanoma.errors import ModelError
from melanoma.evaluation.evaluate import NO_INTERVALS, Evaluation, bootstrap_of, evaluate, predictions_of
from melanoma.evaluation.predictions import Bootstrap
from melanoma.evaluation.texts import named_bounds
from melanoma.lineage.protocol import Protocol
from melanoma.tracking import log as tracking_log
from melanoma.tracking import log_evaluation
from melanoma.tracking.log_config import log_config
from melanoma.tracking.log_subgroups import log_subgroups
from melanoma.tracking.names import Tag
from melanoma.tracking.records import RunRecord
from melanoma.tracking.run import Run, logging_file, tracked_run
from melanoma.workflows.experiment import Experiment, Result, run_experiment, say_how_to_go_on
from melanoma.workflows.stages import balance, clean_images, folds_of, prepare_dataset
from melanoma.workflows.summary import show_difference, show_result, show_spread

__all__ = [
    "compare_protocols",
    "cross_validate",
    "free_memory",
    "log_cross_validation",
    "parent_run",
    "prepare",
    "stored_evaluation",
    "train_member",
]

log = logging.getLogger("melanoma")


def cross_validate(experiment: Experiment, *, member: str | None = None) -> Result:
    """Run one child run for each fold or left-out value, and pool the test predictions in the parent run.

    In the parent run, `test/<metric>` is computed from the pooled predictions, and `test/<metric>_mean` and `_std` are
    over the child runs. As a `member` of the active run, it is itself a child of it, and prints nothing.
    """
    settings = experiment.settings
    with parent_run(experiment, experiment.tags, member=member) as run:
        audit, dataset = clean_images(settings, experiment.source)
        folds = folds_of(settings, dataset.table)
        tracking_log.log_audit(run, audit, dataset)
        log.info("%d runs: %s", len(folds), ", ".join(folds))
        results = {}
        for name, parts in folds.items():
            prepare_data = partial(_prepare_fold, settings, audit, dataset, parts)
            train = partial(run_experiment, prepare_data=prepare_data, name=f"{experiment.name} {name}", member=name)
            results[name] = train_member(run, experiment, name, train, lambda: dataset)
        # The images that the initial weights were trained on are known only after the folds ran.
        protocol = reduce(or_, (result.protocol for result in results.values()), experiment.protocol)
        run.set_tags({Tag.PROTOCOL: str(protocol)})
        evaluations = {name: result.evaluations for name, result in results.items()}
        pooled = log_cross_validation(run, dataset, folds, evaluations, settings, protocol)
    if member is None:
        primary = settings.primary_metric
        show_result([pooled], run.id, experiment.uri, None, primary=primary)
        show_spread([result.evaluations[-1] for result in results.values()], pooled, primary)
    return Result(run.id, [pooled], None, protocol, measures=run.measures)


def log_cross_validation(
    run: Run,
    dataset: Dataset,
    folds: dict[str, pd.Series],
    evaluations: dict[str, list[Evaluation]],
    settings: TrainConfig,
    protocol: Protocol,
) -> Evaluation:
    """Log the metrics over the folds and the evaluation of the pooled test predictions, and return this evaluation.

    Args:
        run: Parent run of the folds.
        dataset: Data set with all images.
        folds: Part of each image in each fold.
        evaluations: Validation and test evaluation of each fold.
        settings: The whole configuration.
        protocol: Shortcuts that were taken.
    """
    tests = [parts[-1] for parts in evaluations.values()]
    rows = pd.concat([evaluation.rows for evaluation in tests], ignore_index=True)
    probabilities = np.concatenate([evaluation.probabilities for evaluation in tests])
    predictions = predictions_of(rows, probabilities, dataset.classes, settings.data.binary_tasks)
    bootstrap = bootstrap_of(settings.evaluation, settings.seed)
    pooled = evaluate("test", rows, predictions, bootstrap)
    log_evaluation.log_folds(run, dataset, folds, evaluations, pooled)
    log_evaluation.log_evaluations(run, [pooled], dataset, protocol=protocol)
    log_subgroups(run, pooled, dataset, settings.evaluation, bootstrap)
    return pooled


def train_member(
    parent: Run,
    experiment: Experiment,
    member: str,
    train: Callable[[Experiment], Result],
    dataset: Callable[[], Dataset],
) -> Result:
    """Train a part of a parent run, such as a fold; of one that is resumed, only what it had not finished.

    Args:
        parent: The parent run.
        experiment: The experiment of this part.
        member: Which part it is.
        train: Function that trains it.
        dataset: Function that returns its images.
    """
    before = parent.child(member) if parent.before is not None else None
    own = replace(experiment, resume=None, replay_of=None)  # which are those of the parent
    if before is None:
        result = train(own)
    elif before.info.status == "FINISHED":
        log.info("Finished before: %s", member)
        return _result_of(RunRecord(before), dataset(), experiment.settings)
    else:
        result = train(replace(own, resume=before.info.run_id))
    free_memory()
    return result


def _result_of(record: RunRecord, dataset: Dataset, settings: TrainConfig) -> Result:
    """Return the result of a finished run, with the same evaluations as when it was trained."""
    bootstrap = bootstrap_of(settings.evaluation, settings.seed)
    evaluations = [stored_evaluation(record, part, dataset, bootstrap) for part in record.predicted_parts]
    return Result(record.id, evaluations, f"runs:/{record.id}/model", record.protocol, measures=record.metrics)


def stored_evaluation(
    record: RunRecord, part: str, dataset: Dataset, bootstrap: Bootstrap = NO_INTERVALS
) -> Evaluation:
    """Evaluate a run's stored predictions for one part of a data set again, by default without intervals.

    Raises:
        ModelError: If there are no such predictions, or if they are of other images.
    """
    predictions = record.predictions(part)
    known = dataset.table.set_index("path")
    if not predictions.path.isin(known.index).all():
        raise ModelError(f"The predictions are of other images than the data set's. Received: {record.id}")
    rows = known.loc[predictions.path].reset_index().assign(part=part)
    probabilities = predictions[[f"probability/{label}" for label in dataset.classes]].to_numpy()
    found = predictions_of(rows, probabilities, dataset.classes, record.binary_tasks)
    return evaluate(part, rows, found, bootstrap)


def compare_protocols(experiment: Experiment) -> Result:
    """Run an experiment under the published and the clean protocol, and log the difference to the parent run.

    The parent run has `published/<metric>`, `clean/<metric>` and `inflation/<metric>` (published minus clean), and the
    shortcuts of the published protocol in its tag.
    """
    runs = {name: _with_protocol(experiment, name) for name in ("published", "clean")}
    results = {}
    with parent_run(experiment, runs["published"].tags | {Tag.CONFIG: experiment.digest}) as run:
        audit = audit_source(experiment.source, experiment.settings.audit, experiment.settings.data.max_megapixels)
        tracking_log.announce_audit(audit)
        for name, one in runs.items():
            prepare_data = partial(prepare, one, audit)
            train = partial(run_experiment, prepare_data=prepare_data, name=f"{experiment.name} {name}", member=name)
            results[name] = train_member(run, one, name, train, partial(_prepared_images, prepare_data))
        # The images that the initial weights were trained on are known only after the weights were loaded.
        run.set_tags({Tag.PROTOCOL: str(results["published"].protocol)})
        difference = _difference({name: result.evaluations for name, result in results.items()})
        run.log_measures(difference)
        log_evaluation.log_difference(run, results["published"].evaluations, results["clean"].evaluations)
    show_difference(results["published"].evaluations, results["clean"].evaluations, run.id, experiment.uri)
    return Result(run.id, results["clean"].evaluations, results["clean"].model, results["published"].protocol)


@contextmanager
def parent_run(experiment: Experiment, tags: dict[str, str], *, member: str | None = None) -> Iterator[Run]:
    """Start or resume a run that has child runs, with the configuration and the log file."""
    tracking = replace(experiment.settings.tracking, system_metrics=False)  # the child runs have them
    nested, tags = member is not None, tags | ({Tag.MEMBER: member} if member is not None else {})
    resume = experiment.resume
    with (
        tracked_run(experiment.uri, tracking, tags=tags, name=experiment.name, nested=nested, resume=resume) as run,
        logging_file(run, experiment.log_file),
    ):
        try:
            log.info("MLflow run %s, the parent", run.id)
            if not run.has_config:
                log_config(run, experiment.resolved, experiment.overrides)
            yield run
        except BaseException as error:
            if not nested and experiment.replay_of is None:
                say_how_to_go_on(run, tracking.uri, error, started=True)
            raise


def _prepare_fold(settings: TrainConfig, audit: Audit, dataset: Dataset, parts: pd.Series) -> tuple[Audit, Dataset]:
    return audit, balance(settings, with_split(dataset, parts))


def _prepared_images(prepare_data: Callable[[], tuple[Audit, Dataset]]) -> Dataset:
    return prepare_data()[1]


def prepare(experiment: Experiment, audit: Audit) -> tuple[Audit, Dataset]:
    """Decode, clean, split and balance the images of one of several runs that share an audit."""
    return audit, prepare_dataset(experiment.settings, experiment.source, audit)


def _with_protocol(experiment: Experiment, protocol: Any) -> Experiment:
    return replace(
        experiment,
        settings=replace(experiment.settings, protocol=protocol),
        resolved={**experiment.resolved, "protocol": protocol},
    )


def _difference(evaluations: dict[str, list[Evaluation]]) -> dict[str, float]:
    named: dict[str, float] = {}
    for published, clean in zip(evaluations["published"], evaluations["clean"], strict=True):
        for protocol, one in (("published", published), ("clean", clean)):
            named |= {f"{protocol}/{one.part}/{name}": value for name, value in one.metrics.items()}
        for name in published.metrics.keys() & clean.metrics.keys():
            inflation = f"inflation/{published.part}/{name}"
            named[inflation], low, high = published.minus(clean, name)
            if isfinite(low):
                named |= named_bounds(inflation, low, high)
    return named


def free_memory() -> None:
    """Free the finished run's network, so that memory does not grow from run to run."""
    keras.backend.clear_session()
    gc.collect()
