"""Findings of an audit: clusters of copies, contradicting labels, leaks between delivered parts, odd files."""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma.auditing.inspection import Inspection
from melanoma.config.schema import OddConfig
from melanoma.data.groups import connected, related_rows
from melanoma.data.sources import Source

__all__ = ["Audit", "find"]


_FORMATS = {"png": "PNG", **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif"), "JPEG")}


@dataclass(frozen=True)
class Audit:
    """Findings in a data set as delivered.

    Attributes:
        root: Folder that `path` is relative to.
        table: One row per readable image: `path`, `label`, `part` (as delivered), `sha256`, `pixels`, `cluster` (the
            same number for all copies of an image), `contradicts` (whether an image of another label has the same
            pixels or is a near duplicate, and not only a copy of a copy), facts of `melanoma.auditing.inspection`, and
            the metadata columns.
        unreadable: `path`, `label` and `reason` of the unreadable files.
        odd: `path` and `reason` of the odd files.
        excluded: Rows of `table` that a set of `audit.exclude` also contains, copies of these, and images of their
            lesions and patients.
        classes: Class names.
        groups: Lists of paths, for each finding about several images.
    """

    root: Path
    table: pd.DataFrame
    unreadable: pd.DataFrame
    odd: pd.DataFrame
    excluded: pd.DataFrame
    classes: list[str]
    groups: dict[str, list[list[str]]]

    @property
    def images(self) -> int:
        """Number of image files, readable or not."""
        return len(self.table) + len(self.unreadable)

    @property
    def disagreements(self) -> pd.DataFrame:
        """Rows of `table` whose label the metadata contradicts."""
        if "metadata_label" not in self.table:
            return self.table.head(0)
        pairs = zip(self.table.label, self.table.metadata_label, strict=True)
        wrong = [bool(names) and label not in names for label, names in pairs]
        return self.table[wrong]

    def listed(self) -> dict[str, pd.DataFrame]:
        """Return the findings about single files, with their `path`."""
        return {
            "unreadable": self.unreadable,
            "odd": self.odd,
            "metadata_disagreements": self.disagreements,
            "excluded": self.excluded,
        }

    def counts(self) -> dict[str, int]:
        """Return the number of images and of each finding, by the keys of the report."""
        return {
            "images": self.images,
            **{name: len(groups) for name, groups in self.groups.items()},
            **{name: len(rows) for name, rows in self.listed().items()},
        }

    def leaked(self, part: str = "test") -> pd.DataFrame:
        """Return the rows of a delivered part that have a copy in another part."""
        inside = self.table.part == part
        elsewhere = set(self.table.cluster[~inside & (self.table.part != "")])
        return self.table[inside & self.table.cluster.isin(elsewhere)]

    def report(self) -> dict[str, Any]:
        """Return the content of `audit.json`: the paths of each finding, and the facts about these files."""
        table = self.table
        parts = [part for part in ("train", "validation", "test") if (table.part == part).any()]
        report: dict[str, Any] = {
            "images": self.images,
            "classes": {c: int((table.label == c).sum()) for c in self.classes},
            "parts": {p: {c: int(((table.part == p) & (table.label == c)).sum()) for c in self.classes} for p in parts},
            "imbalance": _imbalance(table.label),
            "group_sizes": {
                column: _sizes(table[column]) for column in ("cluster", "lesion", "patient") if column in table
            },
            **{name: rows.path.tolist() for name, rows in self.listed().items()},
            **self.groups,
            "counts": self.counts(),
        }
        named = {path for name in self.groups for group in self.groups[name] for path in group}
        named |= {path for name in ("odd", "metadata_disagreements", "excluded") for path in report[name]}
        report["files"] = {**self._files(named), **_reasons(self.unreadable)}
        for path, reason in zip(self.odd.path, self.odd.reason, strict=True):
            report["files"][path]["odd"] = reason
        return report

    def _files(self, named: set[str]) -> dict[str, dict[str, Any]]:
        columns = ["label", "part", "lesion", "patient", "metadata_label", "format", "mode", "width", "height"]
        rows = self.table[self.table.path.isin(named)].set_index("path")
        rows = rows[[column for column in columns if column in rows]]
        if "metadata_label" in rows:
            rows = rows.assign(metadata_label=[" or ".join(names) for names in rows.metadata_label])
        return {
            str(path): {key: value for key, value in row.items() if pd.notna(value) and value != ""}
            for path, row in rows.to_dict("index").items()
        }


def find(
    source: Source,
    table: pd.DataFrame,
    unreadable: pd.DataFrame,
    inspection: Inspection,
    pairs: NDArray[np.integer],
    odd: OddConfig,
    excluded: Set[str] = frozenset(),
) -> Audit:
    """Collect the findings in a data set.

    Args:
        source: The data set.
        table: `path`, `label`, `part`, `sha256` and metadata columns of the readable images.
        unreadable: `path`, `label` and `reason` of the unreadable images.
        inspection: Inspection of the images in `table`.
        pairs: Near duplicates, as positions in the unique `pixels` of the inspection, in their order; shape (n, 2).
        odd: Limits beyond which a file is odd.
        excluded: SHA-256 of the images that a set of `audit.exclude` also contains.
    """
    facts = inspection.facts
    table = table.join(facts, on="sha256")
    unique = list(dict.fromkeys(facts.pixels))
    cluster_of = dict(zip(unique, connected(len(unique), pairs), strict=True))
    table["cluster"] = table.pixels.map(cluster_of).astype(np.int64)
    table["contradicts"] = _contradicting(table, unique, pairs)
    clusters = _members(table, "cluster")
    parted = [rows for rows in clusters if rows.part.nunique() > 1]
    lesions = [rows for column in ("lesion", "patient") if column in table for rows in _members(table, column)]
    groups = {
        "exact_duplicate_groups": _paths(_members(table, "pixels")),
        "near_duplicate_groups": _paths(rows for rows in clusters if rows.pixels.nunique() > 1),
        "label_conflicts": _paths(rows for rows in clusters if rows.label.nunique() > 1),
        "split_leaks": _paths(parted),
        "group_leaks": _paths(rows for rows in lesions if rows.part.nunique() > 1),
    }
    shared = table[related_rows(table, table.sha256.isin(excluded))]
    return Audit(source.root, table, unreadable, _odd_files(table, odd), shared, source.classes, groups)


def _contradicting(table: pd.DataFrame, unique: list[str], pairs: NDArray[np.integer]) -> pd.Series:
    labels = table.groupby("pixels").label.agg(set).reindex(unique)
    found = {pixels for pixels, own in labels.items() if isinstance(own, set) and len(own) > 1}
    for one, other in pairs:
        both = [own for own in (labels.iloc[one], labels.iloc[other]) if isinstance(own, set)]
        if len(set().union(*both)) > 1:
            found |= {unique[one], unique[other]}
    return table.pixels.isin(found)


def _members(table: pd.DataFrame, column: str) -> list[pd.DataFrame]:
    """Return the rows of each value that occurs more than once in a column. Missing values are ignored."""
    known = table[table[column].notna() & table[column].duplicated(keep=False)]
    return [rows for _, rows in known.groupby(column, sort=False)]


def _paths(groups: Iterable[pd.DataFrame]) -> list[list[str]]:
    return sorted(sorted(rows.path) for rows in groups)


def _odd_files(table: pd.DataFrame, odd: OddConfig) -> pd.DataFrame:
    """Return the files that are unusual for images of lesions, with all reasons."""
    shorter = table[["width", "height"]].min(axis=1)
    aspect = table[["width", "height"]].max(axis=1) / shorter.clip(lower=1)
    size = np.sqrt(table.width * table.height)
    against_median = size / max(float(size.median()), 1.0) if len(table) else size
    named = table.path.str.rsplit(".", n=1).str[-1].str.lower().map(_FORMATS)
    checks = {
        "is a {format} by content": named != table.format,
        "is stored as {mode}": ~table["mode"].isin(["RGB", "L"]),
        "is grey": table["mode"] == "L",
        "is small ({width}x{height})": shorter < odd.shorter_side,
        "is long ({width}x{height})": aspect > odd.aspect,
        "is of another size than most ({width}x{height})": (against_median > odd.size_ratio)
        | (against_median < 1 / odd.size_ratio),
        "is blank": table.contrast < odd.contrast,
        "is blurred (sharpness {sharpness})": (table.sharpness < odd.sharpness) & (table.contrast >= odd.contrast),
        "is very dark": table.brightest < odd.dark,
        "is very bright": table.darkest > odd.bright,
    }
    reasons: dict[str, list[str]] = {}
    for reason, holds in checks.items():
        for row in table[holds].to_dict("records"):
            reasons.setdefault(row["path"], []).append(reason.format(**row))
    listed = [(path, ", ".join(why)) for path, why in sorted(reasons.items())]
    return pd.DataFrame(listed, columns=["path", "reason"])


def _imbalance(labels: pd.Series) -> float:
    counts = labels.value_counts()
    return round(float(counts.max() / counts.min()), 3) if len(counts) else 1.0


def _sizes(column: pd.Series) -> dict[str, Any]:
    """Return the number of groups that a column defines, and their sizes."""
    sizes = column.dropna().value_counts()
    return {
        "groups": len(sizes),
        "images": int(sizes.sum()),
        "largest": int(sizes.max()) if len(sizes) else 0,
        "of_size": {str(size): int(count) for size, count in sizes.value_counts().sort_index().items()},
    }


def _reasons(unreadable: pd.DataFrame) -> dict[str, dict[str, str]]:
    return {row.path: {"label": row.label, "reason": row.reason} for row in unreadable.itertuples()}
