"""Images that belong together: connected by copies, lesion or patient."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["connected", "connected_groups", "group_columns", "related_rows"]


def connected(count: int, pairs: NDArray[np.integer]) -> NDArray[np.int64]:
    """A number for each of `count` things: the same for those that pairs connect, also by way of others.

    Args:
        count: how many things there are.
        pairs: positions, shape (n, 2).
    """
    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def group_columns(table: pd.DataFrame, by: str) -> list[str]:
    """The columns whose values keep images together: the cluster of copies, and those that `split.group` names.

    Args:
        table: the data set's.
        by: `auto` for lesion and patient where they are known, `lesion`, `patient` or `none`.
    """
    wanted = {"auto": ("lesion", "patient"), "none": ()}.get(by, (by,))
    return ["cluster", *(column for column in wanted if column in table)]


def connected_groups(table: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.int64]:
    """A number for each row: rows that share a value of any column, also by way of others, have the same.

    A missing value connects nothing.
    """
    size = len(table)
    edges = [np.empty((0, 2), np.int64)]
    for column in columns:
        known = np.flatnonzero(table[column].notna())
        keys, values = pd.factorize(table[column].iloc[known])
        edges.append(np.stack([known, keys + size], axis=1))
        size += len(values)
    return connected(size, np.concatenate(edges))[: len(table)]


def related_rows(table: pd.DataFrame, chosen: pd.Series) -> pd.Series:
    """Which rows of an audit's table are chosen, or share a cluster, lesion or patient with one that is."""
    groups = pd.Series(connected_groups(table, group_columns(table, "auto")), index=table.index)
    return groups.isin(groups[chosen])
