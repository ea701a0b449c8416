"""An MLflow run that always ends with the status FINISHED, FAILED or KILLED."""

import hashlib
import json
import logging
import os
import random
import re
import shlex
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.data.dataset import Dataset
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.time import get_current_time_millis

from melanoma.config.schema import TrackingConfig
from melanoma.data.cache import NO_SPACE
from melanoma.errors import ConfigError, RunKilled, RunPruned, TrackingError
from melanoma.tracking.children import parts_of
from melanoma.tracking.heartbeat import heartbeat, signs_of_life
from melanoma.tracking.measures import is_shown, measures_csv, measures_json
from melanoma.tracking.names import Artifact, Tag, stored_name
from melanoma.tracking.page import describe_experiment
from melanoma.tracking.source import git_commit
from melanoma.tracking.store import hurry, patience_kept, prepare_experiment, without_password

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Run", "logging_file", "tag_if_possible", "tracked_run", "with_retries"]

log = logging.getLogger("melanoma")

_MAX_PARAM = 6000
_MAX_TAG = 5000
_BATCH = 100
_STORE_FAILED = re.compile("disk is full|readonly|OperationalError|unable to open|API request to|Max retries exceeded")
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds


class Run:
    """An active run.

    Attributes:
        id: ID of the run.
        figures: Whether figures are logged.
        primary: Name of the primary metric, without a part; empty if there is none.
        before: The run as it was when it was interrupted; None for a new run.
    """

    def __init__(
        self,
        run_id: str,
        *,
        figures: bool = True,
        all_metrics: bool = False,
        primary: str = "",
        before: mlflow.entities.Run | None = None,
    ):
        self.id = run_id
        self.figures = figures
        self.primary = primary
        self.before = before
        self._all_metrics = all_metrics
        self._measured: dict[str, float] = {}
        self._hashes: dict[str, str] = {} if before is None else json.loads(before.data.tags.get(Tag.SHA256, "{}"))
        self._saved = 0
        self._client = mlflow.MlflowClient()

    def child(self, member: str) -> mlflow.entities.Run | None:
        """Return the child run that is a part of this run, such as a fold; None if there is none."""
        return next((run for run in reversed(parts_of(self.id)) if run.data.tags[Tag.MEMBER] == member), None)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters, truncated to MLflow's limit, except those that `mlflow run` has already logged."""
        known = self._client.get_run(self.id).data.params
        given = {stored_name(key): str(value)[:_MAX_PARAM] for key, value in params.items()}
        new = [Param(key, value) for key, value in given.items() if key not in known]
        for start in range(0, len(new), _BATCH):
            with_retries(self._client.log_batch, self.id, params=new[start : start + _BATCH])

    def log_measures(self, metrics: Mapping[str, float]) -> None:
        """Add metrics to the file of all metrics, and log those that MLflow shows; see `is_shown`."""
        self._measured |= metrics
        shown = {name: v for name, v in metrics.items() if self._all_metrics or is_shown(name, self.primary)}
        known = {} if self.before is None else self.before.data.metrics
        self.log_metrics({name: value for name, value in shown.items() if known.get(stored_name(name)) != value})

    @property
    def has_config(self) -> bool:
        """Whether the configuration of the run is recorded."""
        return Artifact.CONFIG in self._hashes

    @property
    def measures(self) -> dict[str, float]:
        """All measures that were logged, with their intervals."""
        return dict(self._measured)

    def save_measures(self) -> None:
        """Write the files of all metrics, unless they are complete. A failed run also has what it measured."""
        if len(self._measured) > self._saved:
            self.log_evidence(measures_json(self._measured), Artifact.METRICS)
            self.log_evidence(measures_csv(self._measured), Artifact.METRICS_TABLE)
            self._saved = len(self._measured)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of an epoch, except those that were logged before the run was interrupted."""
        last = self.epochs_before - 1
        if epoch > last:
            self.log_metrics(metrics, step=epoch)
        elif epoch == last:  # of which only a part may have been logged
            missing = {name: value for name, value in metrics.items() if epoch not in self._steps(name)}
            self.log_metrics(missing, step=epoch)

    @cached_property
    def epochs_before(self) -> int:
        """Number of epochs that were logged before the run was interrupted."""
        return 0 if self.before is None else max(self._steps("train/loss"), default=-1) + 1

    def _steps(self, metric: str) -> set[int]:
        return {one.step for one in self._client.get_metric_history(self.id, stored_name(metric))}

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics of a step to MLflow; see `stored_name` for names that MLflow does not accept."""
        now = get_current_time_millis()
        items = [Metric(stored_name(key), float(value), now, step) for key, value in metrics.items()]
        for start in range(0, len(items), _BATCH):
            with_retries(self._client.log_batch, self.id, metrics=items[start : start + _BATCH])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, truncated to MLflow's limit."""
        with_retries(
            self._client.log_batch, self.id, tags=[RunTag(key, str(value)[:_MAX_TAG]) for key, value in tags.items()]
        )

    def add_note(self, text: str) -> None:
        """Add a paragraph to the description of the run."""
        before = self._client.get_run(self.id).data.tags.get(Tag.NOTE, "")
        self.set_tags({Tag.NOTE: "\n\n".join(filter(None, [before, text]))})

    def log_input(self, dataset: Dataset, context: str) -> None:
        """Log a data set as an input of this run, which must be the active run."""
        with_retries(mlflow.log_input, dataset, context=context)

    def log_text(self, text: str, path: str) -> None:
        """Log a text as the artifact `path`."""
        self._client.log_text(self.id, text, path)

    def log_evidence(self, text: str, path: str) -> None:
        """Log a text that serves as evidence, and its SHA-256 to the database, separately from the artifact store."""
        self.log_text(text, path)
        self._hashes[path] = hashlib.sha256(text.encode()).hexdigest()
        self.set_tags({Tag.SHA256: json.dumps(self._hashes)})

    def log_json(self, content: Any, path: str) -> None:
        """Log a dictionary as the artifact `path`, which must end in `.json`."""
        self._client.log_dict(self.id, content, path)

    def log_figure(self, figure: "Figure", name: str, *, part: str = "test", vector: bool = False) -> None:
        """Log a figure as `figures/<name>.png`, and with `vector` also as `.svg`.

        The name has the prefix `<part>_`, except for figures of the test set and figures of no part.
        """
        if not self.figures:
            return
        name = name if part == "test" else f"{part}_{name}"
        # Figures from other libraries have no layout engine and are cropped to their content.
        whole = {} if figure.get_layout_engine() is not None else {"bbox_inches": "tight"}
        self._client.log_figure(self.id, figure, f"figures/{name}.png", save_kwargs={"dpi": 120, **whole})
        if vector:
            figure.set_layout_engine("none")  # keeps the layout from above
            self._client.log_figure(self.id, figure, f"figures/{name}.svg")

    def log_file(self, path: str, folder: str) -> None:
        """Log a file or a folder to the artifact folder `folder`."""
        if os.path.isdir(path):  # noqa: PTH112
            self._client.log_artifacts(self.id, path, folder)
        else:
            self._client.log_artifact(self.id, path, folder)


