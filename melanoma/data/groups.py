"""Groups of images that must stay in one part, because they share a cluster of copies, a lesion or a patient."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["connected", "connected_groups", "group_columns", "related_rows"]


def connected(count: int, pairs: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the number of the connected component of each of `count` nodes.

    Args:
        count: Number of nodes.
        pairs: Edges, as positions of nodes, shape (n, 2).
    """
    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def group_columns(table: pd.DataFrame, by: str) -> list[str]:
    """Return the columns that define groups: the cluster of copies, and the columns that `split.group` selects.

    Args:
        table: Table of the data set.
        by: `auto` for lesion and patient if the table has these columns, `lesion`, `patient` or `none`.
    """
    wanted = {"auto": ("lesion", "patient"), "none": ()}.get(by, (by,))
    return ["cluster", *(column for column in wanted if column in table)]


def connected_groups(table: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.int64]:
    """Return the group number of each row. Rows that share a value of any column are connected and form a group.

    Missing values are ignored.
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
    """Return which rows of an audit's table are chosen, or share a cluster, lesion or patient with a chosen row."""
    groups = pd.Series(connected_groups(table, group_columns(table, "auto")), index=table.index)
    return groups.isin(groups[chosen])
