"""One experiment in one run, stage by stage. A good starting point to read the code."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melanoma.auditing.findings import Audit
from melanoma.config.schema import TrainConfig
from melanoma.data.cache import content_key
from melanoma.data.dataset import Dataset
from melanoma.data.sources import Source
from melanoma.errors import DataError, ModelError, RunKilled, RunPruned, TrainingError
from melanoma.lineage.contamination import Seen, contamination
from melanoma.lineage.protocol import Protocol, protocol_of
from melanoma.paths import user_path
from melanoma.tracking.names import Artifact, Tag
from melanoma.tracking.store import resume_command
from melanoma.workflows.fitting import fit_model
from melanoma.workflows.stages import seen_by

if TYPE_CHECKING:
    from melanoma.evaluation.evaluate import Evaluation
    from melanoma.tracking.models import SavedModel
    from melanoma.tracking.run import Run
    from melanoma.workflows.measure import Measured

__all__ = ["Experiment", "Result", "run_experiment", "say_how_to_go_on"]

log = logging.getLogger("melanoma")


@dataclass(frozen=True)
class Experiment:
    """An experiment: the configuration, as typed settings and as logged, and the delivered images.

    Attributes:
        settings: The whole configuration.
        resolved: The same as plain dictionaries.
        overrides: Overrides of the command line.
        source: The delivered images.
        log_file: The log file, in the folder for files of this run.
        uri: URI of the tracking store.
        resume: ID of the run to go on with; None for a new one.
        replay_of: ID of the run that this one repeats; None for none.
    """

    settings: TrainConfig
    resolved: dict[str, Any]
    overrides: list[str]
    source: Source
    log_file: Path
    uri: str
    resume: str | None = None
    replay_of: str | None = None

    @property
    def protocol(self) -> Protocol:
        """The shortcuts of the configuration."""
        return protocol_of(self.settings, self.source.table.columns)

    @property
    def name(self) -> str:
        """Name of the run."""
        settings = self.settings
        which = f"s{settings.seed}" if settings.seeds is None else f"{settings.seeds}-seeds"
        return settings.tracking.run_name or f"{settings.model.name}-{settings.data.name}-{which}"

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the run: the task, the protocol, the primary metric and the positive class."""
        data = self.settings.data
        tasks = "; ".join(f"{name}: {', '.join(labels)}" for name, labels in data.binary_tasks.items())
        return {
            Tag.TASK: data.name,
            Tag.PROTOCOL: str(self.protocol),
            Tag.PRIMARY_METRIC: str(self.settings.primary_metric),
            Tag.POSITIVE: data.positive or tasks or "none",
            Tag.CONFIG: self.digest,
            **({} if self.replay_of is None else {Tag.REPLAY_OF: self.replay_of}),
        }

    @property
    def digest(self) -> str:
        """Hash of the configuration without what does not change the result."""
        tracking = {key for key in self.resolved if key in ("tracking", "resume")}
        own = {key: value for key, value in self.resolved.items() if key not in tracking}
        training = {key: value for key, value in own["training"].items() if key != "checkpoint"}
        return content_key({**own, "training": training})


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        run_id: ID of the MLflow run.
        evaluations: Evaluations of the held-out parts.
        model: Address of the model; None for the parent run of a cross-validation.
        protocol: Shortcuts that were taken.
        findings: What the result says about the training.
        measures: All measures of the run, with their intervals.
    """

    run_id: str
    evaluations: list["Evaluation"]
    model: str | None
    protocol: Protocol
    findings: list[str] = field(default_factory=list)
    measures: dict[str, float] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics under the names of the tracking store."""
        return {name: value for e in self.evaluations for name, value in e.named_metrics().items()}


