"""Splits without leaks: examples that share a group, or are identical after normalising, stay together.

The unit is a connected component of those two relations. Components are dealt out largest first to the split that
still lacks most, overall and per label (stratification), as a share of what it wants; ties are broken by a hash of
the seed. Pure, and independent of the order of the examples.

Examples that an earlier split dealt out keep their place, and only what is new is dealt. Where a new group or copy
joins examples of several splits, all of them go where a model may have learned from one, never to the test split.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

FRACTIONS = {"train": 0.7, "validation": 0.15, "test": 0.15}
_BINS = 10
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Member(NamedTuple):
    """An example as a split sees it. `key` orders and seeds: it must come from the content, not from the place."""

    key: str
    group: str | None
    """Examples with the same group stay together; None is alone."""
    content: str
    """Examples with the same content stay together."""
    stratum: str


class Crossing(NamedTuple):
    """What an audit counts: values that occur in more than one split."""

    groups: int
    contents: int


def split(
    members: Sequence[Member],
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
    kept: Mapping[str, str] = _NOTHING,
) -> list[str]:
    """The split of each member. Shares come as near to `fractions` as whole components and `kept` allow.

    `fractions`: first what a model learns from, last what it is tested on. `kept`: key -> the split of an earlier time.
    """
    total = sum(fractions.values())
    shares = {name: fraction / total for name, fraction in fractions.items() if fraction > 0}
    strata = Counter(member.stratum for member in members)
    room = {name: _Room(share, len(members), strata) for name, share in shares.items()}
    assigned = [""] * len(members)
    ordered = [(_earlier(component, members, kept, room), component) for component in _in_order(members, seed)]
    for earlier, component in sorted(ordered, key=lambda found: found[0] is None):  # stable: what is kept comes first
        counts = Counter(members[i].stratum for i in component)
        best = earlier or max(room, key=lambda name: room[name].need(counts, len(component)))
        room[best].take(counts, len(component))
        for i in component:
            assigned[i] = best
    return assigned


def components(members: Sequence[Member]) -> list[list[int]]:
    """Positions of the members that must stay together."""
    parent = list(range(len(members)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, member in enumerate(members):
        keys = [("content", member.content)] + ([("group", member.group)] if member.group is not None else [])
        for key in keys:
            parent[root(i)] = root(first.setdefault(key, i))
    together: dict[int, list[int]] = defaultdict(list)
    for i in range(len(members)):
        together[root(i)].append(i)
    return list(together.values())


def audit(members: Sequence[Member], splits: Sequence[str]) -> Crossing:
    """How many groups and contents cross the given splits."""
    groups, contents = defaultdict(set), defaultdict(set)
    for member, name in zip(members, splits, strict=True):
        contents[member.content].add(name)
        if member.group is not None:
            groups[member.group].add(name)
    return Crossing(_many(groups), _many(contents))


def strata(labels: Sequence[str | float | None]) -> list[str]:
    """What to balance by: a class as it is, a number as its tenth of the distribution."""
    numbers = np.array([x for x in labels if isinstance(x, float)])
    if not len(numbers):
        return [str(label) for label in labels]
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return [str(np.searchsorted(edges, x, side="right")) if isinstance(x, float) else "none" for x in labels]


class _Room:
    """What one split wants and has."""

    def __init__(self, share: float, members: int, strata: Counter[str]) -> None:
        self._want = max(share * members, 1e-9)
        self._wants = {stratum: share * count for stratum, count in strata.items()}
        self._have = 0
        self._haves: Counter[str] = Counter()

    def need(self, counts: Counter[str], size: int) -> float:
        """What would still lack after taking this component, as a share of what is wanted; negative is too much."""
        overall = (self._want - self._have - size) / self._want
        return overall + sum(
            count / size * (self._wants[stratum] - self._haves[stratum] - count) / self._wants[stratum]
            for stratum, count in counts.items()
        )

    def take(self, counts: Counter[str], size: int) -> None:
        self._have += size
        self._haves.update(counts)


def _earlier(
    component: Sequence[int], members: Sequence[Member], kept: Mapping[str, str], names: Iterable[str]
) -> str | None:
    found = {kept.get(members[i].key) for i in component}
    return next((name for name in names if name in found), None)


def _in_order(members: Sequence[Member], seed: int) -> list[list[int]]:
    def place(component: list[int]) -> tuple[int, bytes]:
        name = min(members[i].key for i in component)
        return -len(component), hashlib.sha256(f"{seed}/{name}".encode()).digest()

    return sorted(components(members), key=place)


def _many(found: Mapping[str, set[str]]) -> int:
    return sum(len(names) > 1 for names in found.values())
