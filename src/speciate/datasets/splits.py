"""Splits without leaks: examples that share a group, are identical after normalising or nearly so, stay together.

Four steps, in this order below: assign splits, audit a split for leaks, append rows to a split, warn of labels that a
split lacks. similarity/near_duplicates.py finds what is nearly identical.

The unit is a connected component of those relations. Components are assigned largest first to the split that lacks
most, overall and per label (stratification), as a share of its fraction; a hash of the seed breaks ties. The rest of
many small components is assigned at once: they stand in a line, label by label and in the order of their hashes, and
each split takes its share of every stretch of that line (systematic sampling). A split that would stay empty though
there are as many components as splits gets one. Pure, and independent of the order of examples.

Examples of an earlier split keep their place, and only new ones are assigned. If a new group or copy joins examples of
several splits, all of them go where a model may have learned from one, never to the test split. Rows that are appended
never move others: a new row joins the split of its component; if that lies in several splits, the new rows of it are
refused.

A class whose examples all belong together lies in one split, and no figure of the other splits (accuracy, baselines,
the number of further test examples) tells anything about it: `find_missing_labels` warns of that.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets import digest_columns
from speciate.datasets.columns import CONTENT, FINGERPRINT, KEY, ORIGIN, SKETCH, with_column
from speciate.datasets.roles import groups
from speciate.datasets.similarity import near_duplicates
from speciate.datasets.version_report import MissingLabel, SplitReport
from speciate.modalities import find
from speciate.modalities.hashing import mix
from speciate.refs import SPLITS
from speciate.sample_size import highest_target, smallest_difference
from speciate.workspace.workspace import Folders

FRACTIONS = {"train": 0.7, "validation": 0.15, "test": 0.15}
NOT_CHECKED = "not_checked"
KEEP_FIRST = ("test", "validation", "train")
"""Which copy stays if several splits hold one: test examples are hardest to replace."""
_BINS = 10
_ONE_BY_ONE = 5000
"""The number of components, the largest, that are assigned one at a time; the rest at once."""
_TRAIN = "train"
_NOTHING: Mapping[str, str] = MappingProxyType({})
_NO_PAIRS = np.zeros((0, 2), np.int64)

Codes = npt.NDArray[np.int64]
Column: TypeAlias = Sequence[str | float | None] | pa.ChunkedArray | pa.Array
Kept: TypeAlias = Mapping[str, str] | pa.Table
"""Keys of earlier rows and the splits that they keep. As a table it has the columns `key` and `split`."""
_PAIRS_SHOWN = 5
_JOINS = "Its group or near-duplicates lie in the splits"
Mask = npt.NDArray[np.bool_]
_KEPT = 50
_Places = npt.NDArray[np.intp]


_ROUNDING = 0.011
"""Thirds written with two digits still make a whole."""
_EQUAL = 1e-9


def checked_fractions(fractions: Mapping[str, float]) -> dict[str, float]:
    """Shares of a whole in the order of SPLITS. Raises ValueError where they are none."""
    if unknown := sorted(fractions.keys() - set(SPLITS)):
        raise ValueError(f"there is no split {unknown[0]!r}: fractions are of {', '.join(SPLITS)}")
    if not fractions or min(fractions.values()) < 0:
        raise ValueError("fractions are shares: at least one, and none below 0")
    total = sum(fractions.values())
    if not abs(total - 1) <= _ROUNDING:
        raise ValueError(f"fractions are shares of one whole: these sum to {total:g}, and not to 1")
    whole = 1.0 if abs(total - 1) < _EQUAL else total  # what was checked before stays as it is
    return {name: fractions[name] / whole for name in SPLITS if name in fractions}


def are_equal_fractions(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether two checked ones are the same but for rounding."""
    return all(abs(one.get(name, 0.0) - other.get(name, 0.0)) < _EQUAL for name in {*one, *other})