def run_experiment(
    experiment: Experiment, prepare_data: Callable[[], tuple[Audit, Dataset]], *, name: str, member: str | None = None
) -> Result:
    """Run an experiment in one MLflow run: train, select the epoch on validation, and evaluate both held-out parts.

    Args:
        experiment: The experiment.
        prepare_data: Function that returns the audit and the split data set.
        name: Name of the run.
        member: Which part of the active run this is, such as a fold, if it is a child of it.
    """
    from melanoma.tracking import log as tracking_log
    from melanoma.tracking.log_config import log_config
    from melanoma.tracking.logged_models import remove_other_models
    from melanoma.tracking.run import logging_file, tracked_run
    from melanoma.training.checkpoint import checkpoints_of
    from melanoma.workflows.card import log_card
    from melanoma.workflows.findings import log_findings
    from melanoma.workflows.measure import save_measured

    settings, folder, nested = experiment.settings, experiment.log_file.parent, member is not None
    tags = experiment.tags | ({Tag.MEMBER: member} if member is not None else {})
    with (
        tracked_run(
            experiment.uri, settings.tracking, name=name, tags=tags, nested=nested, resume=experiment.resume
        ) as run,
        logging_file(run, experiment.log_file),
    ):
        checkpoints = checkpoints_of(settings.training.checkpoint.folder, run.id)
        try:
            log.info("MLflow run %s (%s), protocol %s", name, run.id, experiment.protocol)
            if not run.has_config:
                log_config(run, experiment.resolved, experiment.overrides)
            if run.epochs_before > 1 and not checkpoints.last_place:
                log.warning("There is no checkpoint here, so that this part is trained from its beginning")
            audit, dataset = prepare_data()
            _refuse_other_images(run, dataset)
            tracking_log.log_audit(run, audit, dataset, announce=not nested)
            if settings.data.corrections is not None:
                run.log_evidence(user_path(settings.data.corrections).read_text("utf-8"), Artifact.CORRECTIONS)
            tracking_log.log_dataset(run, dataset, settings.data.path or settings.data.name, settings.balance.name)
            ancestor, protocol = _ancestor(run, experiment, audit, dataset)
            fitted = fit_model(run, settings, experiment.resolved, dataset, ancestor, folder, checkpoints=checkpoints)
            tracking_log.log_fit(run, fitted, str(settings.training.monitor), folder / "profile")
            tracking_log.log_samples(run, dataset, fitted.augment, settings.seed)
            measured = _measured(run, fitted.model, dataset, settings, protocol)
            evaluations = measured.evaluations
            found = log_findings(run, fitted, dataset, settings, measured.training, evaluations[0])
            log_card(run)
            address = save_measured(measured, dataset, settings.data, protocol)
            if run.before is not None:
                remove_other_models(run.id, address)
        except RunPruned:
            checkpoints.remove()
            raise
        except BaseException as error:
            if not nested and experiment.replay_of is None:
                say_how_to_go_on(run, settings.tracking.uri, error, started=bool(checkpoints.last_place))
            raise
    checkpoints.remove()
    return Result(run.id, evaluations, address, protocol, found, run.measures)


def say_how_to_go_on(run: "Run", uri: str | None, error: BaseException, *, started: bool) -> None:
    """Print the command that goes on with a run, if it was interrupted, or ended by an error after it had `started`."""
    from melanoma.tracking.run import tag_if_possible

    interrupted = isinstance(error, KeyboardInterrupt | RunKilled)
    if interrupted or (started and not isinstance(error, TrainingError)):  # which would come again
        log.warning("To go on with this run: %s", resume_command(run.id, uri))
        tag_if_possible(run, {Tag.INTERRUPTED: type(error).__name__})


def _refuse_other_images(run: "Run", dataset: Dataset) -> None:
    """Refuse to go on with other images, or another split of them, than the run had before it was interrupted."""
    before = {} if run.before is None else run.before.data.tags
    for tag, value, what in (
        (Tag.FINGERPRINT, dataset.fingerprint, "images"),
        (Tag.SPLIT_HASH, dataset.split_hash, "split of the images"),
    ):
        if before.get(tag, value) != value:
            raise DataError(
                f"The {what} changed since the run was interrupted; restore the data, or train anew. "
                f"Received: {value}, and {before[tag]} before"
            )


def _ancestor(
    run: "Run", experiment: Experiment, audit: Audit, dataset: Dataset
) -> tuple["SavedModel | None", Protocol]:
    """Return the saved model that provides the initial weights, if any, and the protocol with the shortcuts it adds."""
    from melanoma.tracking.log import log_ancestor
    from melanoma.tracking.models import load_saved_model

    settings, protocol = experiment.settings, experiment.protocol
    address = settings.model.weights or ""
    if ":/" not in address:
        return None, protocol
    ancestor = load_saved_model(address)
    try:
        seen = seen_by(ancestor.run_id)
    except ModelError as error:
        log.warning("%s", error)
        seen = Seen(complete=False)
    similarity = settings.audit.similarity if settings.audit.near_duplicates else None
    found = contamination(seen, audit.table, dataset.part("test"), similarity)
    log_ancestor(run, ancestor, address, found)
    protocol |= found.protocol
    run.set_tags({Tag.PROTOCOL: str(protocol)})
    return ancestor, protocol


def _measured(run: "Run", model: Any, dataset: Dataset, settings: TrainConfig, protocol: Protocol) -> "Measured":
    from melanoma.evaluation.calibration import fit_calibration
    from melanoma.evaluation.evaluate import bootstrap_of
    from melanoma.evaluation.predict import size_and_latency
    from melanoma.workflows.measure import log_measured, measure_model

    started, chosen = time.perf_counter(), settings.evaluation
    bootstrap = bootstrap_of(chosen, settings.seed)
    run.log_measures(size_and_latency(model, settings.data.image_size))
    fit = None if chosen.calibration == "none" else partial(fit_calibration, chosen.calibration)
    tasks = settings.data.binary_tasks
    measured = measure_model(model, dataset, chosen, bootstrap, binary_tasks=tasks, fit=fit)
    log_measured(run, measured, dataset, chosen, bootstrap, protocol=protocol)
    run.log_measures({"evaluation/seconds": time.perf_counter() - started})
    return measured
