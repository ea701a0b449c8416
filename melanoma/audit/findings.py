"""What an audit finds: clusters of copies, contradicting labels, leaks between delivered parts, odd files."""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma.audit.inspection import Inspection
from melanoma.config.schema import OddConfig
from melanoma.data.groups import connected, related_rows
from melanoma.data.sources import Source

__all__ = ["Audit", "find"]


_FORMATS = {"png": "PNG", **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif"), "JPEG")}


@dataclass(frozen=True)
class Audit:
    """What was found in a data set as delivered.

    Attributes:
        root: folder that `path` is relative to.
        table: one row a readable image: `path`, `label`, `part` (as delivered), `sha256`, `pixels`, `cluster` (number
            that copies share), facts of `melanoma.audit.inspection`, and the metadata columns.
        unreadable: `path`, `label` and `reason` of the files that cannot be read.
        odd: `path` and `reason` of odd files.
        excluded: rows of `table` that are in a set of `audit.exclude` as well, and copies and relatives of such.
        classes: class names.
        groups: for each finding that is about groups, lists of paths.
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
        """How many image files there are, readable or not."""
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
        """The findings about single files, with their `path`."""
        return {
            "unreadable": self.unreadable,
            "odd": self.odd,
            "metadata_disagreements": self.disagreements,
            "excluded": self.excluded,
        }

    def counts(self) -> dict[str, int]:
        """How many there are of each finding, by the keys of the report."""
        return {
            "images": self.images,
            **{name: len(groups) for name, groups in self.groups.items()},
            **{name: len(rows) for name, rows in self.listed().items()},
        }

    def leaked(self, part: str = "test") -> pd.DataFrame:
        """The rows of a delivered part that have a copy in another part."""
        inside = self.table.part == part
        elsewhere = set(self.table.cluster[~inside & (self.table.part != "")])
        return self.table[inside & self.table.cluster.isin(elsewhere)]

    def report(self) -> dict[str, Any]:
        """The content of `audit.json`: lists of file names under each finding, and what is known of those files."""
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
    """Put together what is wrong with a data set.

    Args:
        source: the data set.
        table: `path`, `label`, `part`, `sha256` and metadata columns of the readable images.
        unreadable: `path`, `label` and `reason` of the others.
        inspection: of the contents of `table`.
        pairs: near duplicates, as positions in the unique `pixels` of the inspection, in their order; shape (n, 2).
        odd: limits beyond which a file is odd.
        excluded: SHA-256 of images that are in another set as well.
    """
    facts = inspection.facts
    table = table.join(facts, on="sha256")
    unique = list(dict.fromkeys(facts.pixels))
    cluster_of = dict(zip(unique, connected(len(unique), pairs), strict=True))
    table["cluster"] = table.pixels.map(cluster_of).astype(np.int64)
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


def _members(table: pd.DataFrame, column: str) -> list[pd.DataFrame]:
    """The rows of each value of a column that stands more than once; a missing value is no group."""
    known = table[table[column].notna() & table[column].duplicated(keep=False)]
    return [rows for _, rows in known.groupby(column, sort=False)]


def _paths(groups: Iterable[pd.DataFrame]) -> list[list[str]]:
    return sorted(sorted(rows.path) for rows in groups)


def _odd_files(table: pd.DataFrame, odd: OddConfig) -> pd.DataFrame:
    """Files whose content is not what is expected of a lesion's photograph, with all their reasons."""
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
    """How many groups a column makes, of which size."""
    sizes = column.dropna().value_counts()
    return {
        "groups": len(sizes),
        "images": int(sizes.sum()),
        "largest": int(sizes.max()) if len(sizes) else 0,
        "of_size": {str(size): int(count) for size, count in sizes.value_counts().sort_index().items()},
    }


def _reasons(unreadable: pd.DataFrame) -> dict[str, dict[str, str]]:
    return {row.path: {"label": row.label, "reason": row.reason} for row in unreadable.itertuples()}