def made_by(fractions: Mapping[str, float]) -> str:
    """What a report says of a split of ours, by its checked fractions."""
    shares = "/".join(f"{round(100 * share, 2):g}" for share in fractions.values())
    return f"speciate: {shares} {'/'.join(fractions)}, groups and near-duplicates together, stratified"


class Members(NamedTuple):
    """Examples as a split sees them, a column each, N long."""

    keys: Sequence[str] | pa.ChunkedArray
    """Order and seed: they must come from the content, not from the place."""
    groups: Column
    """Examples of a group stay together; None is alone."""
    contents: Column
    """Examples of the same content stay together; None is like no other."""
    strata: Codes
    """(N,) what to balance by, as numbers from 0."""
    pairs: npt.NDArray[np.int64] = _NO_PAIRS
    """(M, 2) near-duplicates, by place."""
    uncompared: int = 0
    """How many of them have no sketch by which a near-duplicate could be found."""


class Leaks(NamedTuple):
    """Counts of an audit: groups, contents and pairs of near-duplicates in more than one split."""

    groups: int
    contents: int
    near_duplicates: int


def assign_splits(
    members: Members, fractions: Mapping[str, float] = FRACTIONS, seed: int = 0, kept: Kept = _NOTHING
) -> pa.StringArray:
    """(N,) the split of each member. Shares come as near to `fractions` as whole components and `kept` allow.

    No wanted split stays empty while there are as many components as splits, some of them not kept elsewhere.
    `fractions`: first the training split, last the test split. `kept`: key -> its split of an earlier time.
    """
    return _assign(members, fractions, seed, _kept_codes(members.keys, _wanted(fractions), kept))


def _wanted(fractions: Mapping[str, float]) -> list[str]:
    return [name for name, fraction in fractions.items() if fraction > 0]


def _assign(members: Members, fractions: Mapping[str, float], seed: int, earlier: Codes) -> pa.StringArray:
    """`earlier`: (N,) the wanted split that a member had before; -1 without one."""
    if not len(members.keys):
        return pa.array([], pa.string())
    names = _wanted(fractions)
    total = sum(fractions.values())
    shares = np.array([fractions[name] / total for name in names])
    component = components(members)
    dealt = _Assignment(component, members.strata, shares)
    dealt.keep(_earlier_splits(component, len(names), earlier))
    dealt.assign(_places(component, members.keys, seed))
    return _named(names, dealt.splits[component])


def _named(names: Sequence[str], codes: Codes) -> pa.StringArray:
    """(N,) the name of each code; null for -1."""
    return pa.array(names, pa.string()).take(pa.array(codes, pa.int64(), mask=codes < 0))


def _kept_codes(keys: Sequence[str] | pa.ChunkedArray, names: Sequence[str], kept: Kept) -> Codes:
    """(N,) which of the `names` each key keeps; -1 where none."""
    table = kept if isinstance(kept, pa.Table) else pa.table({"key": list(kept), "split": list(kept.values())})
    if not table.num_rows:
        return np.full(len(keys), -1)
    backwards = table.take(pa.array(np.arange(table.num_rows)[::-1]))  # of a key that is there twice the last counts
    place = pc.index_in(_texts(keys), value_set=backwards["key"].cast(pa.string()).combine_chunks())
    code = pc.index_in(backwards["split"].cast(pa.string()), value_set=pa.array(names, pa.string()))
    return np.asarray(pc.fill_null(code.combine_chunks().take(place.combine_chunks()).cast(pa.int64()), -1))


def _texts(values: Column) -> pa.ChunkedArray:
    if isinstance(values, pa.ChunkedArray):
        return values.cast(pa.string())
    if isinstance(values, pa.Array):
        return pa.chunked_array([values.cast(pa.string())])
    return pa.chunked_array([[None if each is None else str(each) for each in values]], pa.string())


def components(members: Members) -> Codes:
    """(N,) the number, from 0, of the component that each member belongs to."""
    links = [_links(members.groups), _links(members.contents), members.pairs]
    return near_duplicates.clusters(len(members.keys), np.concatenate(links))


