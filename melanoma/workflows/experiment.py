"""One experiment in one run, stage by stage. A good starting point to read the code."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melanoma.auditing.findings import Audit
from melanoma.config.schema import TrainConfig
from melanoma.data.dataset import Dataset
from melanoma.data.sources import Source
from melanoma.errors import ModelError
from melanoma.lineage.contamination import Seen, contamination
from melanoma.lineage.protocol import Protocol, protocol_of
from melanoma.tracking.names import Tag
from melanoma.workflows.fitting import fit_model
from melanoma.workflows.stages import seen_by

if TYPE_CHECKING:
    from melanoma.evaluation.decisions import Decisions
    from melanoma.evaluation.evaluate import Evaluation
    from melanoma.tracking.models import SavedModel
    from melanoma.tracking.run import Run

__all__ = ["Experiment", "Result", "run_experiment"]

log = logging.getLogger("melanoma")


@dataclass(frozen=True)
class Experiment:
    """An experiment: the configuration, as typed settings and as logged, and the delivered images."""

    settings: TrainConfig
    resolved: dict[str, Any]
    overrides: list[str]
    source: Source
    folder: Path
    uri: str

    @property
    def log_file(self) -> Path:
        """The log file."""
        return self.folder / "train.log"

    @property
    def protocol(self) -> Protocol:
        """The shortcuts of the configuration."""
        return protocol_of(self.settings, self.source.table.columns)

    @property
    def name(self) -> str:
        """Name of the run."""
        settings = self.settings
        return settings.tracking.run_name or f"{settings.model.name}-{settings.data.name}-s{settings.seed}"

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
        }


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
    experiment: Experiment, prepare_data: Callable[[], tuple[Audit, Dataset]], *, name: str, nested: bool = False
) -> Result:
    """Run an experiment in one MLflow run: train, select the epoch on validation, and evaluate both held-out parts.

    Args:
        experiment: The experiment.
        prepare_data: Function that returns the audit and the split data set.
        name: Name of the run.
        nested: Whether the run is a child of the active run.
    """
    from melanoma.tracking import log as tracking_log
    from melanoma.tracking.log_config import log_config
    from melanoma.tracking.run import tracked_run
    from melanoma.workflows.card import log_card
    from melanoma.workflows.findings import log_findings

    settings = experiment.settings
    with tracked_run(experiment.uri, settings.tracking, name=name, tags=experiment.tags, nested=nested) as run:
        try:
            log.info("MLflow run %s (%s), protocol %s", name, run.id, experiment.protocol)
            log_config(run, experiment.resolved, experiment.overrides)
            audit, dataset = prepare_data()
            tracking_log.log_audit(run, audit, dataset, announce=not nested)
            tracking_log.log_dataset(run, dataset, settings.data.path or settings.data.name, settings.balance.name)
            ancestor, protocol = _ancestor(run, experiment, audit, dataset)
            fitted = fit_model(run, experiment.settings, experiment.resolved, dataset, ancestor, experiment.folder)
            tracking_log.log_fit(run, fitted, str(settings.training.monitor), experiment.folder / "profile")
            tracking_log.log_samples(run, dataset, fitted.augment, settings.seed)
            model, evaluations, decisions = _evaluate(run, fitted.model, dataset, settings, protocol)
            found = log_findings(run, model, fitted, dataset, settings, evaluations[0])
            log_card(run)
            address = _save(model, dataset, settings, protocol, decisions)
        finally:
            run.log_file(str(experiment.log_file), "logs")
    return Result(run.id, evaluations, address, protocol, found, run.measures)


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


def _evaluate(
    run: "Run", model: Any, dataset: Dataset, settings: TrainConfig, protocol: Protocol
) -> tuple[Any, list["Evaluation"], "Decisions"]:
    """Return the model with its calibration, if any, its evaluations on validation and test, and its decisions."""
    from melanoma.evaluation.calibrated_model import with_calibration
    from melanoma.evaluation.calibration import fit_calibration
    from melanoma.evaluation.decisions import fit_decisions
    from melanoma.evaluation.evaluate import bootstrap_of, evaluate, predict_parts, predictions_of
    from melanoma.evaluation.predict import size_and_latency
    from melanoma.tracking.log_decisions import log_calibration, log_decisions
    from melanoma.tracking.log_evaluation import log_evaluations
    from melanoma.tracking.log_subgroups import log_subgroups

    started, chosen = time.perf_counter(), settings.evaluation
    bootstrap = bootstrap_of(chosen, settings.seed)
    run.log_measures(size_and_latency(model, settings.data.image_size))
    uncalibrated = probabilities = predict_parts(model, dataset, chosen.batch_size)
    if chosen.calibration != "none":
        targets = dataset.part("validation").target.to_numpy()
        calibration = fit_calibration(chosen.calibration, targets, uncalibrated["validation"])
        model = with_calibration(model, calibration)
        # Predicted by the saved model, because another computation could break ties between classes differently.
        probabilities = predict_parts(model, dataset, chosen.batch_size)
    evaluations = []
    for part, predicted in probabilities.items():
        rows = dataset.part(part)
        predictions = predictions_of(rows, predicted, dataset.classes, settings.data.binary_tasks)
        evaluations.append(evaluate(part, rows, predictions, bootstrap))
    if chosen.calibration != "none":
        log_calibration(run, calibration, [e.with_probabilities(uncalibrated[e.part]) for e in evaluations])
    decisions = fit_decisions(evaluations[0].predictions, chosen)
    log_evaluations(run, evaluations, dataset, protocol=protocol, model=model, decisions=decisions)
    log_decisions(run, evaluations, decisions, bootstrap, chosen.prevalence)
    log_subgroups(run, evaluations[-1], dataset, chosen, bootstrap, decisions.points)
    run.log_measures({"evaluation/seconds": time.perf_counter() - started})
    return model, evaluations, decisions


def _save(model: Any, dataset: Dataset, settings: TrainConfig, protocol: Protocol, decisions: "Decisions") -> str:
    from melanoma.tracking.models import save_model

    return save_model(
        model,
        classes=dataset.classes,
        image_size=settings.data.image_size,
        resize=settings.data.resize,
        example=dataset.pixels(dataset.part("train").head(2)),
        metadata={
            "task": settings.data.name,
            "protocol": str(protocol),
            "fingerprint": dataset.fingerprint,
            "max_megapixels": settings.data.max_megapixels,
            **decisions.metadata(),
        },
    )
