"""Rows that come to a split: what is there stays where it is, and nothing that comes makes it leak.

A new row goes where the rows of its component lie, whatever that split is called; where those lie in several splits, it
is refused, and so are the other new rows of that component; what belongs with nothing is dealt out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.columns import with_column
from speciate.datasets.split import FRACTIONS, Codes, Column, Members, components, split
from speciate.datasets.splitting import members_of

_JOINS = "Its group or near-duplicates lie in the splits"

_NOTHING: Mapping[str, str] = MappingProxyType({})

Mask = npt.NDArray[np.bool_]


def join_rows(
    rows: pa.Table, modality: str, new: Mask, *, fractions: Mapping[str, float] = FRACTIONS, seed: int = 0
) -> pa.Table:
    """`rows` of which the `new` (N,), where they are usable, got a split; the others keep theirs, whatever its name.

    A new row that belongs with examples of several splits is refused: in any of them it would leak. One that has a
    split, from before it was set aside, comes back to it where it belongs with nothing that lies elsewhere by now.
    """
    splits, qualities, reasons = (rows[name].to_pylist() for name in ("split", "quality", "reason"))
    usable = np.asarray(pc.equal(rows["quality"], "ok"), bool)
    places = np.flatnonzero(usable & (new | np.asarray(pc.is_valid(rows["split"]), bool)))
    if not new[places].any():
        return rows
    members = members_of(rows.take(pa.array(places)), modality)
    lies = [None if new[place] else splits[place] for place in places]
    earlier = {key: splits[place] for key, place in zip(members.keys, places, strict=True) if splits[place]}
    joined = join(members, lies, fractions, seed, earlier)
    for at in np.flatnonzero(new[places]).tolist():
        place, found = int(places[at]), joined[at]
        if isinstance(found, str):
            splits[place] = found
        else:
            splits[place], qualities[place], reasons[place] = None, "refused", _why_refused(found)
    for name, values in (("split", splits), ("quality", qualities), ("reason", reasons)):
        rows = with_column(rows, name, pa.array(values, pa.string()))
    return rows


def join(
    members: Members,
    lies: Sequence[str | None],
    fractions: Mapping[str, float],
    seed: int,
    earlier: Mapping[str, str] = _NOTHING,
) -> list[str | frozenset[str]]:
    """For each member the split that it lies in or, where that was None, comes to; or the splits that it would join.

    `earlier`: key -> the split that it lay in, for those that nothing holds elsewhere.
    """
    component = components(members)
    reached: dict[int, set[str]] = defaultdict(set)
    for number, name in zip(component.tolist(), lies, strict=True):
        if name is not None:
            reached[number].add(name)
    found: list[str | frozenset[str] | None] = []
    for number, name in zip(component.tolist(), lies, strict=True):
        names = reached.get(number, set())
        found.append(name or (frozenset(names) if len(names) > 1 else next(iter(names), None)))
    wanted = {name for name, fraction in fractions.items() if fraction > 0}
    dealt = np.array([name is None or name in wanted for name in found], bool)
    kept = {
        key: lay
        for key, at in zip(members.keys, found, strict=True)
        if isinstance(lay := earlier.get(key) if at is None else at, str) and lay in wanted
    }
    drawn = iter(split(_some(members, dealt), fractions, seed, kept))
    among = [next(drawn) if chosen else "" for chosen in dealt.tolist()]
    return [new if name is None else name for name, new in zip(found, among, strict=True)]


def readmitted(rows: pa.Table) -> pa.Table:
    """With the rows usable again that were refused for what they would have joined: all is dealt out anew."""
    back = pc.fill_null(pc.starts_with(rows["reason"].cast(pa.string()), _JOINS), False)
    if rows["label"].null_count < rows.num_rows:
        back = pc.and_(back, pc.is_valid(rows["label"]))
    for name, value in (("quality", "ok"), ("reason", None)):
        column = pc.if_else(back, pa.scalar(value, pa.string()), rows[name].cast(pa.string()))
        rows = with_column(rows, name, column)
    return rows


def _why_refused(splits: frozenset[str]) -> str:
    *before, last = map(repr, sorted(splits))
    return f"{_JOINS} {', '.join(before)} and {last}: in any of them it would leak."


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
