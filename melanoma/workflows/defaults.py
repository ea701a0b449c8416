"""Settings that depend on the images: the positive class, the primary metric, and what follows from it."""

import difflib
import logging
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import yaml

from melanoma.config.arguments import flattened
from melanoma.config.schema import TrainConfig
from melanoma.data.positive import with_positive
from melanoma.data.sources import Source
from melanoma.errors import ConfigError
from melanoma.evaluation.metrics import default_primary_metric, is_error, measured_names
from melanoma.paths import conf_dir

__all__ = ["announce", "recorded", "with_defaults"]

log = logging.getLogger("melanoma")


def with_defaults(settings: TrainConfig, source: Source) -> tuple[TrainConfig, Source]:
    """Return the settings without nulls for `data.positive`, `primary_metric` and `training.monitor`.

    The positive class becomes the last class of the source.

    Raises:
        ConfigError: If the positive class is not known, or if no such metric is measured on these classes.
    """
    source, positive = with_positive(source, settings.data.positive, settings.data.leave_out)
    classes = [label for label in source.classes if label not in settings.data.leave_out]
    primary = settings.primary_metric or default_primary_metric(len(classes), settings.protocol == "published")
    measured = measured_names(classes, settings.data.binary_tasks)
    known = {name for name in measured if not name.startswith("support/")}  # a count, not a metric
    if primary not in known:
        close = difflib.get_close_matches(primary, known, n=3)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise ConfigError(
            [
                "primary_metric is the name of a metric without its part, such as auc, balanced_accuracy or "
                f"TASK/auc.{hint} Received: primary_metric={primary}"
            ]
        )
    training = replace(settings.training, monitor=settings.training.monitor or f"val/{primary}")
    data = replace(settings.data, positive=positive)
    return replace(settings, data=data, training=training, primary_metric=primary), source


def recorded(resolved: dict[str, Any], settings: TrainConfig) -> dict[str, Any]:
    """Return the configuration to log, with the values that `with_defaults` has filled in."""
    return {
        **resolved,
        "primary_metric": settings.primary_metric,
        "data": {**resolved["data"], "positive": settings.data.positive},
        "training": {**resolved["training"], "monitor": settings.training.monitor},
    }


def announce(settings: TrainConfig, resolved: dict[str, Any], varied: Collection[str] = ()) -> None:
    """Log what a preset has set, the positive class, and the primary metric, on which all results depend.

    Args:
        settings: The whole configuration.
        resolved: The same as plain dictionaries.
        varied: Keys that a sweep varies.
    """
    if settings.preset is not None:
        values = flattened(resolved)  # of a group, `model.name` is its choice
        preset = {key: value for key, value in _preset(settings.preset).items() if key not in varied}
        words = [f"{k}={value}" for k, value in preset.items() if values.get(k, values.get(f"{k}.name")) == value]
        if words:
            log.info("preset=%s sets %s", settings.preset, " ".join(words))
    if settings.data.positive is not None:
        log.info("Positive class: %s (data.positive changes it)", settings.data.positive)
    elif settings.data.binary_tasks:
        tasks = "; ".join(f"{name}: {', '.join(labels)}" for name, labels in settings.data.binary_tasks.items())
        log.info("Positive classes of each binary task: %s", tasks)
    best = "lowest" if is_error(str(settings.primary_metric)) else "highest"
    log.info("Primary metric: %s, %s is best (primary_metric changes it)", settings.primary_metric, best)


def _preset(name: str) -> dict[str, Any]:
    """Return the keys that a preset sets, and their values; of a group, its choice."""
    file = conf_dir() / "preset" / f"{name}.yaml"
    if not file.is_file():  # a user's own, in another folder
        return {}
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    groups = [item for entry in content.pop("defaults", []) for item in entry.items()]
    del content["preset"]
    return {**{group.removeprefix("override /"): choice for group, choice in groups}, **flattened(content)}
