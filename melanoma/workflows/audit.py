"""`melanoma audit`: an audit with a report, and an exit code for scripts."""

from pathlib import Path

from omegaconf import DictConfig
from rich.markup import escape
from rich.table import Table

from melanoma.auditing.audit import audit_source
from melanoma.auditing.findings import Audit
from melanoma.auditing.label_report import write_label_report
from melanoma.auditing.names import FINDINGS, named_findings
from melanoma.auditing.report import headlines, make_folder, write_report
from melanoma.config.command_schema import AuditCommandConfig
from melanoma.config.launch import typed
from melanoma.errors import AuditFailed, DataError
from melanoma.paths import user_path
from melanoma.terminal import log_to, out
from melanoma.workflows.stages import read_source

__all__ = ["audit_data"]


def audit_data(config: DictConfig, overrides: list[str], folder: Path) -> Audit:  # noqa: ARG001 - all commands get these
    """Audit a data source, print the findings, and write `audit.json` and `audit.html`.

    Args:
        config: Composed configuration of `melanoma audit`.
        overrides: Overrides of the command line.
        folder: Folder for the log file, and for the report if `audit.output` is null.

    Raises:
        AuditFailed: If there is a finding that `audit.fail_on` lists; the report is written first.
        DataError: If there are no images, or if the report cannot be written.
    """
    log_to(folder, "audit")
    settings: AuditCommandConfig = typed(AuditCommandConfig, config)
    source = read_source(settings.data)
    output = folder if settings.audit.output is None else user_path(settings.audit.output)
    if output.resolve().is_relative_to(source.root.resolve()):
        raise DataError(
            "The report cannot be written into the folder of the images; give another one. "
            f"Received: audit.output={settings.audit.output} in {source.root}"
        )
    make_folder(output)
    audit = audit_source(source, settings.audit, settings.data.max_megapixels)
    page = write_report(audit, settings.data.name, output)
    _show(audit, page)
    if settings.labels is not None:
        _assess_labels(settings, audit, output)
    counts = audit.counts()
    matched = {name: counts[name] for name in named_findings(settings.audit.fail_on) if counts[name]}
    if matched:
        listed = ", ".join(f"{name}: {count}" for name, count in matched.items())
        raise AuditFailed(f"The audit found what audit.fail_on names; see {page}. Received: {listed}")
    return audit


def _assess_labels(settings: AuditCommandConfig, audit: Audit, folder: Path) -> None:
    """Write the likely label errors by the predictions of a run, and print where they are."""
    from melanoma.workflows.labels import assess_labels

    assessed, facts = assess_labels(audit, str(settings.labels), settings.tracking.uri)
    page = write_label_report(assessed, audit.root, {"name": settings.data.name, **facts}, folder)
    likely = int(assessed.likely_error.sum())
    console = out()
    for line in facts["notes"]:
        console.print(f"- {line}", markup=False)
    console.print(
        f"- {likely} of {len(assessed):,} labels are likely errors; look at them before you decide.", markup=False
    )
    console.print(f"Labels   {page}", soft_wrap=True, markup=False)
    console.print(f"         {page.with_name('labels.csv')}", soft_wrap=True, markup=False)


def _show(audit: Audit, page: Path) -> None:
    console, counts = out(), audit.counts()
    table = Table(title=f"Audit of {audit.images:,} images in {len(audit.classes)} classes", title_justify="left")
    table.add_column("finding")
    table.add_column("count", justify="right")
    table.add_column("for example")
    examples = {
        **{name: "\n".join(map(_short, groups[0][:2])) for name, groups in audit.groups.items() if groups},
        **{name: _short(rows.path.iloc[0]) for name, rows in audit.listed().items() if len(rows)},
    }
    for name, what in FINDINGS.items():
        style = "yellow" if counts[name] else None
        table.add_row(what, f"{counts[name]:,}", escape(examples.get(name, "")), style=style)
    console.print(table)
    for line in headlines(audit):
        console.print(f"- {line}", markup=False)
    console.print(f"Report   {page}", soft_wrap=True, markup=False)
    console.print(f"         {page.with_name('audit.json')}", soft_wrap=True, markup=False)


def _short(path: str) -> str:
    """Return the last components of a path, which include the part and the class."""
    return "/".join(path.split("/")[-3:])
