"""Splits without leaks: examples that share a group, are identical after normalising or nearly so, stay together.

The unit is a connected component of those relations. Components are dealt out largest first to the split that still
lacks most, overall and per label (stratification), as a share of what it wants; ties are broken by a hash of the seed.
Of many small components the rest is dealt out all at once: they stand in a line, label by label and in the order of
their hashes, and each split takes its share of every stretch of that line (systematic sampling). A split that
would stay empty though there are as many components as splits gets one. Pure, and independent of the order of examples.

Examples that an earlier split dealt out keep their place, and only what is new is dealt. Where a new group or copy
joins examples of several splits, all of them go where a model may have learned from one, never to the test split.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.similarity import near
from speciate.modalities.hashing import mix

FRACTIONS = {"train": 0.7, "validation": 0.15, "test": 0.15}
KEEP_FIRST = ("test", "validation", "train")
"""Which copy stays where several splits hold one: what is tested on is hardest to replace."""
_BINS = 10
_HEX_DIGITS = 64  # of a sha256
_ONE_BY_ONE = 5000
"""So many components, the largest, are dealt out one at a time; the rest at once."""
_NOTHING: Mapping[str, str] = MappingProxyType({})
_NO_PAIRS = np.zeros((0, 2), np.int64)

Codes = npt.NDArray[np.int64]
Column: TypeAlias = Sequence[str | float | None] | pa.ChunkedArray


class Members(NamedTuple):
    """Examples as a split sees them, a column each, N long."""

    keys: Sequence[str]
    """Order and seed: they must come from the content, not from the place."""
    groups: Column
    """Examples of a group stay together; None is alone."""
    contents: Column
    """Examples of the same content stay together; None is like no other."""
    strata: Codes
    """(N,) what to balance by, as numbers from 0."""
    pairs: npt.NDArray[np.int64] = _NO_PAIRS
    """(M, 2) near-duplicates, by place."""


class Crossing(NamedTuple):
    """What an audit counts: groups, contents and pairs of near-duplicates in more than one split."""

    groups: int
    contents: int
    near_duplicates: int


def split(
    members: Members, fractions: Mapping[str, float] = FRACTIONS, seed: int = 0, kept: Mapping[str, str] = _NOTHING
) -> list[str]:
    """The split of each member. Shares come as near to `fractions` as whole components and `kept` allow; none that is
    wanted stays empty while there are as many components as splits, some of them not kept elsewhere.

    `fractions`: first what a model learns from, last what it is tested on. `kept`: key -> the split of an earlier time.
    """
    if not len(members.keys):
        return []
    total = sum(fractions.values())
    names = [name for name, fraction in fractions.items() if fraction > 0]
    shares = np.array([fractions[name] / total for name in names])
    component = components(members)
    dealt = _Dealt(component, members.strata, shares)
    dealt.keep(_earlier(component, members.keys, names, kept))
    dealt.deal(_places(component, members.keys, seed))
    return [names[code] for code in dealt.splits[component].tolist()]


def components(members: Members) -> Codes:
    """(N,) the number, from 0, of the component that each member belongs to."""
    links = [_links(members.groups), _links(members.contents), members.pairs]
    return near.clusters(len(members.keys), np.concatenate(links))


def crossing(members: Members, splits: Column) -> Crossing:
    """What crosses the given splits; a member without a split crosses nothing."""
    code = _codes(splits)
    pairs = code[members.pairs]
    across = (pairs[:, 0] != pairs[:, 1]) & (pairs >= 0).all(1)
    return Crossing(_many(members.groups, code), _many(members.contents, code), int(across.sum()))


def strata(labels: Sequence[str | float | None]) -> Codes:
    """(N,) what to balance by: a class as it is, a number as its tenth of the distribution.

    Where most labels occur once they are texts and no classes: those are balanced by all together.
    """
    numbers = np.array([x if isinstance(x, float) else np.nan for x in labels])
    if np.isnan(numbers).all():
        codes = _codes(labels, ordered=True) + 1
        alone = (np.bincount(codes, minlength=2)[codes] == 1) & (codes > 0)
        return np.where(alone, codes[alone][:1], codes) if 2 * alone.sum() > len(codes) else codes
    edges = np.unique(np.nanquantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.where(np.isnan(numbers), 0, np.searchsorted(edges, numbers, side="right") + 1).astype(np.int64)


class _Dealt:
    """Components and the splits that they got."""

    def __init__(self, component: Codes, strata: Codes, shares: npt.NDArray[np.float64]) -> None:
        count = int(component.max()) + 1
        self.splits = np.full(count, -1)
        self._shares = shares
        self._sizes = np.bincount(component, minlength=count)
        order = np.lexsort((strata, component))
        self._strata = strata[order]  # of each component's members, one after another
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        self._component = component[order]
        self._want = shares[:, None] * np.bincount(strata)  # (splits, strata)
        self._have = np.zeros_like(self._want)

    def keep(self, earlier: Codes) -> None:
        """Components that lie in a split already; -1 where not."""
        self.splits[:] = earlier
        for name in range(len(self._shares)):
            inside = np.repeat(earlier == name, self._sizes)
            self._have[name] = np.bincount(self._strata[inside], minlength=self._want.shape[1])

    def deal(self, place: npt.NDArray[np.uint64]) -> None:
        """`place`: where each component stands among those of its size."""
        rest = np.flatnonzero(self.splits < 0)
        rest = rest[np.lexsort((place[rest], -self._sizes[rest]))]
        self._one_by_one(rest[:_ONE_BY_ONE])
        self._at_once(rest[_ONE_BY_ONE:], place)
        if len(self.splits) >= len(self._shares):
            self._fill(rest, place)

    def _fill(self, dealt: Codes, place: npt.NDArray[np.uint64]) -> None:
        """Each split that got nothing takes one of those just dealt out from a split that has several, whatever the
        shares say: the one whose size comes nearest to what the split wants. What is tested on comes first."""
        held = np.bincount(self.splits, minlength=len(self._shares))
        for name in np.flatnonzero(held == 0)[::-1].tolist():
            free = dealt[held[self.splits[dealt]] > 1]
            if not len(free):
                return
            off = np.abs(self._sizes[free] - self._want[name].sum())
            moved = free[np.lexsort((place[free], off))[0]]
            held[self.splits[moved]] -= 1
            held[name] += 1
            self.splits[moved] = name

    def _one_by_one(self, chosen: Codes) -> None:
        wants, overall = np.maximum(self._want, 1e-9), np.maximum(self._want.sum(1), 1e-9)
        held = self._have.sum(1)
        for number, kinds, counts in self._counted(chosen):
            size = int(self._sizes[number])
            lack = (overall - held - size) / overall
            wanted = wants[:, kinds]
            per_label = (wanted - self._have[:, kinds] - counts) / wanted
            best = int((lack + (per_label * (counts / size)).sum(1)).argmax())
            self.splits[number] = best
            self._have[best, kinds] += counts
            held[best] += size

    def _counted(self, chosen: Codes) -> Iterator[tuple[int, Codes, Codes]]:
        """Each component with the strata of its members, and how many of them lie in each."""
        new = np.diff(self._component, prepend=-1).astype(bool) | np.diff(self._strata, prepend=-1).astype(bool)
        begins = np.flatnonzero(new)
        kinds, counts = self._strata[begins], np.diff(begins, append=len(new))
        first = np.searchsorted(begins, self._starts)
        for number in chosen.tolist():
            inside = slice(first[number], first[number + 1])
            yield number, kinds[inside], counts[inside]

    def _at_once(self, chosen: Codes, place: npt.NDArray[np.uint64]) -> None:
        """Small components, each counted under the label of its first member."""
        if not len(chosen):
            return
        stratum = self._strata[self._starts[chosen]]
        line = np.lexsort((place[chosen], self._sizes[chosen], stratum))
        chosen, stratum = chosen[line], stratum[line]
        lack = np.maximum(self._want - self._have, 0)
        lack = np.where(lack.sum(0) > 0, lack, self._shares[:, None])
        open_ = np.ones(len(chosen), bool)
        for name in range(len(self._shares) - 1, 0, -1):
            share = (lack[name] / np.maximum(lack[: name + 1].sum(0), 1e-9))[stratum[open_]]
            steps = np.floor(np.cumsum(share) + 0.5)
            taken = np.flatnonzero(open_)[np.diff(steps, prepend=0) > 0]
            self.splits[chosen[taken]] = name
            open_[taken] = False
        self.splits[chosen[open_]] = 0


def _earlier(component: Codes, keys: Sequence[str], names: list[str], kept: Mapping[str, str]) -> Codes:
    """Of each component the first split, in the order of `names`, in which one of its members was; -1 where none."""
    none = len(names)
    found = np.full(int(component.max()) + 1, none)
    if kept:
        number = {name: place for place, name in enumerate(names)}
        was = np.array([number.get(kept.get(key, ""), none) for key in keys])
        np.minimum.at(found, component, was)
    return np.where(found == none, -1, found)


def _places(component: Codes, keys: Sequence[str], seed: int) -> npt.NDArray[np.uint64]:
    """For each component the smallest hash of seed and key among its members: 64 bits."""
    smallest = np.full(int(component.max()) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, component, _hashes(keys, seed))
    return smallest


def _hashes(keys: Sequence[str], seed: int) -> npt.NDArray[np.uint64]:
    """(N,) 64 bits of each key and the seed. Of keys that are sha256 already, their first digits are mixed with it."""
    with contextlib.suppress(ValueError):
        if all(len(key) == _HEX_DIGITS for key in keys):
            first = np.frombuffer(bytes.fromhex("".join([key[:16] for key in keys])), ">u8").astype(np.uint64)
            return mix(first ^ mix(np.array([seed + 1], np.int64).view(np.uint64)))
    salt = f"{seed}/".encode()
    return np.frombuffer(b"".join(hashlib.blake2b(salt + key.encode(), digest_size=8).digest() for key in keys), "<u8")


def _links(values: Column) -> npt.NDArray[np.int64]:
    """(M, 2) each place with the first one of the same value."""
    code = _codes(values)
    places = np.flatnonzero(code >= 0)
    _, first, inverse = np.unique(code[places], return_index=True, return_inverse=True)
    pairs = np.stack([places[first[inverse]], places], axis=1) if len(places) else _NO_PAIRS
    return np.asarray(pairs[pairs[:, 0] != pairs[:, 1]])


def _codes(values: Column, *, ordered: bool = False) -> Codes:
    """(N,) equal numbers for equal values, -1 for None; `ordered`: in the order of the values, wherever they stand."""
    if isinstance(values, pa.ChunkedArray):
        array = values.cast(pa.string()).combine_chunks()
    else:
        array = pa.array([None if value is None else str(value) for value in values], pa.string())
    encoded = array.dictionary_encode()
    if not len(encoded.dictionary):
        return np.full(len(array), -1)
    if not ordered:
        return np.asarray(pc.fill_null(encoded.indices.cast(pa.int64()), -1))
    rank = np.empty(len(encoded.dictionary), np.int64)
    rank[np.asarray(pc.sort_indices(encoded.dictionary))] = np.arange(len(rank))
    indices = np.asarray(pc.fill_null(encoded.indices.cast(pa.int64()), -1))
    return np.where(indices < 0, -1, rank[indices])


def _many(values: Column, splits: Codes) -> int:
    """How many values occur in more than one split."""
    code = _codes(values)
    there = (code >= 0) & (splits >= 0)
    both = np.unique(np.stack([code[there], splits[there]], axis=1), axis=0)
    return int((np.unique(both[:, 0], return_counts=True)[1] > 1).sum())
