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
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.connected_components import clusters

Places = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

NEIGHBOURS = 12
"""Neighbours of each medium that are looked at."""
CHANCE = 200.0
_FEW, _TIGHTER, _MOST = 4, 5, 0.1
"""A cluster of more members than that lies within a fifth of the tolerance, and holds at most that share of all."""
_QUESTION, _AT_ONCE = 1 << 14, 1 << 17
"""Points whose neighbours are looked for at once, and of whole kinds at once."""
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

    if len(points) < 2:
        return np.zeros((0, 2), np.int64)
    tree = cKDTree(points)
    return _pairs_around(tree, np.asarray(tree.indices, np.int64), bound, neighbours)


def neighbours_by_kind(points: Doubles, kinds: Places, bound: float) -> Iterator[tuple[Places, Places]]:
    """`neighbour_pairs` of points whose kinds (N,) lie out of each other's reach: whole kinds, about a hundred thousand
    points at a time. Their places, ascending, and (M, 2) the pairs as positions among those."""
    from scipy.spatial import cKDTree

    tree = cKDTree(points)
    along = np.asarray(tree.indices, np.int64)  # neighbours follow each other: half the time of any other order
    along = along[np.argsort(kinds[along], kind="stable")]
    ends = np.flatnonzero(np.diff(kinds[along], append=-1)) + 1
    position, begin = np.zeros(len(points), np.int64), 0
    while begin < len(along):
        end = int(ends[np.searchsorted(ends, begin + _AT_ONCE).clip(max=len(ends) - 1)])
        places, pairs = np.sort(along[begin:end]), _pairs_around(tree, along[begin:end], bound, NEIGHBOURS)
        position[places] = np.arange(len(places))
        yield places, pairs if len(places) == len(points) else position[pairs]
        begin = end


def _pairs_around(tree: Any, places: Places, bound: float, neighbours: int) -> Places:
    """(M, 2) the points at `places` with their nearest ones."""
    count = int(tree.n)
    wanted = min(neighbours + 1, count)
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(places), _QUESTION):
        asked = places[start : start + _QUESTION]
        _, near = tree.query(tree.data[asked], k=wanted, p=np.inf, distance_upper_bound=bound)
        first, second = np.repeat(asked, wanted), np.asarray(near, np.int64).ravel()
        there = (second < count) & (first != second)
        first, second = first[there], second[there]
        found.append(np.unique(np.minimum(first, second) * count + np.maximum(first, second)))
    code = np.concatenate(found)
    del found
    code.sort()  # in its place, and each step gives up the one before: of a million points there are ten million
    code = code[np.append(True, code[1:] != code[:-1])[: len(code)]]
    pairs = np.empty((len(code), 2), np.int64)
    np.floor_divide(code, count, out=pairs[:, 0])
    np.remainder(code, count, out=pairs[:, 1])
    return pairs


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
    count: int,
    edges: Edges,
    tolerance: float,
    ratio: float,
    is_compact: Callable[[Places, float], bool],
    total: int | None = None,
) -> Places:
    """(M, 2) the first member of each cluster that stands apart, with each other member.

    A cluster at a radius is what edges of that length or less join. It stands apart if not more edges of its members
    lie between the radius and `ratio` times it than within. Where a member has NEIGHBOURS edges within the radius, its
    farther ones are not known: then `is_compact(members, radius)` must hold, as it does for copies of one medium and
    does not for a dense region. `total`: of how many media these `count` are, if not all.
    """
    most = max(_FEW, int(_MOST * (total or count)))
    found = [np.zeros((0, 2), np.int64)]
    number = np.full(count, -1)  # of a place's cluster
    for radius in (tolerance / 2 ** (step / 2) for step in range(_RADII)):
        if not (edges.distance <= radius).any():
            break
        largest = most if radius <= tolerance / _TIGHTER else _FEW
        for places, degree in _clusters_apart(edges, radius, ratio * radius, number, largest):
            if degree < NEIGHBOURS or is_compact(places, radius):
                found.append(np.stack([np.full(len(places) - 1, places[0]), places[1:]], axis=1))
        near = np.flatnonzero(edges.distance <= ratio * radius)  # smaller radii reach no farther
        if len(near) < len(edges.distance):
            edges = Edges(edges.first[near], edges.second[near], edges.distance[near])
    return unique_pairs(np.concatenate(found), count)


def _clusters_apart(edges: Edges, radius: float, far: float, number: Places, largest: int) -> list[tuple[Places, int]]:
    """The places of each cluster at a radius that stands apart up to `far`, and the most edges that one of them has
    within the radius. `number`: -1 for every place, then and afterwards."""
    inside = edges.distance <= radius
    first, second = edges.first[inside], edges.second[inside]
    number[first] = number[second] = 0
    joined = np.flatnonzero(number == 0)
    number[joined] = np.arange(len(joined))
    first = number[first]
    second = number[second]
    cluster = clusters(len(joined), first, second)
    within, size = np.bincount(cluster[first]), np.bincount(cluster)
    degree = np.bincount(first, minlength=len(joined)) + np.bincount(second, minlength=len(joined))
    del first, second
    around = np.flatnonzero(~inside & (edges.distance <= far))
    shell = np.zeros(len(within), np.int64)
    for start in range(0, len(around), _AT_ONCE):
        some = around[start : start + _AT_ONCE]
        for ends in (edges.first[some], edges.second[some]):
            reached = number[ends]
            shell += np.bincount(cluster[reached[reached >= 0]], minlength=len(shell))
    number[joined] = -1
    apart = _members(cluster, (shell <= within) & (size <= largest))
    return [(joined[members], int(degree[members].max())) for members in apart]


def _members(cluster: Places, wanted: npt.NDArray[np.bool_]) -> Iterator[Places]:
    """The places of each wanted cluster, ascending."""
    places = np.flatnonzero(wanted[cluster])
    if not len(places):
        return
    places = places[np.argsort(cluster[places], kind="stable")]
    starts = np.flatnonzero(np.diff(cluster[places])) + 1
    yield from np.split(places, starts)
