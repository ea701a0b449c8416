"""The records of runs; the only module that reads them."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from typing import Any

import mlflow
import pandas as pd
import yaml
from mlflow.exceptions import MlflowException

from melanoma.config.renamed import move_renamed
from melanoma.data.csv_text import read_csv_text
from melanoma.errors import ModelError
from melanoma.lineage.protocol import Protocol
from melanoma.pages import image_url
from melanoma.tracking.children import parts_of
from melanoma.tracking.measures import read_measures
from melanoma.tracking.names import Artifact, Tag, metrics_named
from melanoma.tracking.store import downloaded

__all__ = ["Ancestry", "NotRecorded", "RunRecord", "ancestry", "class_names_in", "find_runs"]


class NotRecorded(ModelError):
    """A run, or something that it should have logged, is not in the store."""


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run and its records.

    Evidence (configuration, split, metrics, predictions, subgroups, model card) is compared with the SHA-256 that the
    run logged to the database; runs of older versions logged none.

    Attributes:
        run: The MLflow run.
    """

    run: mlflow.entities.Run

    @classmethod
    def read(cls, run_id: str | None) -> "RunRecord":
        """Read the record of a run.

        Raises:
            NotRecorded: If the run does not exist.
        """
        try:
            return cls(mlflow.get_run(str(run_id)))
        except MlflowException as error:
            found = _runs_that_start_with(str(run_id))
            if len(found) == 1:
                return cls(found[0])
            reason = f"{len(found)} runs start like this" if found else str(error).splitlines()[0]
            raise NotRecorded(f"There is no such run ({reason}). Received: {run_id}") from error

    @property
    def id(self) -> str:
        """ID of the run."""
        return str(self.run.info.run_id)

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.run.info.run_name)

    @property
    def label(self) -> str:
        """The name with the first characters of the ID, to make it unique."""
        return f"{self.name} ({self.id[:6]})"

    @property
    def tags(self) -> dict[str, str]:
        """Tags by name; see `Tag`."""
        return dict(self.run.data.tags)

    @property
    def shown_metrics(self) -> dict[str, float]:
        """The last value of each metric that MLflow shows, under the names of the tracking store."""
        return dict(self.run.data.metrics)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """All metrics, under the names of the tracking store; runs of older versions logged all of them to MLflow.

        Raises:
            NotRecorded: If the run's file of all metrics was deleted.
            ModelError: If that file was changed after logging.
        """
        if not self.is_hashed(Artifact.METRICS):
            return self.shown_metrics
        return {**self.shown_metrics, **read_measures(self.text(Artifact.METRICS))}

    @property
    def params(self) -> dict[str, str]:
        """The configuration as text, truncated to MLflow's limit."""
        return dict(self.run.data.params)

    @property
    def task(self) -> str:
        """The tag `melanoma.task`; empty if it is not set."""
        return self.tags.get(Tag.TASK, "")

    @property
    def protocol(self) -> Protocol:
        """The shortcuts of the run; `unknown` if the run did not record them."""
        return Protocol.parse(self.tags.get(Tag.PROTOCOL) or "unknown")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, with renamed keys under their current names.

        Raises:
            NotRecorded: If the run has no configuration.
            ModelError: If the configuration was changed after logging.
        """
        config = dict(yaml.safe_load(self.text(Artifact.CONFIG)))
        move_renamed(config)
        return config

    @property
    def binary_tasks(self) -> dict[str, list[str]]:
        """The positive classes of each binary task; see `Predictions`."""
        found = (self.config.get("data") or {}).get("binary_tasks") or {}
        return {str(name): [str(label) for label in labels] for name, labels in found.items()}

    @cached_property
    def split(self) -> pd.DataFrame:
        """The images of the run: `path`, `label`, `part`, `sha256` and other columns, all as text.

        Raises:
            NotRecorded: If the run has no split.
            ModelError: If the split was changed after logging.
        """
        try:
            return self._table(Artifact.SPLIT)
        except NotRecorded as error:
            raise NotRecorded(
                "The run that trained the model has no data/split.csv, so that it is not known which images it has "
                f"seen; `melanoma evaluate include_seen=true` evaluates on all images. Received: {self.id}"
            ) from error

    @cached_property
    def subgroups(self) -> pd.DataFrame:
        """Metrics of subgroups, all as text; empty if the run has none.

        Raises:
            ModelError: If they were changed after logging.
        """
        return self._table(Artifact.SUBGROUPS) if self.optional_text(Artifact.SUBGROUPS) else pd.DataFrame()

    def predictions(self, part: str = "test") -> pd.DataFrame:
        """Return predictions of `test` or `validation`: `path`, `label`, `sha256`, `group` and `probability/<class>`.

        Raises:
            ModelError: If there are no such predictions, or if they were changed after logging.
        """
        if Tag.SEED_RUNS in self.tags:
            raise NotRecorded(_SEVERAL.format(self.tags[Tag.SEED_RUNS]))
        table = self._predictions
        predictions = table[table.part == part].reset_index(drop=True)
        if not len(predictions) or "sha256" not in predictions:
            raise NotRecorded(f"The run has no predictions of {part} images that can be matched. Received: {self.id}")
        return predictions

    @property
    def predicted_parts(self) -> list[str]:
        """The parts of the data that the run has predictions of, in the order of their evaluation."""
        return [str(part) for part in self._predictions.part.unique()]

    def metrics_named(self, *names: str) -> dict[str, float]:
        """Return the available metrics of the given names under their original names, with their intervals."""
        return metrics_named(self.metrics, names)

    @cached_property
    def members(self) -> list["RunRecord"]:
        """The runs of the seeds, if this is their parent run, else this run alone."""
        ids = self.tags.get(Tag.SEED_RUNS, "").split()
        return [RunRecord.read(run_id) for run_id in ids] or [self]

    @cached_property
    def children(self) -> list["RunRecord"]:
        """The parts of the run, such as the runs of folds, oldest first."""
        return [RunRecord(run) for run in parts_of(self.id)]

    def digest(self, part: str) -> str | None:
        """Return the digest of the images of a part from the MLflow inputs; None unless there is exactly one."""
        inputs = self.run.inputs.dataset_inputs if self.run.inputs else []
        found = [
            one.dataset.digest
            for one in inputs
            if any(tag.key == "mlflow.data.context" and tag.value == part for tag in one.tags)
        ]
        return str(found[0]) if len(found) == 1 else None

    def is_hashed(self, path: str) -> bool:
        """Return whether the run logged the SHA-256 of an artifact."""
        return path in self._hashes

    def text(self, path: str) -> str:
        """Return a text artifact, compared with its SHA-256 if the run logged one.

        Raises:
            NotRecorded: If the run has no such artifact.
            ModelError: If the artifact was changed after logging.
        """
        try:
            content = downloaded(f"runs:/{self.id}/{path}").read_bytes()
        except (MlflowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise NotRecorded(f"The run has no {path} ({reason}). Received: {self.id}") from error
        found, known = hashlib.sha256(content).hexdigest(), self._hashes.get(path)
        if known not in (None, found):
            raise ModelError(
                f"{path} of the run was changed after it was logged: it has SHA-256 {found}, not {known}. "
                f"Received: run {self.id}"
            )
        return content.decode()

    def optional_text(self, path: str) -> str:
        """Return a text artifact; empty if the run has no such artifact."""
        try:
            return self.text(path)
        except NotRecorded:
            return ""

    def json(self, path: str) -> dict[str, Any]:
        """Return a JSON artifact as a dictionary; empty if the run has no such artifact."""
        text = self.optional_text(path)
        return dict(json.loads(text)) if text else {}

    def figure(self, name: str) -> str:
        """Return a figure as a data URL; empty if the run has no such figure."""
        try:
            path = downloaded(f"runs:/{self.id}/figures/{name}.png")
        except (MlflowException, OSError):
            return ""
        return image_url(path.read_bytes())

    def history(self, metric: str) -> list[tuple[int, float]]:
        """Return the step and the value of each measurement of a metric, in order; empty if it was not measured."""
        measured = mlflow.MlflowClient().get_metric_history(self.id, metric)
        return sorted((int(one.step), float(one.value)) for one in measured)

    @cached_property
    def _hashes(self) -> dict[str, str]:
        """SHA-256 of the artifacts that serve as evidence, by path."""
        tags = self.run.data.tags
        of_old = {key.removeprefix(Tag.SHA256_OF): tags[key] for key in tags if key.startswith(Tag.SHA256_OF)}
        return {**of_old, **json.loads(tags.get(Tag.SHA256, "{}"))}

    @cached_property
    def _predictions(self) -> pd.DataFrame:
        # Class names may be 0, NA or None.
        texts = dict.fromkeys(("path", "part", "label", "sha256", "group", "predicted"), str)
        return read_csv_text(StringIO(self.text(Artifact.PREDICTIONS)), keep_default_na=False, dtype=texts)

    def _table(self, path: str) -> pd.DataFrame:
        return read_csv_text(StringIO(self.text(path)), keep_default_na=False, dtype=str)


_SEVERAL = "The run has several seeds; give the run of one of them. Received: the parent run of {}"


@dataclass(frozen=True)
class Ancestry:
    """A run, followed by the runs of its initial weights in order; `complete` if no run is missing."""

    records: list[RunRecord]
    complete: bool


def ancestry(run_id: str) -> Ancestry:
    """Return the chain of runs from which a run's weights descend.

    Raises:
        ModelError: If the run does not exist, or if it did not record its images.
    """
    record = RunRecord.read(run_id)
    _ = record.split  # the run itself must have a split
    line = [record]
    while (before := line[-1].tags.get(Tag.WEIGHTS_RUN)) is not None and before not in {one.id for one in line}:
        try:
            record = RunRecord.read(before)
            _ = record.split
        except ModelError:
            return Ancestry(line, False)
        line.append(record)
    return Ancestry(line, True)


def _runs_that_start_with(start: str) -> list[mlflow.entities.Run]:
    """Return the runs whose ID starts with some characters, at least the six that tables show."""
    if not re.fullmatch(r"[0-9a-f]{6,31}", start):
        return []
    runs: Any = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return [run for run in runs if run.info.run_id.startswith(start)]


def without_children(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs without the folds and seeds whose parent run is among them."""
    ids = {record.id for record in records}
    seeds = {run_id for record in records for run_id in record.tags.get(Tag.SEED_RUNS, "").split()}
    folds = {r.id for r in records if "split.fold" in r.params and r.tags.get(Tag.PARENT) in ids}
    return [record for record in records if record.id not in seeds | folds]


