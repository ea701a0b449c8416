"""The training of a run's model: what is found first, the parts of the training, and the log of its epochs."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melanoma.config.schema import TrainConfig
from melanoma.data.dataset import Dataset
from melanoma.training.pruning import pruning_check
from melanoma.workflows.stages import build

if TYPE_CHECKING:
    from melanoma.tracking.models import SavedModel
    from melanoma.tracking.run import Run
    from melanoma.training.checkpoint import Checkpoints
    from melanoma.training.network import Fitted, Parts

__all__ = ["builder_of", "fit_model", "parts_of"]

log = logging.getLogger("melanoma")


def fit_model(
    run: "Run",
    settings: TrainConfig,
    resolved: dict[str, Any],
    dataset: Dataset,
    ancestor: "SavedModel | None",
    folder: Path,
    *,
    checkpoints: "Checkpoints",
) -> "Fitted":
    """Train the model of a run, with a learning rate and a number of epochs that are found first if configured.

    Args:
        run: Run that logs the epochs.
        settings: The whole configuration.
        resolved: The same as plain dictionaries, with the arguments of model, optimizer, schedule and augmentation.
        dataset: Data set after the split.
        ancestor: Saved model that provides the initial weights, if any.
        folder: Folder for the profile, if any.
        checkpoints: Checkpoints to go on from, and to write.
    """
    from melanoma.training.network import fit_network

    settings = _with_found_values(run, settings, resolved, dataset, ancestor)
    # Created anew, so that the training is the same as with the found values given.
    parts = parts_of(settings, resolved, dataset, ancestor)
    profile = folder / "profile" if settings.debug.profile else None
    return fit_network(dataset, settings, parts, on_epoch=_epoch_logger(run), profile=profile, checkpoints=checkpoints)


def _with_found_values(
    run: "Run", settings: TrainConfig, resolved: dict[str, Any], dataset: Dataset, ancestor: "SavedModel | None"
) -> TrainConfig:
    """Return the settings with the learning rate and the number of epochs that are found by trying, if any."""
    from melanoma.tracking.log import log_range_test
    from melanoma.tracking.log_config import EPOCHS, LEARNING_RATE, WARMUP, log_found
    from melanoma.training.network import epochs_in_time, find_learning_rate

    if (before := _found_before(run, resolved)) is not None:
        return _with(settings, before)
    found: dict[str, float] = {}
    minutes, most = settings.training.max_minutes, settings.training.epochs
    if minutes is not None:
        fitting = epochs_in_time(dataset, settings, parts_of(settings, resolved, dataset, ancestor), minutes)
        if fitting >= most:
            log.info("All %d epochs fit into %g minutes", most, minutes)
        else:
            log.info("About %d of %d epochs fit into %g minutes", fitting, most, minutes)
        found[EPOCHS] = min(fitting, most)
        if 0 < settings.model.warmup_epochs >= found[EPOCHS]:
            # Else only the head would be trained.
            found[WARMUP] = int(found[EPOCHS]) // 2
            log.info("model.warmup_epochs is reduced to %d, to leave epochs for the whole network", found[WARMUP])
        settings = _with(settings, found)
    if settings.training.find_learning_rate:
        test = find_learning_rate(dataset, settings, parts_of(settings, resolved, dataset, ancestor))
        rate = settings.optimizer.learning_rate if test.chosen is None else test.chosen
        log_range_test(run, test, rate)
        found[LEARNING_RATE] = rate
    if found:
        log_found(run, resolved, found)
    return _with(settings, found)


def _found_before(run: "Run", resolved: dict[str, Any]) -> dict[str, float] | None:
    """Return what was found before the run was interrupted; None for a new run, or if it was not found yet."""
    from melanoma.tracking.log_config import WARMUP, found_later

    params = {} if run.before is None else run.before.data.params
    wanted = found_later(resolved)
    if not wanted or not wanted - {WARMUP} <= params.keys():
        return None
    return {key: float(params[key]) for key in wanted if key in params}


def _with(settings: TrainConfig, found: Mapping[str, float]) -> TrainConfig:
    """Return the settings with values that were found."""
    from melanoma.tracking.log_config import EPOCHS, LEARNING_RATE, WARMUP

    training, model, optimizer = settings.training, settings.model, settings.optimizer
    return replace(
        settings,
        training=replace(training, epochs=int(found.get(EPOCHS, training.epochs))),
        model=replace(model, warmup_epochs=int(found.get(WARMUP, model.warmup_epochs))),
        optimizer=replace(optimizer, learning_rate=found.get(LEARNING_RATE, optimizer.learning_rate)),
    )


def parts_of(
    settings: TrainConfig, resolved: dict[str, Any], dataset: Dataset, ancestor: "SavedModel | None"
) -> "Parts":
    """Seed all generators, and return the parts of a training. The arguments are those of `fit_model`."""
    from melanoma.models.weights import initial_weights
    from melanoma.training.hardware import prepare
    from melanoma.training.network import Parts

    # Must precede the creation of the layers, which draw the seeds of their generators.
    prepare(settings.seed, settings.training.deterministic)
    return Parts(
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
    )


def _epoch_logger(run: "Run") -> Callable[[int, dict[str, float]], None]:
    """Return a function that logs each epoch, and ends the run if the pruner of a sweep prunes it."""
    check = pruning_check()

    def log_epoch(epoch: int, metrics: dict[str, float]) -> None:
        run.log_epoch(epoch, metrics)
        if check is not None:
            check(epoch, metrics)

    return log_epoch


def builder_of(model: dict[str, Any]) -> partial:
    """Return the network's builder with its own arguments, without the keys that all model configurations share."""
    common = {"name", "classes", "epochs", "weights", "warmup_epochs", "finetune_factor"}
    node = {key: value for key, value in model.items() if key not in common}
    if "family" in node:
        node["pretrained"] = model["weights"] not in (None, "none")
    return partial(build, "model", node)
