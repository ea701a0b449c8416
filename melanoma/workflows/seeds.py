"""Several trainings that differ in the seed only, on the same split, under one parent run."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from melanoma.auditing.findings import Audit
from melanoma.data.dataset import Dataset
from melanoma.evaluation.seeds import over_seeds
from melanoma.tracking.log_seeds import log_seeds
from melanoma.tracking.names import Tag
from melanoma.workflows.experiment import Experiment, Result, run_experiment
from melanoma.workflows.nested import cross_validate, free_memory, parent_run
from melanoma.workflows.stages import number_of_folds, prepare_once
from melanoma.workflows.summary import show_seeds

__all__ = ["train_seeds"]

log = logging.getLogger("melanoma")


def train_seeds(experiment: Experiment) -> Result:
    """Run an experiment once for each seed, from `seed` on, and log the metrics over the seeds to the parent run.

    All seeds have the split of the first one, so that they are measured on the same images. In the parent run,
    `<part>/<metric>` is the mean over the seeds with an interval for other images and other seeds, and `_std` the
    standard deviation over the seeds.
    """
    settings = experiment.settings
    seeds = range(settings.seed, settings.seed + int(settings.seeds or 1))
    with parent_run(experiment, experiment.tags) as run:
        results = {}
        for seed in seeds:
            results[seed] = _train(_with_seed(experiment, seed))
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


def _train(experiment: Experiment) -> Result:
    settings = experiment.settings
    log.info("Seed %d", settings.seed)
    if number_of_folds(settings, experiment.source):
        return cross_validate(experiment, nested=True)
    prepare_data: Callable[[], tuple[Audit, Dataset]] = partial(prepare_once, settings, experiment.source)
    return run_experiment(experiment, prepare_data, name=experiment.name, nested=True)


def _with_seed(experiment: Experiment, seed: int) -> Experiment:
    """Return the experiment of one seed, which repeats it by its own configuration and overrides."""
    settings = experiment.settings
    split = settings.seed if settings.split.seed is None else settings.split.seed
    name = settings.tracking.run_name
    own = name and f"{name} s{seed}"
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
