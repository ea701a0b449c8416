"""One experiment, stage by stage. Read this first."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from melanoma.audit.findings import Audit
from melanoma.config.launch import typed
from melanoma.config.schema import TrainConfig
from melanoma.data.dataset import Dataset
from melanoma.data.sources import Source
from melanoma.paths import user_path
from melanoma.protocol import joined_protocol, shortcuts
from melanoma.source_checks import check_experiment
from melanoma.stages import audited, build, number_of_folds, prepared, read_source
from melanoma.sweeps.pruning import pruning_check
from melanoma.terminal import log_to, quiet_native_imports
from melanoma.tracking.store import tracking_uri

if TYPE_CHECKING:
    from melanoma.evaluation.decisions import Decisions
    from melanoma.evaluation.evaluate import Evaluation
    from melanoma.tracking.run import Run

__all__ = ["Experiment", "Result", "builder_of", "run_experiment", "train"]

log = logging.getLogger("melanoma")


@dataclass(frozen=True)
class Experiment:
    """What is run: the configuration, as typed settings and as logged, and the images as delivered."""

    settings: TrainConfig
    resolved: dict[str, Any]
    overrides: list[str]
    source: Source
    folder: Path
    uri: str

    @property
    def log_file(self) -> Path:
        """Where the log lines go, besides the terminal."""
        return self.folder / "train.log"

    @property
    def tags(self) -> dict[str, str]:
        """The task, and the protocol: `clean`, or the name of each shortcut taken."""
        taken = shortcuts(self.settings, self.source.table.columns)
        return {"melanoma.task": self.settings.data.name, "melanoma.protocol": joined_protocol(*taken)}


@dataclass(frozen=True)
class Result:
    """What a training run gave.

    Attributes:
        run_id: of the MLflow run.
        evaluations: of validation and test.
        model: address of the saved model; None for a run that only gathers others.
        protocol: `clean`, or the shortcuts taken.
    """

    run_id: str
    evaluations: list["Evaluation"]
    model: str | None
    protocol: str

    @property
    def metrics(self) -> dict[str, float]:
        """By the names of the tracking store."""
        return {name: value for e in self.evaluations for name, value in e.named_metrics().items()}


def train(config: DictConfig, overrides: list[str], folder: Path) -> Result:
    """Run one experiment: data, audit, split, model, fit, evaluation, all of it logged to MLflow.

    Args:
        config: the composed configuration, checked by `melanoma.config`.
        overrides: as given on the command line.
        folder: for the run's log file.

    Raises:
        MelanomaError: with what is wrong and what to do.
    """
    log_to(folder, "train")
    settings: TrainConfig = typed(TrainConfig, config)
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    for node in (resolved["data"], resolved["data"].get("metadata") or {}):
        if node.get("path") is not None:
            node["path"] = str(user_path(node["path"]).absolute())
    source = read_source(settings.data)
    check_experiment(settings, resolved["model"], source)
    experiment = Experiment(settings, resolved, overrides, source, folder, tracking_uri(settings.tracking.uri))

    # TensorFlow and MLflow take seconds to import: only now that configuration and data are known to be sound.
    with quiet_native_imports():
        from melanoma.studies import compare_protocols, cross_validate
        from melanoma.summary import show_result

    if settings.protocol == "both":
        return compare_protocols(experiment)
    if number_of_folds(settings, source):
        return cross_validate(experiment)
    result = run_experiment(experiment, partial(_audited_and_prepared, experiment), name=settings.tracking.run_name)
    show_result(result.evaluations, result.run_id, experiment.uri, result.model)
    return result


def run_experiment(
    experiment: Experiment, prepare_data: Callable[[], tuple[Audit, Dataset]], *, name: str | None, nested: bool = False
) -> Result:
    """One run in MLflow: train on the training images, choose the epoch on validation, evaluate both held-out parts.

    Args:
        experiment: what is run.
        prepare_data: gives the audit and the divided data set.
        name: of the run, or None.
        nested: below the run that is open.
    """
    from melanoma.evaluation.predict import size_and_latency
    from melanoma.models.weights import initial_weights
    from melanoma.tracking import log as tracking_log
    from melanoma.tracking.card import log_card
    from melanoma.tracking.log_config import log_config
    from melanoma.tracking.log_evaluation import log_evaluations
    from melanoma.tracking.models import load_saved_model, save_model
    from melanoma.tracking.run import tracked_run
    from melanoma.training.hardware import prepare
    from melanoma.training.network import fit_network

    settings, resolved, tags = experiment.settings, experiment.resolved, experiment.tags
    protocol, tracking = tags["melanoma.protocol"], settings.tracking
    with tracked_run(
        uri=experiment.uri,
        experiment=tracking.experiment,
        name=name,
        system_metrics=tracking.system_metrics,
        tags=tags,
        nested=nested,
    ) as run:
        try:
            log.info("MLflow run %s%s, protocol %s", run.id, f" ({name})" if name else "", protocol)
            log_config(run, resolved, experiment.overrides)
            audit, dataset = prepare_data()
            tracking_log.log_audit(run, audit, dataset, announce=not nested)
            tracking_log.log_dataset(run, dataset, settings.data.path or settings.data.name, settings.balance.name)
            ancestor = None
            if ":/" in (settings.model.weights or ""):
                ancestor = load_saved_model(str(settings.model.weights))
                least = settings.audit.similarity if settings.audit.near_duplicates else None
                protocol = tracking_log.log_ancestor(
                    run, ancestor, str(settings.model.weights), dataset, audit, protocol, least
                )
            # Before the layers are built: each draws the seed of its own generator when it is made.
            prepare(settings.seed, settings.training.deterministic)
            fitted = fit_network(
                dataset,
                settings,
                builder=builder_of(resolved["model"]),
                layers=[build("augmentation.layers", layer) for layer in resolved["augmentation"]["layers"]],
                optimizer=partial(build, "optimizer", resolved["optimizer"]),
                schedule=partial(build, "schedule", resolved["schedule"]),
                initialise=partial(
                    initial_weights,
                    weights=settings.model.weights,
                    family=resolved["model"].get("family"),
                    image_size=settings.data.image_size,
                    saved=None if ancestor is None else ancestor.keras_model,
                    with_head=ancestor is not None and ancestor.classes == dataset.classes,
                ),
                on_epoch=_epoch_logger(run),
                profile=experiment.folder / "profile" if settings.debug.profile else None,
            )
            tracking_log.log_fit(run, fitted, experiment.folder / "profile")
            tracking_log.log_samples(run, dataset, fitted.augment, settings.seed)
            begun = time.perf_counter()
            run.log_metrics(size_and_latency(fitted.model, settings.data.image_size))
            model, evaluations, decisions = _measured(run, fitted.model, dataset, settings)
            log_evaluations(
                run,
                evaluations,
                protocol=protocol,
                dataset=dataset,
                settings=settings.evaluation,
                seed=settings.seed,
                model=model,
                decisions=decisions,
            )
            run.log_metrics({"evaluation/seconds": time.perf_counter() - begun})
            log_card(run)
            address = save_model(
                model,
                classes=dataset.classes,
                image_size=settings.data.image_size,
                resize=settings.data.resize,
                example=dataset.pixels(dataset.part("train").head(2)),
                metadata={
                    "task": settings.data.name,
                    "protocol": protocol,
                    "fingerprint": dataset.fingerprint,
                    "max_megapixels": settings.data.max_megapixels,
                    **decisions.metadata(),
                },
            )
        finally:
            run.log_file(str(experiment.log_file), "logs")
    return Result(run.id, evaluations, address, protocol)


def _measured(
    run: "Run", model: Any, dataset: Dataset, settings: TrainConfig
) -> tuple[Any, list["Evaluation"], "Decisions"]:
    """The model as it is saved, with its calibration if any; how it does on validation and test; and its decisions."""
    from melanoma.evaluation.calibrated_model import with_calibration
    from melanoma.evaluation.calibration import fitted_calibration
    from melanoma.evaluation.decisions import fitted_decisions
    from melanoma.evaluation.evaluate import evaluate_parts, predict_parts
    from melanoma.tracking.log_decisions import log_calibration

    chosen = settings.evaluation
    measure = partial(evaluate_parts, dataset, settings=chosen, views=settings.data.views, seed=settings.seed)
    raw = predict_parts(model, dataset, chosen.batch_size)
    if chosen.calibration == "none":
        evaluations = measure(raw)
    else:
        targets = dataset.part("validation").target.to_numpy()
        calibration = fitted_calibration(chosen.calibration, targets, raw["validation"])
        model = with_calibration(model, calibration)
        # By the model that is saved: where classes are level, another way to compute would take another one.
        evaluations = measure(predict_parts(model, dataset, chosen.batch_size))
        log_calibration(run, calibration, [e.with_probabilities(raw[e.part]) for e in evaluations])
    return model, evaluations, fitted_decisions(evaluations[0], chosen)


def _epoch_logger(run: "Run") -> Callable[[int, dict[str, float]], None]:
    """Logs each epoch, and ends a trial of a sweep that has fallen behind."""
    check = pruning_check()

    def log_epoch(epoch: int, metrics: dict[str, float]) -> None:
        run.log_metrics(metrics, step=epoch)
        if check is not None:
            check(epoch, metrics)

    return log_epoch


def _audited_and_prepared(experiment: Experiment) -> tuple[Audit, Dataset]:
    settings = experiment.settings
    audit = audited(experiment.source, settings.audit, settings.data.max_megapixels)
    return audit, prepared(settings, experiment.source, audit)


def builder_of(model: dict[str, Any]) -> partial:
    """The network's builder with its own arguments; the keys that every model config has are not among them."""
    common = {"name", "classes", "epochs", "weights", "warmup_epochs", "finetune_factor"}
    node = {key: value for key, value in model.items() if key not in common}
    if "family" in node:
        node["pretrained"] = model["weights"] not in (None, "none")
    return partial(build, "model", node)
