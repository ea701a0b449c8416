"""Several trainings that differ in the seed only, on the same split, under one parent run."""

import logging
from dataclasses import replace
from functools import partial

from melanoma.auditing.audit import audit_source
from melanoma.auditing.findings import Audit
from melanoma.evaluation.seeds import over_seeds
from melanoma.tracking.log_seeds import log_seeds
from melanoma.tracking.names import Tag
from melanoma.tracking.run import Run
from melanoma.workflows.experiment import Experiment, Result, run_experiment
from melanoma.workflows.nested import cross_validate, parent_run, prepare, train_member
from melanoma.workflows.stages import clean_images, number_of_folds
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
            results[seed] = _train(run, _with_seed(experiment, seed), audit)
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


def _train(parent: Run, experiment: Experiment, audit: Audit | None) -> Result:
    """Train one seed, with the audit that all seeds share; None for a cross-validation, which makes its own."""
    settings, source = experiment.settings, experiment.source
    member = f"seed {settings.seed}"
    log.info("Seed %d", settings.seed)
    if audit is None:
        train = partial(cross_validate, member=member)
        return train_member(parent, experiment, member, train, lambda: clean_images(settings, source)[1])
    prepare_data = partial(prepare, experiment, audit)
    train = partial(run_experiment, prepare_data=prepare_data, name=experiment.name, member=member)
    return train_member(parent, experiment, member, train, lambda: prepare_data()[1])


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
