"""Copies that stand apart: media that are much nearer to each other than to all others, found among many at once.

Two rows of ordinary measurements may be close by chance, and the more rows there are, the closer. So no fixed distance
tells a copy. A copy shows by the gap around it: some media lie within a radius, and hardly any between that radius and
several times it, where chance would put many (in D dimensions `ratio` ** D - 1 times as many). The test is that of Lowe
(2004) for matches of image features, made for clusters and for every radius from a tolerance down.

A class whose examples are all alike stands apart, too. So a large cluster must be tighter, and one that holds more
than a tenth of all media is never taken for copies.

`row_similarity.py` and `series_similarity.py` say what the distance is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

NEIGHBOURS = 12
"""Neighbours of each medium that are looked at."""
CHANCE = 200.0
_FEW, _TIGHTER, _MOST = 4, 5, 0.1
"""A cluster of more members than that lies within a fifth of the tolerance, and holds at most that share of all."""
_RADII = 33
"""The tolerance, and each time 0.7 of it: the least is about a hundred-thousandth."""


class Edges(NamedTuple):
    """Pairs of places (M,), the smaller first, each once, with their distances (M,)."""

    first: Places
    second: Places
    distance: Doubles


def neighbour_pairs(points: Doubles, bound: float, neighbours: int = NEIGHBOURS) -> Places:
    """(M, 2) each of the points (N, D) with its nearest ones, up to `bound` along any axis, the smaller place first."""
    from scipy.spatial import cKDTree

    count = len(points)
    if count < 2:
        return np.zeros((0, 2), np.int64)
    wanted = min(neighbours + 1, count)
    _, near = cKDTree(points).query(points, k=wanted, p=np.inf, distance_upper_bound=bound)
    first, second = np.repeat(np.arange(count), wanted), np.asarray(near, np.int64).ravel()
    found = (second < count) & (first != second)
    return unique_pairs(np.stack([first[found], second[found]], axis=1), count)


def unique_pairs(pairs: Places, count: int) -> Places:
    """(M, 2) each pair of places below `count` once, the smaller first, ascending."""
    low, high = pairs.min(axis=1, initial=count), pairs.max(axis=1, initial=0)
    code = np.unique(low * count + high)
    return np.stack([code // count, code % count], axis=1)


def least_ratio(dimensions: float, least: float = 1.5) -> float:
    """How many times the radius must be empty, so that about one medium in CHANCE has a neighbour by chance."""
    return float(max(least, CHANCE ** (1 / max(dimensions, 1.0))))


def local_dimensions(count: int, edges: Edges) -> float:
    """In how many dimensions media differ locally: the estimate of Levina and Bickel (2004), its median.

    From the farther half of each medium's nearest edges, so that a few copies do not count.
    """
    owner = np.concatenate([edges.first, edges.second])
    distance = np.concatenate([edges.distance, edges.distance]).clip(1e-12)
    order = np.lexsort((distance, owner))
    sizes = np.bincount(owner, minlength=count)
    far = np.split(np.log(distance[order]), np.cumsum(sizes)[:-1])
    halves = [each[min(len(each), NEIGHBOURS) // 2 : NEIGHBOURS] for each in far if len(each) >= 4]
    rates = [float((each[-1] - each[:-1]).mean()) for each in halves]
    return 1 / max(float(np.median(rates)), 1e-3) if rates else 1.0


def isolated_pairs(
    count: int, edges: Edges, tolerance: float, ratio: float, is_compact: Callable[[Places, float], bool]
) -> Places:
    """(M, 2) the first member of each cluster that stands apart, with each other member.

    A cluster at a radius is what edges of that length or less join. It stands apart if not more edges of its members
    lie between the radius and `ratio` times it than within. Where a member has NEIGHBOURS edges within the radius, its
    farther ones are not known: then `is_compact(members, radius)` must hold, as it does for copies of one medium and
    does not for a dense region.
    """
    most = max(_FEW, int(_MOST * count))
    found = [np.zeros((0, 2), np.int64)]
    for radius in (tolerance / 2 ** (step / 2) for step in range(_RADII)):
        inside = edges.distance <= radius
        if not inside.any():
            break
        first, second = edges.first[inside], edges.second[inside]
        cluster = _clusters(count, first, second)
        clusters = int(cluster.max()) + 1
        within = np.bincount(cluster[first], minlength=clusters)
        around = (edges.distance > radius) & (edges.distance <= ratio * radius)
        shell = np.bincount(cluster[edges.first[around]], minlength=clusters)
        shell += np.bincount(cluster[edges.second[around]], minlength=clusters)
        degree = np.bincount(np.concatenate([first, second]), minlength=count)
        size = np.bincount(cluster, minlength=clusters)
        fitting = (size <= _FEW) | ((size <= most) & (radius <= tolerance / _TIGHTER))
        for members in _members(cluster, (within > 0) & (shell <= within) & fitting):
            if degree[members].max() < NEIGHBOURS or is_compact(members, radius):
                found.append(np.stack([np.full(len(members) - 1, members[0]), members[1:]], axis=1))
    return unique_pairs(np.concatenate(found), count)


def _clusters(count: int, first: Places, second: Places) -> Places:
    """(count,) the number of each place's connected component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _members(cluster: Places, wanted: npt.NDArray[np.bool_]) -> Iterator[Places]:
    """The places of each wanted cluster, ascending."""
    places = np.flatnonzero(wanted[cluster])
    if not len(places):
        return
    places = places[np.argsort(cluster[places], kind="stable")]
    starts = np.flatnonzero(np.diff(cluster[places])) + 1
    yield from np.split(places, starts)
