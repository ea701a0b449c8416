"""Display of the registry, and rollback to the previous champion."""

import logging

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from rich.markup import escape
from rich.table import Table

from melanoma.config.command_schema import RollbackConfig
from melanoma.errors import ModelError
from melanoma.evaluation.texts import stored_text
from melanoma.registry.trail import decisions, new_decision, sentence_on, write_down
from melanoma.registry.versions import alias_of, carry_out, registry_lock, repair
from melanoma.terminal import out, quiet_native_imports
from melanoma.tracking.looks import attempt_level, looks_at
from melanoma.tracking.names import Alias, Tag
from melanoma.tracking.records import RunRecord
from melanoma.tracking.registered import only_model, registered_models

__all__ = ["rollback", "show_registry"]

log = logging.getLogger("melanoma")

_SHOWN = ("test/balanced_accuracy", "test/auc")


def rollback(settings: RollbackConfig, uri: str) -> ModelVersion:
    """Swap the aliases `champion` and `previous`, and return the version that becomes the champion.

    Raises:
        ModelError: If there is no previous champion, or if it cannot be loaded.
    """
    # Imported here, because they need TensorFlow and `show_registry` does not.
    with quiet_native_imports():
        from melanoma.models.model_files import UnsafeModel
        from melanoma.tracking.model_store import checked_model

    name = only_model(settings.task)
    with registry_lock(uri, name):
        for sentence in repair(name):
            log.warning("%s", sentence)
        champion, before = alias_of(name, Alias.CHAMPION), alias_of(name, Alias.PREVIOUS)
        if champion is None or before is None:
            have = "no champion" if champion is None else f"version {champion.version} and no previous champion"
            raise ModelError(f"There is no previous champion to roll back to. Received: {name} with {have}")
        try:
            checked_model(f"models:/{name}/{before.version}")
        except (UnsafeModel, MlflowException, OSError) as error:
            raise ModelError(
                f"The previous champion cannot be used ({str(error).splitlines()[0]}), and nothing was changed. "
                f"Received: {name}, version {before.version}"
            ) from error
        decision = new_decision("rollback", before, champion, before.run_id, [])
        write_down(name, decision)
        carry_out(name, decision)
    out().print(
        f"Rolled back: {name}, version {before.version}, is the champion (previous: version {champion.version})",
        markup=False,
    )
    return before


def show_registry(settings: RollbackConfig, uri: str) -> None:  # noqa: ARG001
    """Print the versions, with aliases and metrics, and the decision trail of one or all registered models."""
    names = registered_models() if settings.task is None else [only_model(settings.task)]
    if not names:
        out().print("No model is registered; `melanoma promote` registers the best run of an experiment.", markup=False)
    for name in names:
        _show_versions(name)
        _show_looks(name)
        _show_decisions(name)


def _show_versions(name: str) -> None:
    table = Table(title=f"{name}: versions", title_justify="left")
    for column in ("version", "alias", "state", "run", *_SHOWN):
        table.add_column(column, overflow="fold")
    client = mlflow.MlflowClient()
    aliases = client.get_registered_model(name).aliases  # a search returns versions without their aliases
    versions = client.search_model_versions(f"name = '{name}'")
    for version in sorted(versions, key=lambda one: -int(one.version)):
        metrics = _metrics(version)
        table.add_row(
            str(version.version),
            ", ".join(alias for alias, number in aliases.items() if int(number) == int(version.version)),
            version.tags.get(Tag.PROMOTION, "by hand"),
            escape(version.run_id or "-"),
            *(stored_text(metrics, metric) for metric in _SHOWN),
        )
    out().print(table)


def _metrics(version: ModelVersion) -> dict[str, float]:
    try:
        return RunRecord.read(version.run_id).metrics_named(*_SHOWN)
    except ModelError:
        return {}


def _show_looks(name: str) -> None:
    """Print how often the test images of the champion were looked at, and what that means for the next promotion."""
    champion = alias_of(name, Alias.CHAMPION)
    try:
        digest = None if champion is None else RunRecord.read(champion.run_id).digest("test")
    except ModelError:
        return
    if digest is not None:
        looks = looks_at(digest)
        level = attempt_level(len(looks.candidates) + 1)
        out().print(
            f"Looks at the champion's test images: {looks}. The next attempt with another run is judged by {level:.2%} "
            "intervals.",
            soft_wrap=True,
            markup=False,
        )


def _show_decisions(name: str) -> None:
    trail = decisions(name)
    if not trail:
        return
    table = Table(title=f"{name}: decisions, newest first", title_justify="left")
    for column in ("when (UTC)", "by", "decision"):
        table.add_column(column)
    for decision in reversed(trail):
        table.add_row(decision.when.removesuffix("+00:00"), escape(decision.by), escape(sentence_on(decision)))
    out().print(table)
