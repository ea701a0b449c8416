"""Several trainings that differ in the seed only, on the same split, under one parent run."""

import logging
from dataclasses import replace
from functools import partial

from melanoma.auditing.audit import audit_source
from melanoma.auditing.findings import Audit
from melanoma.evaluation.seeds import over_seeds
from melanoma.tracking.log_seeds import log_seeds
from melanoma.tracking.names import Tag
from melanoma.workflows.experiment import Experiment, Result, run_experiment
from melanoma.workflows.nested import cross_validate, free_memory, parent_run, prepare
from melanoma.workflows.stages import number_of_folds
from melanoma.workflows.summary import show_seeds

__all__ = ["train_seeds"]

log = logging.getLogger("melanoma")


def train_seeds(experiment: Experiment, number: int) -> Result:
    """Run an experiment with a number of seeds, from `seed` on, and log the metrics over the seeds to the parent run.

    All seeds have the split of the first one, so that they are measured on the same images. In the parent run,
    `<part>/<metric>` is the mean over the seeds with an interval for other images and other seeds, and `_std` the
    standard deviation over the seeds.
    """
    settings = experiment.settings
    folded = number_of_folds(settings, experiment.source) > 0
    with parent_run(experiment, experiment.tags) as run:
        audit = None if folded else audit_source(experiment.source, settings.audit, settings.data.max_megapixels)
        results = {}
        for seed in range(settings.seed, settings.seed + number):
            results[seed] = _train(_with_seed(experiment, seed), audit)
            free_memory()
        first, *_ = results.values()
        protocol = first.protocol
        run.set_tags({Tag.PROTOCOL: str(protocol), Tag.SEED_RUNS: " ".join(one.run_id for one in results.values())})
        by_part = {}
        for place, part in enumerate(evaluation.part for evaluation in first.evaluations):
            own = [one.evaluations[place] for one in results.values()]
            measured = ([e.predictions for e in own], [e.metrics for e in own], [e.intervals for e in own])
            by_part[part] = over_seeds(*measured, settings.evaluation.confidence)
        images = {evaluation.part: len(evaluation.rows) for evaluation in first.evaluations}
        log_seeds(run, {seed: one.measures for seed, one in results.items()}, by_part, images)
    show_seeds(by_part, images, run.id, experiment.uri, settings.primary_metric)
    return Result(run.id, first.evaluations, None, protocol, measures=run.measures)


def _train(experiment: Experiment, audit: Audit | None) -> Result:
    """Run one seed, with the audit that all seeds share; None for a cross-validation, which makes its own."""
    log.info("Seed %d", experiment.settings.seed)
    if audit is None:
        return cross_validate(experiment, nested=True)
    return run_experiment(experiment, partial(prepare, experiment, audit), name=experiment.name, nested=True)


def _with_seed(experiment: Experiment, seed: int) -> Experiment:
    """Return the experiment of one seed, which repeats it by its own configuration and overrides."""
    settings = experiment.settings
    split = settings.seed if settings.split.seed is None else settings.split.seed
    name = settings.tracking.run_name
    own = None if name is None else f"{name} s{seed}"
    changed = {"seed": seed, "split.seed": split, "tracking.run_name": own}
    replaced = {*changed, "seeds"}
    resolved = experiment.resolved
    return replace(
        experiment,
        settings=replace(
            settings,
            seed=seed,
            seeds=None,
            split=replace(settings.split, seed=split),
            tracking=replace(settings.tracking, run_name=own),
        ),
        resolved={
            **resolved,
            "seed": seed,
            "seeds": None,
            "split": {**resolved["split"], "seed": split},
            "tracking": {**resolved["tracking"], "run_name": own},
        },
        overrides=[word for word in experiment.overrides if word.partition("=")[0].lstrip("+") not in replaced]
        + [f"{key}={value}" for key, value in changed.items() if value is not None],
    )
