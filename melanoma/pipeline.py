"""One experiment, stage by stage. Read this first."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, InstantiationException
from hydra.utils import UNSAFE_DISABLE_EXECUTION_CHECKS, instantiate
from omegaconf import DictConfig, OmegaConf

from melanoma.config.launch import typed
from melanoma.config.schema import DataConfig, TrainConfig
from melanoma.data.dataset import Dataset, add_augmented, divide, load_images, open_source
from melanoma.data.progress import TerminalProgress
from melanoma.data.sources import Source
from melanoma.errors import ConfigError, MelanomaError
from melanoma.paths import cache_dir
from melanoma.terminal import log_to, quiet_native_imports
from melanoma.tracking.store import tracking_uri

__all__ = ["Result", "decoded", "protocol_of", "read_source", "train"]

log = logging.getLogger("melanoma")


@dataclass(frozen=True)
class Result:
    """What a training run gave.

    Attributes:
        run_id: of the MLflow run.
        metrics: by the names of the tracking store, of validation and test.
        model: address of the saved model.
    """

    run_id: str
    metrics: dict[str, float]
    model: str


def train(config: DictConfig, overrides: list[str], folder: Path) -> Result:
    """Run one experiment: data, split, model, fit, evaluation, all of it logged to MLflow.

    Args:
        config: the composed configuration, checked by `melanoma.config`.
        overrides: as given on the command line.
        folder: for the run's log file.

    Raises:
        MelanomaError: with what is wrong and what to do.
    """
    log_file = log_to(folder, "train")
    settings: TrainConfig = typed(TrainConfig, config)
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    if settings.data.path is not None:
        resolved["data"]["path"] = str(Path(settings.data.path).expanduser().absolute())
    source = read_source(settings.data)
    _check_classes(resolved["model"], source.classes)

    # TensorFlow and MLflow take seconds to import: only now that configuration and data are known to be sound.
    with quiet_native_imports():
        from melanoma.evaluation.evaluate import evaluate_parts
        from melanoma.evaluation.summary import show_result
        from melanoma.models.weights import initial_weights
        from melanoma.tracking import log as tracking_log
        from melanoma.tracking.models import load_saved_model, save_model
        from melanoma.tracking.run import tracked_run
        from melanoma.training.hardware import prepare
        from melanoma.training.network import fit_network

    uri = tracking_uri(settings.tracking.uri)
    protocol = protocol_of(settings)
    with tracked_run(
        uri=uri,
        experiment=settings.tracking.experiment,
        name=settings.tracking.run_name,
        system_metrics=settings.tracking.system_metrics,
        tags={"melanoma.task": settings.data.name, "melanoma.protocol": protocol},
    ) as run:
        try:
            log.info("MLflow run %s, protocol %s", run.id, protocol)
            tracking_log.log_config(run, resolved, overrides)
            dataset = balanced(settings, split(settings, decoded(settings.data, source)))
            tracking_log.log_dataset(run, dataset, settings.data.path or settings.data.name)
            ancestor = None
            if ":/" in (settings.model.weights or ""):
                ancestor = load_saved_model(str(settings.model.weights))
                tracking_log.log_ancestor(run, ancestor, dataset, protocol)
            # Before the layers are built: each draws the seed of its own generator when it is made.
            prepare(settings.seed, settings.training.deterministic)
            fitted = fit_network(
                dataset,
                settings,
                builder=_builder(resolved["model"]),
                layers=[_build("augmentation.layers", layer) for layer in resolved["augmentation"]["layers"]],
                optimizer=partial(_build, "optimizer", resolved["optimizer"]),
                schedule=partial(_build, "schedule", resolved["schedule"]),
                initialise=partial(
                    initial_weights,
                    weights=settings.model.weights,
                    family=resolved["model"].get("family"),
                    image_size=settings.data.image_size,
                    saved=None if ancestor is None else ancestor.keras_model,
                    with_head=ancestor is not None and ancestor.classes == dataset.classes,
                ),
                on_epoch=lambda epoch, metrics: run.log_metrics(metrics, step=epoch),
                profile=folder / "profile" if settings.debug.profile else None,
            )
            tracking_log.log_fit(run, fitted, folder / "profile")
            tracking_log.log_samples(run, dataset, fitted.augment, settings.seed)
            evaluations = evaluate_parts(fitted.model, dataset, settings.evaluation, settings.seed)
            tracking_log.log_evaluations(run, evaluations)
            address = save_model(
                fitted.model,
                classes=dataset.classes,
                image_size=settings.data.image_size,
                resize=settings.data.resize,
                example=dataset.pixels(dataset.part("train").head(2)),
                metadata={"task": settings.data.name, "protocol": protocol, "fingerprint": dataset.fingerprint},
            )
        finally:
            run.log_file(str(log_file), "logs")
    show_result(evaluations, run.id, uri, address)
    return Result(run.id, {k: v for e in evaluations for k, v in e.named_metrics().items()}, address)


def protocol_of(settings: TrainConfig) -> str:
    """`clean`, or the name of each shortcut taken."""
    debug = settings.debug
    shortcuts = [
        *(["debug_overfit"] if debug.overfit else []),
        *(["debug_one_batch"] if debug.train_batches == 1 and not debug.overfit else []),
        *(["debug_few_batches"] if (debug.train_batches or 0) > 1 and not debug.overfit else []),
    ]
    return ",".join(shortcuts) or settings.protocol


def read_source(settings: DataConfig) -> Source:
    """List the images of a data config."""
    return open_source(
        partial(_build, "data.source", settings.source),
        path=settings.path,
        classes=settings.classes,
        max_files=settings.archive.max_files,
        max_gigabytes=settings.archive.max_gigabytes,
        cache=cache_dir(),
        progress=TerminalProgress(),
    )


def decoded(settings: DataConfig, source: Source, least: int = 2) -> Dataset:
    """Decode a source's images into the cache and put aside what cannot be read; each class must keep `least`."""
    return load_images(
        source,
        name=settings.name,
        size=settings.image_size,
        resize=settings.resize,
        max_megapixels=settings.max_megapixels,
        max_quarantined=settings.max_quarantined,
        least=least,
        cache=cache_dir(),
        progress=TerminalProgress(),
    )