def units_without_copies(members: Members, contents: Column) -> int:
    """How many components there would be with one row of each of the `contents`."""
    places, code = _repeated(contents)
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    leader = np.arange(len(members.keys))
    leader[places] = places[first[inverse]] if len(places) else places
    one_each = _select_members(members._replace(pairs=leader[members.pairs]), leader == np.arange(len(leader)))
    return int(components(one_each).max(initial=-1)) + 1


def count_leaks(members: Members, splits: Column) -> Leaks:
    """What crosses the given splits; a member without a split crosses nothing."""
    code = _codes(splits)
    pairs = code[members.pairs]
    across = (pairs[:, 0] != pairs[:, 1]) & (pairs >= 0).all(1)
    return Leaks(_count_crossing(members.groups, code), _count_crossing(members.contents, code), int(across.sum()))


def strata(labels: Column) -> Codes:
    """(N,) strata to balance: a class as it is, a number as its tenth of the distribution.

    If most labels occur once, they are texts and no classes: those are balanced together.
    """
    if isinstance(labels, pa.ChunkedArray):
        floating = pa.types.is_floating(labels.type)
        numbers = np.asarray(labels.to_numpy(), float) if floating else np.full(len(labels), np.nan)
    else:
        numbers = np.array([x if isinstance(x, float) else np.nan for x in labels])
    if np.isnan(numbers).all():
        codes = _codes(labels, ordered=True) + 1
        alone = (np.bincount(codes, minlength=2)[codes] == 1) & (codes > 0)
        return np.where(alone, codes[alone][:1], codes) if 2 * alone.sum() > len(codes) else codes
    edges = np.unique(np.nanquantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.where(np.isnan(numbers), 0, np.searchsorted(edges, numbers, side="right") + 1).astype(np.int64)


class _Assignment:
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
        """Keeps components that lie in a split already; -1 for the others."""
        self.splits[:] = earlier
        for name in range(len(self._shares)):
            inside = np.repeat(earlier == name, self._sizes)
            self._have[name] = np.bincount(self._strata[inside], minlength=self._want.shape[1])

    def assign(self, place: npt.NDArray[np.uint64]) -> None:
        """`place`: where each component stands among those of its size."""
        rest = np.flatnonzero(self.splits < 0)
        rest = rest[np.lexsort((place[rest], -self._sizes[rest]))]
        self._one_by_one(rest[:_ONE_BY_ONE])
        self._at_once(rest[_ONE_BY_ONE:], place)
        if len(self.splits) >= len(self._shares):
            self._fill(rest, place)

    def _fill(self, assigned: Codes, place: npt.NDArray[np.uint64]) -> None:
        """Each empty split takes one of the components just assigned from a split that has several.

        It takes the one whose size comes nearest to its share; the test split comes first.
        """
        sizes = np.bincount(self.splits, minlength=len(self._shares))
        for name in np.flatnonzero(sizes == 0)[::-1].tolist():
            free = assigned[sizes[self.splits[assigned]] > 1]
            if not len(free):
                return
            off = np.abs(self._sizes[free] - self._want[name].sum())
            moved = free[np.lexsort((place[free], off))[0]]
            sizes[self.splits[moved]] -= 1
            sizes[name] += 1
            self.splits[moved] = name

    def _one_by_one(self, chosen: Codes) -> None:
        wants, overall = np.maximum(self._want, 1e-9), np.maximum(self._want.sum(1), 1e-9)
        sizes = self._have.sum(1)
        for number, kinds, counts in self._counted(chosen):
            size = int(self._sizes[number])
            lack = (overall - sizes - size) / overall
            wanted = wants[:, kinds]
            per_label = (wanted - self._have[:, kinds] - counts) / wanted
            best = int((lack + (per_label * (counts / size)).sum(1)).argmax())
            self.splits[number] = best
            self._have[best, kinds] += counts
            sizes[best] += size

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


def _earlier_splits(component: Codes, none: int, earlier: Codes) -> Codes:
    """For each component the first split in which one of its members was; -1 if there is none."""
    found = np.full(int(component.max()) + 1, none)
    had = np.flatnonzero(earlier >= 0)
    np.minimum.at(found, component[had], earlier[had])
    return np.where(found == none, -1, found)


def _places(component: Codes, keys: Sequence[str] | pa.ChunkedArray, seed: int) -> npt.NDArray[np.uint64]:
    """For each component the smallest hash of seed and key among its members: 64 bits."""
    smallest = np.full(int(component.max()) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, component, _hashes(keys, seed))
    return smallest


def _hashes(keys: Sequence[str] | pa.ChunkedArray, seed: int) -> npt.NDArray[np.uint64]:
    """(N,) 64 bits of each key and the seed. Of keys that are sha256 already, their first digits are mixed with it."""
    keys = _texts(keys)
    first = digest_columns.first_bits(keys)
    if first is not None:
        return mix(first ^ mix(np.array([seed + 1], np.int64).view(np.uint64)))
    salt = f"{seed}/".encode()
    hashed = [hashlib.blake2b(salt + key.encode(), digest_size=8).digest() for key in keys.to_pylist()]
    return np.frombuffer(b"".join(hashed), "<u8")


def _links(values: Column) -> npt.NDArray[np.int64]:
    """(M, 2) each place with the first one of the same value."""
    places, code = _repeated(values)
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    pairs = np.stack([places[first[inverse]], places], axis=1) if len(places) else _NO_PAIRS
    return np.asarray(pairs[pairs[:, 0] != pairs[:, 1]])


def _repeated(values: Column | Sequence[str]) -> tuple[Codes, Codes]:
    """Ascending places, none of them of None, outside of which no value equals another one; and their codes."""
    if not isinstance(values, pa.ChunkedArray):
        code = _codes(values)
        places = np.flatnonzero(code >= 0)
        return places, code[places]
    places = digest_columns.repeated(values)
    return places, _codes(values if len(places) == len(values) else values.take(pa.array(places)))


def _codes(values: Column, *, ordered: bool = False) -> Codes:
    """(N,) equal numbers for equal values, -1 for None; `ordered`: in the order of the values, wherever they stand."""
    array = _texts(values).combine_chunks()
    encoded = array.dictionary_encode()
    if not len(encoded.dictionary):
        return np.full(len(array), -1)
    if not ordered:
        return np.asarray(pc.fill_null(encoded.indices.cast(pa.int64()), -1))
    rank = np.empty(len(encoded.dictionary), np.int64)
    rank[np.asarray(pc.sort_indices(encoded.dictionary))] = np.arange(len(rank))
    indices = np.asarray(pc.fill_null(encoded.indices.cast(pa.int64()), -1))
    return np.where(indices < 0, -1, rank[indices])


def _count_crossing(values: Column, splits: Codes) -> int:
    """How many values occur in more than one split."""
    places, code = _repeated(values)
    there = splits[places] >= 0
    both = np.unique(np.stack([code[there], splits[places[there]]], axis=1), axis=0)
    return int((np.unique(both[:, 0], return_counts=True)[1] > 1).sum())


class SplitRows(NamedTuple):
    """`splits`: (N,) null if the row is not usable."""

    splits: pa.StringArray
    audit: SplitReport


def split_rows(
    rows: pa.Table,
    modality: str,
    *,
    fractions: Mapping[str, float] = FRACTIONS,
    group_by: str | None = None,
    stratify_by: str | None = None,
    seed: int = 0,
    keep: bool = True,
) -> SplitRows:
    """Assigns splits to the usable rows anew; `keep`: rows in one of the wanted splits stay there.

    `group_by` as in create_dataset, in addition to `group_key`. `stratify_by`: a column in place of the label.
    """
    usable = np.flatnonzero(np.asarray(pc.equal(rows["quality"], "ok")))
    chosen = rows.take(pa.array(usable))
    members = members_of(chosen, modality, group_by=group_by, stratify_by=stratify_by)
    kept = pa.table({"key": members.keys, "split": chosen["split"]}) if keep else _NOTHING
    names = assign_splits(members, fractions, seed, kept)
    splits = np.full(rows.num_rows, -1)
    splits[usable] = np.arange(len(usable))
    dealt = with_column(chosen, "split", names)
    audit = audit_split(members, dealt["split"], dealt["id"], numeric=pa.types.is_floating(rows["label"].type))
    audit["missing_labels"] = find_missing_labels(dealt, members, made=True)
    return SplitRows(names.take(pa.array(splits, pa.int64(), mask=splits < 0)), audit)


def members_of(
    rows: pa.Table,
    modality: str,
    *,
    group_by: str | None = None,
    stratify_by: str | None = None,
    folders: Folders | None = None,
) -> Members:
    """Usable rows as a split sees them. `folders`: of the workspace that remembers near-duplicates."""
    group: Any = rows["group_key"]
    pairs = near_pairs(rows, modality, folders)
    if group_by is not None:
        further = groups(group_by, rows, rows["source"].to_pylist())
        pairs = np.concatenate([pairs, _links(further)])
    if ORIGIN in rows.column_names:  # windows belong together and with the whole, whatever their groups
        pairs = np.concatenate([pairs, _links(pc.coalesce(rows[ORIGIN], rows[KEY]))])
    keys = pc.fill_null(rows[KEY if KEY in rows.column_names else CONTENT].cast(pa.string()), "None")
    uncompared = rows[SKETCH].null_count if SKETCH in rows.column_names else rows.num_rows
    return Members(keys, group, rows[FINGERPRINT], strata(rows[stratify_by or "label"]), pairs, uncompared)


def near_pairs(rows: pa.Table, modality: str, folders: Folders | None = None) -> npt.NDArray[np.int64]:
    """(M, 2) positions of near-duplicates by their sketches; none if the modality has no sketches."""
    sketching = find(modality).sketching
    if sketching is None or SKETCH not in rows.column_names:
        return np.zeros((0, 2), np.int64)
    return near_duplicates.near_duplicate_pairs(rows[SKETCH], sketching, folders=folders)


def audit_split(
    members: Members, splits: Column, ids: Sequence[str] | pa.ChunkedArray = (), *, numeric: bool = False
) -> SplitReport:
    """Leaks of a split, how its labels drift, and what its test part can show. `ids`: to name near-duplicates.

    Without any sketch, near-duplicates are NOT_CHECKED and no 0; if some examples lack one, they are counted.
    """
    splits = _texts(splits)
    found = count_leaks(members, splits)
    compared = len(members.keys) - members.uncompared
    report: SplitReport = {
        "groups_across": found.groups,
        "identical_after_normalising_across": found.contents,
        "near_duplicates_across": found.near_duplicates if compared or found.near_duplicates else NOT_CHECKED,
    }
    if members.uncompared and compared:
        report["near_duplicates_not_checked"] = members.uncompared
    report["label_drift"] = _drift(members, splits)
    report |= _detectable_difference(members, splits, numeric=numeric)
    if found.near_duplicates and len(ids):
        code = _codes(splits)[members.pairs]
        across = members.pairs[(code[:, 0] != code[:, 1]) & (code >= 0).all(1)][:_PAIRS_SHOWN]
        report["near_duplicate_examples"] = [[str(ids[at]) for at in pair] for pair in across.tolist()]
    return report


def _drift(members: Members, splits: pa.ChunkedArray) -> float:
    """The largest difference between the share of a label in a split and in all: 0.1 is ten points."""
    code = _codes(splits)
    placed = code >= 0
    if not placed.any():
        return 0.0
    _, stratum = np.unique(members.strata[placed], return_inverse=True)
    both = np.zeros((int(code.max()) + 1, int(stratum.max()) + 1))
    np.add.at(both, (code[placed], stratum), 1)
    shares = both / both.sum(axis=1, keepdims=True)
    return round(float(np.abs(shares - both.sum(axis=0) / placed.sum()).max()), 4)


def _detectable_difference(members: Members, splits: pa.ChunkedArray, *, numeric: bool) -> SplitReport:
    """How many independent units a test split has, and what those can show by the planning formulas.

    These are about shares of right answers, so there are none where the label is a number. A verdict may show more, as
    far as answers within a group differ: `_at_best` counts rows.
    """
    tested = np.asarray(pc.fill_null(pc.equal(splits, "test"), False), bool)
    if splits.null_count == len(splits):
        return {}
    unit = components(members)
    if not tested.any():
        return {"units": len(np.unique(unit))}
    rows, units = int(tested.sum()), len(np.unique(unit[tested]))
    found: SplitReport = {"test_rows": rows, "test_units": units, "units": len(np.unique(unit))}
    if named := len(_texts(members.groups).filter(pa.array(tested)).drop_null().unique()):
        found["test_groups"] = named
    if numeric:
        return found
    found |= {"highest_target": highest_target(units), "smallest_difference": smallest_difference(units)}
    if rows > units:
        found["highest_target_at_best"] = highest_target(rows)
    return found


def append_rows(
    rows: pa.Table, modality: str, new: Mask, *, fractions: Mapping[str, float] = FRACTIONS, seed: int = 0,
    only_train: Mask | None = None, folders: Folders | None = None,
) -> pa.Table:  # fmt: skip
    """`rows` of which the `new` (N,), if usable, got a split; the others keep theirs, whatever its name.

    A new row that belongs with examples of several splits is refused: in any of them it would leak. A row with a split
    from before it was excluded comes back to it unless its component lies elsewhere by now. Rows of `only_train` (N,)
    may teach and never judge, as they were not drawn at random: they and the new rows that belong with them go to
    train, and where these belong to another split already they are refused.
    """
    usable = np.asarray(pc.equal(rows["quality"], "ok"), bool)
    places = np.flatnonzero(usable & (new | np.asarray(pc.is_valid(rows["split"]), bool)))
    if not new[places].any():
        return rows
    chosen = rows if len(places) == rows.num_rows else rows.take(pa.array(places))
    members, mine = members_of(chosen, modality, folders=folders), new[places]
    current = pc.if_else(pa.array(mine), None, chosen["split"].cast(pa.string()))
    joined = assign_appended(
        members, current, fractions, seed, pa.table({"key": members.keys, "split": chosen["split"]}).drop_null()
    )
    if only_train is not None and only_train[places].any():
        joined = _teach(components(members), joined, mine, only_train[places])
    asked, names = np.zeros(rows.num_rows, bool), joined.names.filter(pa.array(mine))
    asked[places[mine]] = True
    refused = asked.copy()
    refused[places[mine]] = np.asarray(names.is_null())
    why = [_why_refused(joined.several[at]) for at in np.flatnonzero(mine).tolist() if at in joined.several]
    for name, where, values in (
        ("split", asked, names),
        ("quality", refused, pa.array(["refused"] * len(why), pa.string())),
        ("reason", refused, pa.array(why, pa.string())),
    ):
        column = rows[name].cast(pa.string()).combine_chunks()
        rows = with_column(rows, name, pc.replace_with_mask(column, pa.array(where), values))
    return rows


class JoinedSplits(NamedTuple):
    names: pa.StringArray
    """(N,) the split of each member; null for one that would join several."""
    several: Mapping[int, frozenset[str]]
    """Those, by its place."""


def assign_appended(
    members: Members, current: Column, fractions: Mapping[str, float], seed: int, earlier: Kept = _NOTHING
) -> JoinedSplits:
    """For each member its `current` split or, if that is None, a new one; or the several splits that it would join.

    `earlier`: key -> its former split, for members whose component lies nowhere else.
    """
    encoded = _texts(current).combine_chunks().dictionary_encode()
    names, wanted = encoded.dictionary.to_pylist(), _wanted(fractions)
    code = np.asarray(pc.fill_null(encoded.indices.cast(pa.int64()), -1))
    number, asks = components(members), code < 0
    reached, times = _reached(number, asks, code, len(names))
    many = asks & (times[number] > 1)
    found = np.where(asks, np.where(many, -1, reached[number]), code)
    wanted_code = np.array([*(wanted.index(name) if name in wanted else -1 for name in names), -1])  # the last: of none
    kept, undecided = wanted_code[found], np.flatnonzero((found < 0) & ~many)
    kept[undecided] = _kept_codes(_take_column(members.keys, undecided), wanted, earlier)
    open_ = ~many & ((found < 0) | (kept >= 0))
    dealt = _assign(_select_members(members, open_), fractions, seed, _by_key(members.keys, kept)[open_])
    drawn = dealt.take(pa.array(np.cumsum(open_) - 1, mask=~open_))
    joined = pc.if_else(pa.array(found >= 0), _named(names, found), drawn)
    lies: dict[int, set[str]] = defaultdict(set)
    inside = np.isin(number, number[many]) & ~asks
    for each, at in zip(number[inside].tolist(), code[inside].tolist(), strict=True):
        lies[each].add(names[at])
    several = {place: frozenset(lies[int(number[place])]) for place in np.flatnonzero(many).tolist()}
    return JoinedSplits(joined, several)


def _reached(number: Codes, asks: Mask, code: Codes, splits: int) -> tuple[Codes, Codes]:
    """For each component in which a member `asks`: a split in which others lie, -1 without one, and how many splits."""
    count = int(number.max(initial=-1)) + 1
    open_ = np.zeros(count, bool)
    open_[number[asks]] = True
    inside = ~asks & open_[number]
    component, split = np.divmod(np.unique(number[inside] * max(splits, 1) + code[inside]), max(splits, 1))
    reached = np.full(count, -1)
    reached[component] = split
    return reached, np.bincount(component, minlength=count)


def _by_key(keys: Sequence[str] | pa.ChunkedArray, codes: Codes) -> Codes:
    """(N,) of members with one key all get the code of the last one that has any."""
    places, key = _repeated(keys)
    last = {at: code for at, code in zip(key.tolist(), codes[places].tolist(), strict=True) if code >= 0}
    if not last:
        return codes
    codes = codes.copy()
    codes[places] = [last.get(at, -1) for at in key.tolist()]
    return codes


def _teach(component: Codes, joined: JoinedSplits, new: Mask, only_train: Mask) -> JoinedSplits:
    """`joined` with the components of `only_train` in train, or, where older rows lie elsewhere, these rows refused."""
    count = int(component.max()) + 1
    settled, taught = np.zeros(count, bool), np.zeros(count, bool)
    settled[component[~new]] = True
    taught[component[only_train & new]] = True
    taught &= ~settled
    to_train = new & taught[component]
    several = {place: splits for place, splits in joined.several.items() if not to_train[place]}
    names = pc.if_else(pa.array(to_train), _TRAIN, joined.names)
    elsewhere = only_train & new & np.asarray(pc.fill_null(pc.not_equal(names, _TRAIN), False), bool)
    for place in np.flatnonzero(elsewhere).tolist():
        several[place] = frozenset({_TRAIN, names[place].as_py()})
    return JoinedSplits(pc.if_else(pa.array(elsewhere), None, names), several)


def readmit_refused(rows: pa.Table) -> pa.Table:
    """Makes rows usable again that were refused for the splits that they would have joined, before a new split."""
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


def _select_members(members: Members, mask: Mask) -> Members:
    """The members that `mask` chooses, with the pairs among them."""
    if mask.all():
        return members
    places, number = np.flatnonzero(mask), np.cumsum(mask) - 1
    pairs = members.pairs[mask[members.pairs].all(axis=1)]
    return Members(
        _take_column(members.keys, places),
        _take_column(members.groups, places),
        _take_column(members.contents, places),
        members.strata[places],
        number[pairs],
    )


def _take_column(column: Any, places: Codes) -> Any:
    if isinstance(column, pa.ChunkedArray | pa.Array):
        return column.take(pa.array(places))
    return [column[place] for place in places.tolist()]


def group_names(rows: pa.Table, modality: str, names: Sequence[str]) -> pa.Array:
    """The group of each row; without one, the least group of its copies and near-duplicates, or the least of their
    `names`.

    It preserves near-duplicates of rows whose sketches are about to go, such as windows.
    """
    component = components(members_of(rows, modality)).tolist()
    groups = rows["group_key"].to_pylist()
    grouped: dict[int, list[str]] = defaultdict(list)
    for code, group in zip(component, groups, strict=True):
        if group is not None:
            grouped[code].append(group)
    smallest: dict[int, str] = {}
    for code, name in zip(component, names, strict=True):
        smallest[code] = min(smallest.get(code, name), name)
    found = [
        group if group is not None else min(grouped[code], default=smallest[code])
        for code, group in zip(component, groups, strict=True)
    ]
    return pa.array(found, pa.string())


def find_missing_labels(rows: pa.Table, members: Members, *, made: bool) -> list[MissingLabel]:
    """Labels that some split lacks, the commonest first, at most 50.

    `rows`: usable ones, as `members` has them. `made`: whether the split was made here. Numbers are no classes, nor are
    texts most of which occur once.
    """
    label = rows["label"]
    if pa.types.is_floating(label.type):
        return []
    label = label.cast(pa.string())
    counts = {each["values"]: each["counts"] for each in pc.value_counts(label.drop_null()).to_pylist()}
    names = set(pc.unique(rows["split"]).to_pylist())
    there = [name for name in ("train", "validation", "test") if name in names]
    if len(there) < 2 or 2 * sum(count == 1 for count in counts.values()) > sum(counts.values()):
        return []
    pairs = pa.table({"label": label, "split": rows["split"]}).group_by(["label", "split"]).aggregate([])
    both = set(zip(pairs["label"].to_pylist(), pairs["split"].to_pylist(), strict=True))
    lacking = {each: [name for name in there if (each, name) not in both] for each in counts}
    found = sorted((each for each in counts if lacking[each]), key=lambda each: (-counts[each], each))
    component = components(members) if found and made else np.zeros(0, np.int64)
    lacks = list[MissingLabel]()
    for each in found[:_KEPT]:
        places = np.flatnonzero(np.asarray(pc.equal(label, each).fill_null(False)))
        why = (
            _reason_missing(rows, members, component, places, len(there))
            if made
            else "the source's own split has it so"
        )
        lacks.append({"label": each, "examples": counts[each], "splits": lacking[each], "why": why})
    return lacks


def _reason_missing(
    rows: pa.Table, members: Members, component: npt.NDArray[np.int64], places: _Places, splits: int
) -> str:
    count, together = len(places), len(np.unique(component[places]))
    if count == 1:
        return "it is the only one"
    if together == 1:
        return f"its {count} examples {_reason_of_duplicates(rows.take(pa.array(places)), members, places)}"
    if together < splits:
        stay = f", of which {together} sets stay together as groups or near-duplicates" if together < count else ""
        return f"it has {count} examples{stay}"
    return f"the shares left none of its {count} examples, in {together} sets that stay together"


def _reason_of_duplicates(rows: pa.Table, members: Members, places: _Places) -> str:
    group = rows["group_key"]
    if not group.null_count and len(group.unique()) == 1:
        return "are of one group"
    if len(rows[FINGERPRINT].unique()) == 1:
        return "are identical"
    near = np.isin(members.pairs, places).all(axis=1).any() if len(members.pairs) else False
    return "are near-duplicates of one another and stay together" if near else "stay together as groups or copies"
