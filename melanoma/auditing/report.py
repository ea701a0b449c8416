"""Reports of an audit: `audit.json` for programs and `audit.html` for reading."""

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from melanoma.auditing.findings import Audit
from melanoma.auditing.names import FINDINGS
from melanoma.data.cache import check_writable, write_atomically, write_errors
from melanoma.data.decode import UnreadableImage, open_rgb
from melanoma.pages import image_url, render_page

__all__ = ["headlines", "make_folder", "picture", "write_report"]

_PAGE = "audit.html"
_THUMBNAIL = 112
_PICTURED, _PICTURED_CONFLICTS = 24, 500  # clusters of a section with pictures, which take milliseconds each to read
_ACROSS = 6  # images per cluster
_LISTED = 5000  # clusters and files of a section


def write_report(audit: Audit, name: str, folder: Path) -> Path:
    """Write `audit.json` and `audit.html`, and return the path of `audit.html`.

    Args:
        audit: Findings to report.
        name: Name of the data set.
        folder: Folder of the report. It is created if it does not exist.

    Raises:
        DataError: If the report cannot be written.
    """
    page = folder / _PAGE
    with write_errors("report", f"audit.output={folder}"):
        write_atomically(folder / "audit.json", json.dumps(audit.report(), indent=2, ensure_ascii=False) + "\n")
        write_atomically(page, render_page("auditing", "page.html.j2", _content(audit, name)))
    return page.absolute()


def make_folder(folder: Path) -> None:
    """Create the folder of the report before the audit, so that an unusable folder is detected before images are read.

    Raises:
        DataError: If the folder cannot be created or written to.
    """
    with write_errors("report", f"audit.output={folder}"):
        check_writable(folder / _PAGE)


def headlines(audit: Audit) -> list[str]:
    """Summarize what the findings mean for results on this data set, in a list of sentences that may be empty."""
    table, counts = audit.table, audit.counts()
    lines = []
    conflicting = table.path.isin({path for group in audit.groups["label_conflicts"] for path in group})
    for part in ("test", "validation"):
        size = int((table.part == part).sum())
        leaked = audit.leaked(part)
        elsewhere = "in training" if set(table.part) <= {"train", part, ""} else "in another part"
        if len(leaked):
            other = int(leaked.path.isin(table.path[conflicting]).sum())
            under = f", {other} of them under another label" if other else ""
            lines.append(f"{len(leaked)} of the {size} {part} images are also {elsewhere}{under}.")
        related = _related(table, part)
        more = len(related.index.difference(leaked.index))
        if more:
            lines.append(f"{more} more {part} images show a lesion or patient that is also {elsewhere}.")
    if conflicting.any():
        clusters = counts["label_conflicts"]
        where = "in 1 cluster" if clusters == 1 else f"in {clusters} clusters"
        images = f"{int(conflicting.sum())} images have more than one label, {where}"
        lines.append(f"{images}. {_worst_conflict(table, conflicting)}")
    copies = len(table) - table.cluster.nunique()
    if copies:
        distinct = f"{table.cluster.nunique():,} are distinct"
        lines.append(f"{copies} of the {len(table):,} images are copies of others; {distinct}.")
    if counts["excluded"]:
        lines.append(f"{counts['excluded']} of the {len(table):,} images are also in a set of audit.exclude.")
    if counts["metadata_disagreements"]:
        rows = audit.disagreements
        worst_label = rows.label.value_counts()
        lines.append(
            f"The metadata contradicts the label of {len(rows)} images, {worst_label.iloc[0]} of them "
            f"labelled {worst_label.index[0]}."
        )
    return lines


def _worst_conflict(table: pd.DataFrame, conflicting: pd.Series) -> str:
    """Describe the class with the largest share of images that also have another label, and that label."""
    shares = table[conflicting].label.value_counts() / table.label.value_counts()
    worst = str(shares.idxmax())
    rows = conflicting & (table.label == worst)
    others = table[table.cluster.isin(table.cluster[rows]) & (table.label != worst)].label.value_counts()
    total = int((table.label == worst).sum())
    return f"{int(rows.sum())} of the {total} of {worst} are also labelled {others.index[0]}."