def class_names_in(predictions: pd.DataFrame) -> list[str]:
    """Return the class names of a table of predictions, in the order of the model's outputs."""
    return [column.removeprefix("probability/") for column in predictions if column.startswith("probability/")]


def find_runs(experiment: str, tag: str | None = None) -> list[RunRecord]:
    """Return the finished runs of an experiment with test metrics, oldest first.

    Raises:
        ModelError: If the experiment does not exist, or if the tag is not KEY=VALUE.
    """
    found = mlflow.get_experiment_by_name(experiment)
    if found is None:
        known = ", ".join(sorted(one.name for one in mlflow.search_experiments()))
        raise ModelError(
            f"There is no such experiment in the tracking store, which has {known}. Received: {experiment}"
        )
    condition = "attributes.status = 'FINISHED'"
    if tag is not None:
        key, separator, value = tag.partition("=")
        if not separator or "'" in value or not re.fullmatch(r"[\w.\- /]+", key):
            raise ModelError(f"A tag is given as KEY=VALUE. Received: --tag {tag}")
        condition += f" and tags.`{key}` = '{value}'"
    runs: Any = mlflow.search_runs([found.experiment_id], condition, order_by=["start_time ASC"], output_format="list")
    return [RunRecord(run) for run in runs if "test/accuracy" in run.data.metrics]
