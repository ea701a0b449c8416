"""Several runs under one parent run: the folds of a cross-validation, and the two protocols side by side."""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pandas as pd

from melanoma.audit.findings import Audit
from melanoma.config.schema import TrainConfig
from melanoma.data.dataset import Dataset, divided
from melanoma.evaluation.evaluate import Evaluation, evaluate
from melanoma.pipeline import Experiment, Result, run_experiment
from melanoma.protocol import joined_protocol
from melanoma.stages import audited, balanced, cleaned, decoded, folds_of, prepared
from melanoma.summary import show_difference, show_result, show_spread
from melanoma.tracking import log as tracking_log
from melanoma.tracking import log_evaluation
from melanoma.tracking.log_config import log_config
from melanoma.tracking.run import Run, tracked_run

__all__ = ["compare_protocols", "cross_validate", "log_cross_validation"]

log = logging.getLogger("melanoma")


def cross_validate(experiment: Experiment) -> Result:
    """A run for each fold, or for each value left out; the parent run has all test predictions together.

    The parent's `test/<metric>` is of the pooled predictions; `test/<metric>_mean` and `_std` are over the runs.
    """
    settings = experiment.settings
    with _parent(experiment, experiment.tags) as run:
        audit = audited(experiment.source, settings.audit, settings.data.max_megapixels)
        dataset = cleaned(settings, decoded(settings.data, experiment.source), audit)
        folds = folds_of(settings, dataset.table)
        tracking_log.log_audit(run, audit, dataset)
        log.info("%d runs: %s", len(folds), ", ".join(folds))
        results = {}
        for name, parts in folds.items():
            fold = _prepared_fold(experiment, audit, dataset, parts)
            results[name] = run_experiment(experiment, fold, name=name, nested=True)
            _forget()
        # What a fold's weights have seen is known once it ran.
        protocol = joined_protocol(experiment.tags["melanoma.protocol"], *(r.protocol for r in results.values()))
        run.set_tags({"melanoma.protocol": protocol})
        pooled = log_cross_validation(
            run, dataset, folds, {name: r.evaluations for name, r in results.items()}, settings, protocol
        )
    show_result([pooled], run.id, experiment.uri, None)
    show_spread([result.evaluations[-1] for result in results.values()])
    return Result(run.id, [pooled], None, protocol)


def log_cross_validation(
    run: Run,
    dataset: Dataset,
    folds: dict[str, pd.Series],
    evaluations: dict[str, list[Evaluation]],
    settings: TrainConfig,
    protocol: str,
) -> Evaluation:
    """Log the folds' spread and their test predictions as one evaluation, which is returned.

    Args:
        run: the parent of the folds' runs.
        dataset: all images.
        folds: part of each image in each fold.
        evaluations: of each fold, validation and test.
        settings: the whole configuration.
        protocol: `clean`, or the shortcuts taken.
    """
    tests = [parts[-1] for parts in evaluations.values()]
    pooled = evaluate(
        "test",
        pd.concat([evaluation.rows for evaluation in tests], ignore_index=True),
        np.concatenate([evaluation.probabilities for evaluation in tests]),
        dataset.classes,
        views=settings.data.views,
        resamples=settings.evaluation.bootstrap,
        confidence=settings.evaluation.confidence,
        seed=settings.seed,
    )
    log_evaluation.log_folds(run, dataset, folds, evaluations, pooled)
    log_evaluation.log_evaluations(
        run, [pooled], protocol=protocol, dataset=dataset, settings=settings.evaluation, seed=settings.seed
    )
    return pooled


def compare_protocols(experiment: Experiment) -> Result:
    """The same experiment as is commonly done and as it should be; the parent run has the difference.

    The parent has `published/<metric>`, `clean/<metric>` and `inflation/<metric>`, the first less the second, and the
    shortcuts of the published one in its tag.
    """
    runs = {name: _under(experiment, name) for name in ("published", "clean")}
    results = {}
    with _parent(experiment, runs["published"].tags) as run:
        audit = audited(experiment.source, experiment.settings.audit, experiment.settings.data.max_megapixels)
        tracking_log.announce_audit(audit)
        for name, one in runs.items():

            def prepare_data(one: Experiment = one) -> tuple[Audit, Dataset]:
                return audit, prepared(one.settings, one.source, audit)

            results[name] = run_experiment(one, prepare_data, name=name, nested=True)
            _forget()
        # What weights from elsewhere have seen is known once they were used.
        run.set_tags({"melanoma.protocol": results["published"].protocol})
        difference = _difference({name: result.metrics for name, result in results.items()})
        run.log_metrics(difference)
        log_evaluation.log_difference(run, results["published"].evaluations, results["clean"].evaluations)
    show_difference(results["published"].evaluations, results["clean"].evaluations, run.id, experiment.uri)
    return Result(run.id, results["clean"].evaluations, results["clean"].model, results["published"].protocol)


@contextmanager
def _parent(experiment: Experiment, tags: dict[str, str]) -> Iterator[Run]:
    tracking = experiment.settings.tracking
    with tracked_run(
        uri=experiment.uri,
        experiment=tracking.experiment,
        name=tracking.run_name,
        system_metrics=False,  # the runs below have them
        tags=tags,
    ) as run:
        try:
            log.info("MLflow run %s, the parent", run.id)
            log_config(run, experiment.resolved, experiment.overrides)
            yield run
        finally:
            run.log_file(str(experiment.log_file), "logs")


def _prepared_fold(
    experiment: Experiment, audit: Audit, dataset: Dataset, parts: pd.Series
) -> Callable[[], tuple[Audit, Dataset]]:
    return lambda: (audit, balanced(experiment.settings, divided(dataset, parts)))


def _under(experiment: Experiment, protocol: Any) -> Experiment:
    return replace(
        experiment,
        settings=replace(experiment.settings, protocol=protocol),
        resolved={**experiment.resolved, "protocol": protocol},
    )


def _difference(metrics: dict[str, dict[str, float]]) -> dict[str, float]:
    plain = {
        protocol: {name: value for name, value in values.items() if not name.endswith(("_ci_low", "_ci_high"))}
        for protocol, values in metrics.items()
    }
    named = {f"{protocol}/{name}": value for protocol, values in plain.items() for name, value in values.items()}
    both = [name for name in plain["published"] if name in plain["clean"]]
    return {**named, **{f"inflation/{name}": plain["published"][name] - plain["clean"][name] for name in both}}


def _forget() -> None:
    """Let go of the finished run's network, so that memory does not grow from run to run."""
    keras.backend.clear_session()
    gc.collect()
