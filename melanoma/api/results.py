"""Results of the Python API. Each shows itself as a table or a page in a notebook."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from melanoma.auditing.findings import Audit
    from melanoma.evaluation.paired import Comparison
    from melanoma.serving.classifier import LesionClassifier
    from melanoma.tracking.records import RunRecord

__all__ = ["AuditReport", "ComparedRuns", "Figure", "Model", "Run", "Sweep"]

_SHOWN_FIGURES = ("confusion_matrix_normalized", "training_curves", "roc")


@dataclass(frozen=True)
class Figure:
    """A figure of a run as a PNG file; a notebook shows it."""

    path: Path

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


@dataclass(frozen=True)
class Run:
    """A run in the tracking store.

    Attributes:
        id: ID of the run.
        uri: URI of the MLflow store.
        command: Command line that does the same; empty for a run that was not started by this call.
    """

    id: str
    uri: str
    command: str = ""

    def __str__(self) -> str:
        return self.id

    @property
    def record(self) -> "RunRecord":
        """The record of the run: tags, parameters, configuration and split. Reading it opens the store of the run."""
        from melanoma.tracking.store import open_store

        open_store(self.uri)  # another one may have been opened since
        return self._record

    @cached_property
    def _record(self) -> "RunRecord":
        from melanoma.tracking.records import RunRecord

        return RunRecord.read(self.id)

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.record.name

    @property
    def protocol(self) -> str:
        """`clean`, or the shortcuts that make the result optimistic."""
        return str(self.record.protocol)

    @property
    def primary_metric(self) -> str:
        """The metric that selects models."""
        from melanoma.tracking.names import Tag

        return self.record.tags.get(Tag.PRIMARY_METRIC, "auc")

    @cached_property
    def metrics(self) -> "pd.DataFrame":
        """All metrics by name, such as `test/auc`, the main ones first: `value`, and bounds `ci_low` and `ci_high`."""
        import pandas as pd

        from melanoma.evaluation.metrics import headlines
        from melanoma.tracking.measures import with_bounds
        from melanoma.tracking.names import Artifact

        measured = self.record.json(Artifact.METRICS) or with_bounds(self.record.metrics)
        table = pd.DataFrame.from_dict(measured, orient="index", columns=["value", "ci_low", "ci_high"])
        first = [f"{part}/{name}" for part in ("test", "validation") for name in headlines(self.primary_metric)]
        order = dict.fromkeys([*(name for name in first if name in table.index), *table.index])
        return table.loc[list(order)].rename_axis("metric")

    @property
    def history(self) -> "pd.DataFrame":
        """Metrics after each epoch, such as `val/loss`, by epoch from 1."""
        import pandas as pd

        record = self.record
        names = [name for name in record.shown_metrics if name.startswith(("train/", "val/"))]
        names += [name for name in ("learning_rate", "seconds_per_epoch") if name in record.shown_metrics]
        values = {name: {step + 1: value for step, value in record.history(name)} for name in names}
        return pd.DataFrame(values).rename_axis("epoch").sort_index()

    @cached_property
    def predictions(self) -> "pd.DataFrame":
        """Predictions of the validation and test images, with `part`, `label` and `probability/<class>`.

        Of the parent run of several seeds, those of all seeds, with the column `run`.
        """
        import pandas as pd

        from melanoma.tracking.records import NotRecorded

        parts = []
        for member in self.record.members:
            for part in ("validation", "test"):
                try:
                    found = member.predictions(part)
                except NotRecorded:  # such as validation in a run of `evaluate`
                    continue
                parts.append(found if member.id == self.id else found.assign(run=member.id))
        if not parts:
            raise NotRecorded(f"The run has no predictions; did it finish? Received: {self.id}")
        return pd.concat(parts, ignore_index=True)

    @property
    def figures(self) -> list[str]:
        """Names of the figures."""
        import mlflow

        _ = self.record  # a run that does not exist is an error
        listed = mlflow.MlflowClient(tracking_uri=self.uri).list_artifacts(self.id, "figures")
        return [Path(one.path).stem for one in listed if one.path.endswith(".png")]

    def figure(self, name: str) -> Figure:
        """Return a figure, such as `roc`.

        Raises:
            ModelError: If the run has no such figure.
        """
        from melanoma.errors import ModelError
        from melanoma.tracking.store import downloaded

        if name not in self.figures:
            raise ModelError(f"The run has the figures {', '.join(self.figures) or 'none'}. Received: {name}")
        _ = self.record  # opens the store
        return Figure(downloaded(f"runs:/{self.id}/figures/{name}.png"))

    @property
    def model_card(self) -> str:
        """The model card, in Markdown."""
        from melanoma.tracking.names import Artifact

        return self.record.text(Artifact.MODEL_CARD)

    def _repr_html_(self) -> str:
        from melanoma.evaluation.metrics import headlines
        from melanoma.evaluation.texts import stored_text
        from melanoma.pages import render_page

        record = self.record
        parts = [part for part in ("validation", "test") if f"{part}/accuracy" in record.metrics]
        rows = [
            (name, [stored_text(record.metrics, f"{part}/{name}") for part in parts])
            for name in headlines(self.primary_metric)
        ]
        figures = [(name, source) for name in _SHOWN_FIGURES if (source := record.figure(name))]
        content = {"run": self, "protocol": record.protocol, "parts": parts, "rows": rows, "figures": figures}
        return render_page("api", "run.html.j2", content)


@dataclass(frozen=True)
class Sweep(Run):
    """A sweep: the parent run of its trials."""

    @cached_property
    def trials(self) -> "pd.DataFrame":
        """The trials, best first, with their metric, overrides and run ID."""
        from io import StringIO

        from melanoma.data.csv_text import read_csv_text
        from melanoma.tracking.names import Artifact

        return read_csv_text(StringIO(self.record.text(Artifact.LEADERBOARD)))

    @property
    def best(self) -> Run:
        """The run of the best trial.

        Raises:
            ModelError: If no trial finished.
        """
        from melanoma.errors import ModelError
        from melanoma.tracking.names import Tag

        found = self.record.tags.get(Tag.BEST_RUN)
        if found is None:
            raise ModelError(f"The sweep has no best trial, as none finished. Received: {self.name}")
        return Run(found, self.uri)

    def _repr_html_(self) -> str:
        return (
            f"<h3>Sweep {escape(self.name)}</h3>{self.trials.to_html(index=False)}<code>{escape(self.command)}</code>"
        )


@dataclass(frozen=True)
class Model:
    """A saved model with its preprocessing and thresholds."""

    classifier: "LesionClassifier"

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the outputs; the second of two is the positive class."""
        return list(self.classifier.classes)

    @property
    def keras_model(self) -> "keras.Model":
        """The Keras model, from pixels of shape (n, size, size, 3), 0 to 255, to probabilities."""
        return self.classifier.model

    def predict(self, images: str | Path | Sequence[str | Path]) -> "pd.DataFrame":
        """Predict image files; see `melanoma.predict`."""
        from melanoma.errors import DataError
        from melanoma.workflows.predict import matching_files, predicted

        given = [images] if isinstance(images, str | Path) else list(images) if isinstance(images, Iterable) else []
        if not given or not all(isinstance(one, str | Path) for one in given):
            raise DataError(f"Expected a path, a glob pattern or a list of paths. Received: {str(images)[:200]}")
        return predicted(self.classifier, [file for one in given for file in matching_files(str(one))])


