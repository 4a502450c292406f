"""Rows that come to a split: what is there stays where it is, and nothing that comes makes it leak.

A new row goes where the rows of its group and its near-duplicates lie, whatever that split is called; one that would
tie several splits together is refused; what belongs with nothing is dealt out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.split import FRACTIONS, Codes, Column, Members, components, split
from speciate.datasets.splitting import members_of

_JOINS = "Its group or near-duplicates lie in the splits"

Mask = npt.NDArray[np.bool_]


def join_rows(
    rows: pa.Table, modality: str, new: Mask, *, fractions: Mapping[str, float] = FRACTIONS, seed: int = 0
) -> pa.Table:
    """`rows` of which the `new` (N,), where they are usable, got a split; the others keep theirs, whatever its name.

    A new row that belongs with examples of several splits is refused: in any of them it would leak.
    """
    splits, qualities, reasons = (rows[name].to_pylist() for name in ("split", "quality", "reason"))
    usable = np.asarray(pc.equal(rows["quality"], "ok"), bool)
    places = np.flatnonzero(usable & (new | np.asarray(pc.is_valid(rows["split"]), bool)))
    if not new[places].any():
        return rows
    members = members_of(rows.take(pa.array(places)), modality)
    lies = [None if new[place] else splits[place] for place in places]
    joined = join(members, lies, fractions, seed)
    for at in np.flatnonzero(new[places]).tolist():
        place, found = int(places[at]), joined[at]
        if isinstance(found, str):
            splits[place] = found
        else:
            splits[place], qualities[place], reasons[place] = None, "refused", _why_refused(found)
    for name, values in (("split", splits), ("quality", qualities), ("reason", reasons)):
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return rows


def join(
    members: Members, lies: Sequence[str | None], fractions: Mapping[str, float], seed: int
) -> list[str | frozenset[str]]:
    """For each member the split that it lies in or, where that was None, comes to; or the splits that it would join."""
    names = sorted({name for name in lies if name is not None})
    number = {name: code for code, name in enumerate(names)}
    codes = np.array([-1 if name is None else number[name] for name in lies], np.int64)
    component = components(members)
    first, last = _first_and_last(component, codes)
    found = np.where(codes < 0, first[component], codes)
    torn = (first != last)[component]
    refused: dict[int, frozenset[str]] = {}
    for place, reached in _one_by_one(members, codes, np.flatnonzero(torn)).items():
        found[place] = min(reached, default=-1)
        if len(reached) > 1:
            refused[place] = frozenset(names[code] for code in reached)
    wanted = {name for name, fraction in fractions.items() if fraction > 0}
    dealt = np.array([code < 0 or names[code] in wanted for code in found], bool)
    dealt[list(refused)] = False
    result: list[str | frozenset[str]] = [names[code] if code >= 0 else "" for code in found.tolist()]
    if (found < 0).any():
        kept = {members.keys[at]: names[found[at]] for at in np.flatnonzero(dealt & (found >= 0)).tolist()}
        drawn = split(_some(members, dealt), fractions, seed, kept)
        for place, name in zip(np.flatnonzero(dealt).tolist(), drawn, strict=True):
            result[place] = name if found[place] < 0 else result[place]
    for place, joins in refused.items():
        result[place] = joins
    return result


def readmitted(rows: pa.Table) -> pa.Table:
    """With the rows usable again that were refused for what they would have joined: all is dealt out anew."""
    back = pc.fill_null(pc.starts_with(rows["reason"].cast(pa.string()), _JOINS), False)
    if rows["label"].null_count < rows.num_rows:
        back = pc.and_(back, pc.is_valid(rows["label"]))
    for name, value in (("quality", "ok"), ("reason", None)):
        column = pc.if_else(back, pa.scalar(value, pa.string()), rows[name].cast(pa.string()))
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    return rows


def _why_refused(splits: frozenset[str]) -> str:
    *before, last = map(repr, sorted(splits))
    return f"{_JOINS} {', '.join(before)} and {last}: in any of them it would leak."


def _first_and_last(component: Codes, codes: Codes) -> tuple[Codes, Codes]:
    """Of each component the smallest and the largest code of a split in it; -1 where none."""
    count = int(component.max(initial=-1)) + 1
    first, last, lying = np.full(count, np.iinfo(np.int64).max), np.full(count, -1), codes >= 0
    np.minimum.at(first, component[lying], codes[lying])
    np.maximum.at(last, component[lying], codes[lying])
    return np.where(last < 0, -1, first), last


def _one_by_one(members: Members, codes: Codes, places: Codes) -> dict[int, set[int]]:
    """Of components that touch several splits: for each member that lies in none, in the order of the keys, the splits
    that it would join, given those before it; with more than one it joins nothing, and ties nothing together."""
    clusters, chosen = _Clusters(), set(places.tolist())
    near_to: dict[int, list[int]] = defaultdict(list)
    for a, b in members.pairs.tolist():
        if a in chosen:
            near_to[a].append(b)
            near_to[b].append(a)
    values = [_texts(column, places) for column in (members.groups, members.contents)]
    hubs = {
        place: [(kind, value) for kind, column in enumerate(values) if (value := column[at]) is not None]
        for at, place in enumerate(places.tolist())
    }
    ties: dict[Hashable, set[int]] = defaultdict(set)  # a group or content -> the splits that it reaches; -1: none yet
    joins: dict[int, set[int]] = {}
    for place in sorted(chosen, key=lambda at: (codes[at] < 0, members.keys[at])):
        code, open_ = int(codes[place]), codes[place] < 0
        reached: list[Hashable] = [(hub, other) for hub in hubs[place] for other in ties[hub] if open_ or other == code]
        reached += [other for other in near_to[place] if other in clusters and (open_ or codes[other] == code)]
        if open_:
            joins[place] = {clusters.code(each) for each in reached} - {-1}
            if len(joins[place]) > 1:
                continue
        for hub in hubs[place]:
            ties[hub].add(code)
            reached.append((hub, code))
        clusters.add(place, code, reached)
    return {place: found or clusters.joined(place) for place, found in joins.items()}


class _Clusters:
    """What belongs together, and the split that it lies in."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}
        self._code: dict[Hashable, int] = {}

    def __contains__(self, node: Hashable) -> bool:
        return node in self._parent

    def add(self, node: Hashable, code: int, others: Sequence[Hashable]) -> None:
        self._parent[node], self._code[node] = node, code
        for other in others:
            if other not in self._parent:
                self._parent[other], self._code[other] = other, code
            mine, theirs = self._root(node), self._root(other)
            self._parent[theirs] = mine
            self._code[mine] = max(self._code[mine], self._code[theirs])

    def code(self, node: Hashable) -> int:
        return self._code[self._root(node)]

    def joined(self, node: Hashable) -> set[int]:
        return {self.code(node)} - {-1}

    def _root(self, node: Hashable) -> Hashable:
        while (parent := self._parent[node]) != node:
            self._parent[node] = self._parent[parent]
            node = parent
        return node


def _texts(column: Column, places: Codes) -> list[Any]:
    if isinstance(column, pa.ChunkedArray):
        return list(column.take(pa.array(places)).to_pylist())
    return [column[place] for place in places.tolist()]


def _some(members: Members, mask: Mask) -> Members:
    """Those that `mask` chooses, with the pairs among them."""
    places, number = np.flatnonzero(mask), np.cumsum(mask) - 1
    pairs = members.pairs[mask[members.pairs].all(axis=1)]
    keys = [members.keys[place] for place in places.tolist()]
    return Members(
        keys, _taken(members.groups, places), _taken(members.contents, places), members.strata[places], number[pairs]
    )


def _taken(column: Column, places: Codes) -> Column:
    return (
        column.take(pa.array(places)) if isinstance(column, pa.ChunkedArray) else [column[p] for p in places.tolist()]
    )
