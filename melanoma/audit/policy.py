"""What is done about an audit's findings before the images are divided."""

import pandas as pd

from melanoma.config.schema import AuditConfig

__all__ = ["apply_policy"]


def apply_policy(table: pd.DataFrame, settings: AuditConfig, *, keep_test: bool) -> pd.Series:
    """Why each row is left out; empty for the rows that stay.

    Copies in different parts of a delivered split are no matter of this policy: dividing the images removes them from
    training. With a delivered test set its images stay, but for those that contradict each other.

    Args:
        table: of an audit: `path`, `label`, `part`, `pixels`, `cluster`.
        settings: `duplicates` is `first` to keep one of equal pictures under one label and in one delivered part, or
            `keep` for all; of a cluster under more than one label, `conflicts` is `drop` for all rows, `first` to keep
            those with the first one's label, or `keep` for all.
        keep_test: whether the delivered test set is the run's.
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