@dataclass(frozen=True)
class ComparedRuns:
    """Runs on the same images: their metrics, and paired tests of each against the first.

    Attributes:
        runs: The runs, the reference first.
        part: `test` or `validation`.
        found: Comparisons of each run with the reference, by run ID.
    """

    runs: Sequence[Run]
    part: str
    found: "Mapping[str, list[Comparison]]"

    @property
    def metrics(self) -> "pd.DataFrame":
        """The overall metrics with their intervals, as text, one column per run."""
        import pandas as pd

        from melanoma.evaluation.metrics import headlines
        from melanoma.evaluation.texts import stored_text

        names = headlines(self.runs[0].primary_metric)
        return pd.DataFrame(
            {
                run.record.label: [stored_text(run.record.metrics, f"{self.part}/{n}") for n in names]
                for run in self.runs
            },
            index=names,
        )

    @property
    def tests(self) -> "pd.DataFrame":
        """One row per run and metric: `difference` to the reference, its interval `low` to `high`, and `p_value`.

        `adjusted_p` is corrected for the number of tests. Metrics for which there are too few images are left out.
        """
        import pandas as pd

        from melanoma.evaluation.paired import Comparison

        return pd.DataFrame(list(self._rows()), columns=["run", *(field.name for field in fields(Comparison))])

    def _rows(self) -> Iterator[dict[str, Any]]:
        for run in self.runs[1:]:
            for one in self.found[run.id]:
                yield {"run": run.record.label, **vars(one)}

    def _repr_html_(self) -> str:
        reference = self.runs[0].record.label
        lines = [c.sentence(run.record.label, reference) for run in self.runs[1:] for c in self.found[run.id]]
        listed = "".join(f"<li>{escape(line)}</li>" for line in lines)
        return f"{self.metrics.to_html()}<ul>{listed}</ul>"


@dataclass(frozen=True)
class AuditReport:
    """An audit of a data set.

    Attributes:
        audit: The audit, with its table of images and the groups of each finding.
        folder: Folder of `audit.html` and `audit.json`.
    """

    audit: "Audit"
    folder: Path

    @property
    def counts(self) -> dict[str, int]:
        """The number of images and of each finding."""
        return self.audit.counts()

    @property
    def root(self) -> Path:
        """Folder of the images."""
        return self.audit.root

    @property
    def page(self) -> Path:
        """The page with all findings."""
        return self.folder / "audit.html"

    def _repr_html_(self) -> str:
        from melanoma.auditing.names import FINDINGS
        from melanoma.auditing.report import headlines

        rows = "".join(
            f"<tr><td>{escape(what)}</td><td>{self.counts[name]:,}</td></tr>" for name, what in FINDINGS.items()
        )
        lines = "".join(f"<li>{escape(line)}</li>" for line in headlines(self.audit))
        page = escape(str(self.page))
        return f"<table>{rows}</table><ul>{lines}</ul><p>All findings: <code>{page}</code></p>"