def _related(table: pd.DataFrame, part: str) -> pd.DataFrame:
    """Return the rows of a part whose lesion or patient is also in another part."""
    inside, outside = table.part == part, ~table.part.isin([part, ""])
    shared = pd.Series(False, index=table.index)
    for column in ("lesion", "patient"):
        if column in table:
            shared |= inside & table[column].isin(set(table[column][outside].dropna()))
    return table[shared]


def _content(audit: Audit, name: str) -> dict[str, Any]:
    table = audit.table
    clusters = [
        ("Copies in more than one part", audit.groups["split_leaks"], _PICTURED),
        ("Copies under contradicting labels", audit.groups["label_conflicts"], _PICTURED_CONFLICTS),
        ("Near duplicates", audit.groups["near_duplicate_groups"], _PICTURED),
        ("Exact duplicates", audit.groups["exact_duplicate_groups"], _PICTURED),
        ("Lesions or patients in more than one part", audit.groups["group_leaks"], _PICTURED),
    ]
    lists = {
        "Files that cannot be read": audit.unreadable[["path", "reason"]],
        "Odd files": audit.odd,
        "Labels that the metadata contradicts": _disagreeing(audit),
        "Images that are also in an excluded set": audit.excluded[["path", "label"]],
    }
    counts = audit.counts()
    facts = table.set_index("path")
    pictures: dict[str, str] = {}
    return {
        "name": name,
        "images": audit.images,
        "headlines": headlines(audit),
        "findings": [(what, counts[key]) for key, what in FINDINGS.items()],
        "parts": [part for part in ("train", "validation", "test") if (table.part == part).any()],
        "classes": _class_rows(audit),
        "sections": [
            (
                title,
                len(groups),
                [
                    _cards(audit, facts, group, pictures if number < pictured else None)
                    for number, group in enumerate(groups[:_LISTED])
                ],
            )
            for title, groups, pictured in clusters
            if groups
        ],
        "lists": [
            (title, len(rows), rows.head(_LISTED).to_numpy().tolist()) for title, rows in lists.items() if len(rows)
        ],
    }


def _class_rows(audit: Audit) -> list[dict[str, Any]]:
    """Count for each class the images by part, and the held-out images with a copy in another part."""
    table, rows = audit.table, []
    conflicts = {path for group in audit.groups["label_conflicts"] for path in group}
    leaked = pd.concat([audit.leaked(part) for part in ("test", "validation")])
    for label in audit.classes:
        own = table[table.label == label]
        outside = leaked[leaked.label == label]
        others = table[table.cluster.isin(outside.cluster) & (table.label != label)].label.value_counts()
        rows.append(
            {
                "label": label,
                "images": len(own),
                "by_part": {part: int((own.part == part).sum()) for part in ("train", "validation", "test")},
                "leaked": len(outside),
                "elsewhere": ", ".join(f"{count} as {other}" for other, count in others.items()),
                "conflicting": int(own.path.isin(conflicts).sum()),
                "unique": int(own.cluster.nunique()),
            }
        )
    return rows


def _cards(audit: Audit, facts: pd.DataFrame, group: list[str], pictures: dict[str, str] | None) -> dict[str, Any]:
    """Describe a cluster; its images have pictures unless `pictures`, those known so far, is None."""
    cards = []
    for path in group[:_ACROSS]:
        row = facts.loc[path]
        if pictures is not None and path not in pictures:
            pictures[path] = picture(audit.root / path)
        cards.append({"path": path, "label": row.label, "part": row.part, "picture": (pictures or {}).get(path, "")})
    return {
        "cards": cards,
        "more": group[_ACROSS:],
        "labels": len({facts.label[path] for path in group}),
        "parts": len({facts.part[path] for path in group}),
    }


def picture(path: Path) -> str:
    """Return a small JPEG as a data URL, or an empty text if the file can no longer be read."""
    try:
        picture = open_rgb(path, max_pixels=float("inf"), at_least=2 * _THUMBNAIL)
    except UnreadableImage:
        return ""
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=75)
    return image_url(buffer.getvalue(), "jpeg")


def _disagreeing(audit: Audit) -> pd.DataFrame:
    rows = audit.disagreements
    reasons = [
        f"labelled as {row.label}; the metadata label is {' or '.join(row.metadata_label)}" for row in rows.itertuples()
    ]
    return rows[["path"]].assign(reason=reasons)