def split(settings: TrainConfig, dataset: Dataset) -> Dataset:
    """Put each image into training, validation or test."""
    chosen = settings.split
    return divide(
        dataset,
        method=chosen.method,
        validation=chosen.validation,
        test=chosen.test,
        file=chosen.file,
        seed=settings.seed,
    )


def balanced(settings: TrainConfig, dataset: Dataset) -> Dataset:
    """Add what `balance=augmentor` makes from the training images; other ways of balancing change no files."""
    if settings.balance.name != "augmentor":
        return dataset
    return add_augmented(
        dataset,
        images_per_class=settings.balance.images_per_class,
        operations=settings.balance.operations,
        seed=settings.seed,
        resize=settings.data.resize,
        cache=cache_dir(),
        progress=TerminalProgress(),
    )


def _check_classes(model: dict[str, Any], classes: list[str]) -> None:
    wanted = model["classes"]
    if wanted is not None and wanted != len(classes):
        raise ConfigError(
            [
                f"Model '{model['name']}' is for {wanted} classes and the data has {len(classes)}; choose another "
                f"model, or other data. Received: {', '.join(classes)}"
            ]
        )


def _builder(model: dict[str, Any]) -> partial:
    """The network's builder with its own arguments; the keys that every model config has are not among them."""
    common = {"name", "classes", "epochs", "weights", "warmup_epochs", "finetune_factor"}
    node = {key: value for key, value in model.items() if key not in common}
    if "family" in node:
        node["pretrained"] = model["weights"] not in (None, "none")
    return partial(_build, "model", node)


def _build(key: str, node: dict[str, Any], **arguments: Any) -> Any:
    """What `_target_` names, with the arguments of the node and further ones; a fault is the configuration's."""
    try:
        # The configuration is the user's own program, so it may name anything that is installed.
        return instantiate(node, **arguments, _convert_="all", _execution_whitelist_=UNSAFE_DISABLE_EXECUTION_CHECKS)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, MelanomaError) or not isinstance(
            cause, TypeError | ValueError | ImportError | HydraException
        ):
            raise cause from error
        raise ConfigError([f"{key}: {str(cause).splitlines()[0]}. Received: {node}"]) from error
