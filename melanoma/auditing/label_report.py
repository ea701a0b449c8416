"""The report of `melanoma audit labels=RUN`: `labels.csv`, and `labels.html` to review the images."""

from pathlib import Path
from typing import Any

import pandas as pd

from melanoma.auditing.report import picture
from melanoma.data.cache import write_atomically, write_errors
from melanoma.data.csv_text import csv_text
from melanoma.pages import render_page

__all__ = ["write_label_report"]

_PICTURED = 500  # likely errors with pictures
_ATYPICAL = 60


def write_label_report(assessed: pd.DataFrame, root: Path, facts: dict[str, Any], folder: Path) -> Path:
    """Write `labels.csv` with all images, likely errors first, and `labels.html`, and return the path of the page.

    Args:
        assessed: A row for each image: `path`, `sha256`, `label` and the columns of `assessed_labels`.
        root: Folder that `path` is relative to.
        facts: `name` of the data set, `run`, `classes`, and `notes`, sentences about the run.
        folder: Folder of the report.

    Raises:
        DataError: If the report cannot be written.
    """
    order = ["likely_error", "atypical", "score"]
    ranked = assessed.sort_values(order, ascending=False, kind="stable").reset_index(drop=True)
    table = ranked.assign(decision="")[
        ["path", "sha256", "label", "decision", "suggested", "likely_error", "atypical", "score",
         "probability_of_label", "probability_of_suggested"]
    ]  # fmt: skip
    likely, atypical = ranked[ranked.likely_error], ranked[ranked.atypical]
    content = {
        **facts,
        "images": len(ranked),
        "likely": len(likely),
        "by_pair": _by_pair(likely),
        "sections": [
            ("Likely label errors", len(likely), _cards(likely.head(_PICTURED), root)),
            ("Atypical images, which no class fits", len(atypical), _cards(atypical.head(_ATYPICAL), root)),
        ],
    }
    page = folder / "labels.html"
    with write_errors("report", f"audit.output={folder}"):
        write_atomically(folder / "labels.csv", csv_text(table.round(4)))
        write_atomically(page, render_page("auditing", "labels.html.j2", content))
    return page.absolute()


def _by_pair(likely: pd.DataFrame) -> list[tuple[str, str, int]]:
    """Count the likely errors by label and suggested class, most frequent first."""
    counts = likely.groupby(["label", "suggested"]).size().sort_values(ascending=False, kind="stable")
    return [(str(label), str(other), int(count)) for (label, other), count in counts.items()]


def _cards(rows: pd.DataFrame, root: Path) -> list[dict[str, Any]]:
    wanted = ["path", "sha256", "label", "suggested", "probability_of_label", "probability_of_suggested"]
    return [{**row, "picture": picture(root / row["path"])} for row in rows[wanted].to_dict("records")]