@contextmanager
def tracked_run(
    uri: str,
    tracking: TrackingConfig,
    *,
    tags: Mapping[str, str],
    name: str,
    nested: bool = False,
    resume: str | None = None,
) -> Iterator[Run]:
    """Start a run, or continue the run that `mlflow run` created, and end it with the right status.

    The status is FAILED after an exception, KILLED after Ctrl-C, SIGTERM or pruning, and FINISHED otherwise. Logged
    content is kept in all cases.

    Args:
        uri: URI of the MLflow store.
        tracking: Settings of the experiment, figures and system metrics.
        tags: Tags of the run.
        name: Name of the run. A run that `mlflow run` created keeps a name that the user gave it.
        nested: Whether the run is a child of the active run.
        resume: ID of an ended run to continue.

    Raises:
        ConfigError: If the store or the run cannot be opened, or if the run that `mlflow run` created is in another
            store.
        TrackingError: If the disk of the store is full, or the store cannot be written any more.
    """
    experiment = tracking.experiment
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    under_mlflow_run = bool(os.environ.get("MLFLOW_RUN_ID"))
    made_in = os.environ.get("MLFLOW_TRACKING_URI", uri)
    if under_mlflow_run and made_in != uri:
        raise ConfigError(
            [
                f"`mlflow run` has made its run in {without_password(made_in)}; give it another store by the "
                f"environment variable MLFLOW_TRACKING_URI. Received: tracking.uri={without_password(uri)}"
            ]
        )
    # `mlflow run` has chosen the experiment; setting another conflicts with its run.
    parent = mlflow.active_run() if nested else None
    if parent is None:
        experiment_id = prepare_experiment(uri, None if under_mlflow_run else experiment)
    else:
        experiment_id = parent.info.experiment_id
    status, stack = "FAILED", ExitStack()
    stack.enter_context(patience_kept())
    try:
        try:
            existing = resume or os.environ.get("MLFLOW_RUN_ID")
            before = mlflow.get_run(existing) if existing else None
            started = mlflow.start_run(
                run_id=resume,
                experiment_id=experiment_id,
                run_name=None if under_mlflow_run or resume else name,  # would rename an existing run
                nested=nested,
                tags=signs_of_life(),
                log_system_metrics=tracking.system_metrics,
            )
        except MlflowException as error:
            raise ConfigError([f"The MLflow run cannot be opened: {error}"]) from error
        # mlflow.start_run has taken MLFLOW_RUN_ID; a child process must not write into the same run.
        os.environ.pop("MLFLOW_RUN_ID", None)
        run = Run(
            started.info.run_id,
            # Also a trial of a sweep that is run again, but not a run that `mlflow run` has just made.
            before=before if before is not None and Tag.OWNER in before.data.tags else None,
            figures=tracking.figures,
            all_metrics=tracking.metrics == "all",
            primary=tags.get(Tag.PRIMARY_METRIC, ""),
        )
        if under_mlflow_run and re.fullmatch(r"[a-z]+-[a-z]+-\d+", started.info.run_name):
            run.set_tags({Tag.RUN_NAME: name})
        if parent is None and run.primary:
            describe_experiment(started.info.experiment_id, run.primary)
        if under_mlflow_run:
            _remark_on_experiment(started.info.experiment_id, experiment)
        run.set_tags({Tag.HOST: socket.gethostname(), **git_commit(), **tags, **_resumed(run)})
        with _writing_errors(uri), _noting_errors(run), heartbeat(run.id):
            yield run
        status = "FINISHED"
    except (KeyboardInterrupt, RunKilled, RunPruned):
        status = "KILLED"
        raise
    finally:
        with stack, suppress(MlflowException) if status != "FINISHED" else nullcontext():  # the error itself is raised
            mlflow.end_run(status)


