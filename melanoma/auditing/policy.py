"""Removal of images with findings of an audit, before the split."""

import pandas as pd

from melanoma.config.schema import AuditConfig

__all__ = ["apply_policy"]


def apply_policy(table: pd.DataFrame, settings: AuditConfig, *, keep_test: bool) -> pd.Series:
    """Return the reason for the removal of each row; empty for rows to keep.

    This policy does not handle copies in different delivered parts, because the split removes them from training. If
    the delivered test set is kept, only those of its images that contradict each other are removed.

    Args:
        table: Table of an audit with columns `path`, `label`, `part`, `pixels` and `cluster`.
        settings: `duplicates` is `first` to keep one of the exact duplicates with one label in one delivered part, or
            `keep` to keep all. For a cluster with more than one label, `conflicts` is `drop` to remove all rows,
            `first` to keep the rows with the label of the first, or `keep` to keep all.
        keep_test: Whether the run uses the delivered test set.
    """
    reasons = pd.Series("", index=table.index, dtype=object)
    test = (table.part == "test") & keep_test
    order = table.assign(_test=test).sort_values(["_test", "path"], ascending=[False, True])
    labels = table.groupby("cluster").label.transform("nunique")
    if settings.conflicts != "keep":
        first = order.groupby("cluster").label.first()
        wrong = labels > 1
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
