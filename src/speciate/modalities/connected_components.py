"""Connected components of a graph with millions of edges, by NumPy alone: SciPy's take a second to import."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
_AT_ONCE = 1 << 18
"""Edges."""


def unite(parent: Places, first: Places, second: Places) -> Places:
    """(N,) the same number for all nodes that hang together, the least of them: `parent`, and the edges between the
    nodes `first` and `second`.

    >>> unite(np.arange(5), np.array([4, 1]), np.array([1, 3])).tolist()
    [0, 1, 2, 1, 1]
    """
    parent = parent.copy()
    a, b = parent[first], parent[second]
    while len(a):
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(grand := parent[parent], parent):
            parent = grand
        a, b = parent[a], parent[b]
        apart = a != b
        a, b = a[apart], b[apart]
    return parent


def clusters(count: int, first: Places, second: Places) -> Places:
    """(count,) the number of each node's component, from 0, in the order of their first nodes."""
    parent = np.arange(count)
    for start in range(0, len(first), _AT_ONCE):
        parent = unite(parent, first[start : start + _AT_ONCE], second[start : start + _AT_ONCE])
    return (np.cumsum(parent == np.arange(count)) - 1)[parent]