@contextmanager
def logging_file(run: Run, path: Path) -> Iterator[None]:
    """Log a log file at the end of the context; after an error, only if the store answers."""
    try:
        yield
    except BaseException:
        hurry()
        with suppress(MlflowException, OSError):
            run.log_file(str(path), "logs")
        raise
    run.log_file(str(path), "logs")


def tag_if_possible(run: Run, tags: Mapping[str, str]) -> None:
    """Set tags of a run that ends early, unless the store is the error itself."""
    hurry()
    with suppress(MlflowException, OSError):
        run.set_tags(tags)


@contextmanager
def _noting_errors(run: Run) -> Iterator[None]:
    """Save the measures of a run at its end, and tag why it ended early, if the store answers."""
    try:
        yield
    except BaseException as error:
        tags = {}
        if isinstance(error, RunPruned):
            tags = {Tag.PRUNED: str(error)}
        elif isinstance(error, RunKilled | KeyboardInterrupt):
            tags = {Tag.INTERRUPTED: "SIGTERM" if isinstance(error, RunKilled) else "Ctrl-C"}
        elif isinstance(error, Exception):
            tags = {Tag.ERROR: f"{type(error).__name__}: {error}"}
        tag_if_possible(run, tags)
        with suppress(MlflowException, OSError):
            run.save_measures()
        raise
    run.save_measures()


@contextmanager
def _writing_errors(uri: str) -> Iterator[None]:
    """Convert errors of a store that cannot be written any more to `TrackingError`, with one message."""
    try:
        yield
    except (OSError, MlflowException) as error:
        full = isinstance(error, OSError) and error.errno in NO_SPACE
        reason = str(error).splitlines()[0]
        if not full and _STORE_FAILED.search(reason) is None:
            raise
        raise TrackingError(
            f"The run can no longer be written to the tracking store ({reason}). What was logged is kept; make space "
            f"or repair the store, and go on with the run. Received: {without_password(uri)}"
        ) from error


def _resumed(run: Run) -> dict[str, str]:
    """Return the tags of a run that is resumed, after removing those of its end."""
    if run.before is None:
        return {}
    before = run.before.data.tags
    for tag in {Tag.ERROR, Tag.INTERRUPTED} & before.keys():
        with suppress(MlflowException):
            mlflow.MlflowClient().delete_tag(run.id, tag)
    times = [before.get(Tag.RESUMED, ""), datetime.now(UTC).isoformat(timespec="seconds")]
    beginning = {tag: before[tag] for tag in (Tag.COMMIT, Tag.CONFIG) if tag in before}
    return {Tag.RESUMED: "; ".join(filter(None, times)), **beginning}


def _remark_on_experiment(experiment_id: str, configured: str) -> None:
    """Warn if the run is in another experiment, because `mlflow run` ignores `tracking.experiment`."""
    chosen = mlflow.get_experiment(experiment_id).name
    if chosen != configured:
        log.warning(
            "The run is in the experiment %r, as `mlflow run` chose; for tracking.experiment=%s add "
            "--experiment-name %s before -P.", chosen, configured, shlex.quote(configured),
        )  # fmt: skip


def with_retries(call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    """Call the store, and retry if another process holds a lock or has just created the same row."""
    for pause in (*_PAUSES, None):
        try:
            call(*arguments, **named)
            return
        except MlflowException as error:
            in_the_way = re.search("IntegrityError|UniqueViolation|locked|OperationalError", str(error))
            if pause is None or in_the_way is None or "disk is full" in str(error) or "disk I/O" in str(error):
                raise
            time.sleep(pause * (0.5 + random.random()))
