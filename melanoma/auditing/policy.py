"""Removal of images with findings of an audit, before the split."""

import pandas as pd

from melanoma.config.schema import AuditConfig

__all__ = ["apply_policy", "contradicting"]

_CHAINED = 10  # images from which a cluster may be a chain, in which not all are copies of each other


def apply_policy(table: pd.DataFrame, settings: AuditConfig, *, keep_test: bool) -> pd.Series:
    """Return the reason for the removal of each row; empty for rows to keep.

    This policy does not handle copies in different delivered parts, because the split removes them from training. If
    the delivered test set is kept, only those of its images that contradict each other are removed.

    Args:
        table: Table of an audit with columns `path`, `label`, `part`, `pixels`, `cluster` and `contradicts`.
        settings: `duplicates` is `first` to keep one of the exact duplicates with one label in one delivered part, or
            `keep` to keep all. For contradicting rows of a cluster, `conflicts` is `drop` to remove them, `first` to
            keep those with the label of the first, or `keep` to keep all.
        keep_test: Whether the run uses the delivered test set.
    """
    reasons = pd.Series("", index=table.index, dtype=object)
    test = (table.part == "test") & keep_test
    order = table.assign(_test=test).sort_values(["_test", "path"], ascending=[False, True])
    if settings.conflicts != "keep":
        wrong = contradicting(table)
        first = order[wrong[order.index]].groupby("cluster").label.first()
        if settings.conflicts == "first":
            wrong &= table.label != table.cluster.map(first)
        tested = table[test].groupby("cluster").label.nunique()
        wrong &= ~(test & (table.cluster.map(tested) == 1))
        reasons[wrong] = "label conflict"
    if settings.duplicates == "first":
        staying = order[(reasons[order.index] == "") & ~order._test & order.pixels.notna()]
        again = staying.duplicated(["pixels", "label", *(["part"] if keep_test else [])])
        reasons[again.index[again]] = "duplicate"
    return reasons


def contradicting(table: pd.DataFrame) -> pd.Series:
    """Return which rows are of a cluster with more than one label.

    In a cluster of more than ten images, which may be a chain, only rows that contradict another image directly count.

    Args:
        table: Columns `label`, `cluster` and `contradicts`.
    """
    size = table.groupby("cluster").label.transform("size")
    asked = (size <= _CHAINED) | table.contradicts
    return asked & (table.cluster.map(table[asked].groupby("cluster").label.nunique()) > 1)
