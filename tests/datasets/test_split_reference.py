"""Splits against a plain reading of their rule, member by member.

The same members, seed and fractions give the same split in every version of this software: whoever makes a split again
must find the test rows of before. So the references here are exact, down to ties and hashes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from math import floor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.datasets import splits as splits_module
from speciate.datasets.columns import CONTENT, FINGERPRINT, KEY, ORIGIN, SKETCH
from speciate.datasets.similarity import near_duplicates
from speciate.datasets.splits import (
    Members,
    append_rows,
    assign_appended,
    assign_splits,
    audit_split,
    components,
    count_leaks,
    group_names,
    members_of,
    near_pairs,
    split_rows,
    units_without_copies,
)
from speciate.modalities.hashing import TEXT_SKETCHES, mix
from speciate.workspace.workspace import Folders
from tests.datasets import sealed
from tests.drawn import drawn

WANTED = st.sampled_from(
    [
        {"train": 0.7, "validation": 0.15, "test": 0.15}, {"train": 0.5, "test": 0.5}, {"train": 3.0, "test": 1.0},
        {"train": 0.8, "validation": 0.0, "test": 0.2}, {"train": 1.0}, {"train": 0.1, "validation": 0.3, "test": 0.6},
    ]
)  # fmt: skip
NAMES = ["train", "validation", "test", "holdout", None]


class Case(NamedTuple):
    keys: list[str]
    groups: list[str | None]
    contents: list[str | None]
    strata: list[int]
    pairs: list[tuple[int, int]]
    form: str

    def members(self) -> Members:
        pairs = np.array(self.pairs, np.int64).reshape(-1, 2)
        texts: Any = [as_column(each, self.form) for each in (self.keys, self.groups, self.contents)]
        return Members(texts[0] if self.form != "array" else self.keys, *texts[1:], np.array(self.strata), pairs)


def as_column(values: Sequence[str | None], form: str) -> Any:
    if form == "list":
        return list(values)
    if form == "array":
        return pa.array(values, pa.string())
    return pa.chunked_array([pa.array(values[:3], pa.string()), pa.array(values[3:], pa.string())])


@st.composite
def cases(draw: st.DrawFn, least: int = 1, most: int = 24, *, keys_may_repeat: bool = False) -> Case:
    count = draw(st.integers(least, most))
    few, many = st.none() | st.sampled_from("abcdef"), st.none() | st.sampled_from("abcdefghijklmnopqrstuvwxyz")
    values = draw(st.sampled_from([st.none(), few, many]))
    place = st.integers(0, max(count - 1, 0))
    numbers = draw(st.permutations(range(count)))
    if keys_may_repeat:
        numbers = [number // 2 for number in numbers]
    digests = draw(st.booleans())
    return Case(
        [hashlib.sha256(str(at).encode()).hexdigest() if digests else f"k{at}" for at in numbers],
        draw(st.lists(values, min_size=count, max_size=count)), draw(st.lists(values, min_size=count, max_size=count)),
        draw(st.lists(st.sampled_from([0, 1, 3]), min_size=count, max_size=count)),
        draw(st.lists(st.tuples(place, place), max_size=4)) if count else [],
        draw(st.sampled_from(["list", "array", "chunks"])),
    )  # fmt: skip


# The references


def parts(groups: Sequence[Any], contents: Sequence[Any], pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Places that hang together by a group, a content or a pair, in the order of their first ones."""
    found = [{at} for at in range(len(groups))]
    edges = [*pairs]
    for column in (groups, contents):
        edges += [(column.index(value), at) for at, value in enumerate(column) if value is not None]
    for a, b in edges:
        joined = set().union(*(part for part in found if part & {a, b}))
        found = [part for part in found if not part & joined] + [joined]
    return sorted(sorted(part) for part in found)


def plain_hash(key: str, seed: int) -> int:
    if len(key) == 64:
        salt = mix(np.array([seed + 1], np.uint64))
        return int(mix(np.array([int(key[:16], 16)], np.uint64) ^ salt)[0])
    return int.from_bytes(hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest(), "little")


def plain_split(
    case: Case, fractions: Mapping[str, float], seed: int, kept: Sequence[str | None], one_by_one: int
) -> list[str]:
    """The split of each; `kept`: the one that each had before."""
    names = [name for name, fraction in fractions.items() if fraction > 0]
    shares = [fractions[name] / sum(fractions.values()) for name in names]
    kinds = range(max(case.strata) + 1)
    want = [[share * case.strata.count(kind) for kind in kinds] for share in shares]
    have = [[0.0 for _ in kinds] for _ in shares]
    together = parts(case.groups, case.contents, case.pairs)
    places = [min(plain_hash(case.keys[at], seed) for at in part) for part in together]
    chosen: dict[int, int] = {}

    def put(number: int, name: int) -> None:
        chosen[number] = name
        for at in together[number]:
            have[name][case.strata[at]] += 1

    for number, part in enumerate(together):
        if before := [names.index(name) for at in part if (name := kept[at]) in names]:
            put(number, min(before))
    rest = [number for number in range(len(together)) if number not in chosen]
    rest.sort(key=lambda number: (-len(together[number]), places[number]))
    for number in rest[:one_by_one]:
        put(number, _lacks_most(Counter(case.strata[at] for at in together[number]), want, have))

    line = [(min(case.strata[at] for at in together[number]), number) for number in rest[one_by_one:]]
    line.sort(key=lambda each: (each[0], len(together[each[1]]), places[each[1]]))
    lack = [[max(want[name][kind] - have[name][kind], 0.0) for kind in kinds] for name in range(len(names))]
    for kind in kinds:
        if sum(row[kind] for row in lack) <= 0:
            for row, share in zip(lack, shares, strict=True):
                row[kind] = share
    for name in range(len(names) - 1, 0, -1):
        sum_, left = 0.0, []
        for kind, number in line:
            before_it = floor(sum_ + 0.5)
            sum_ += lack[name][kind] / max(sum(row[kind] for row in lack[: name + 1]), 1e-9)
            if floor(sum_ + 0.5) > before_it:
                chosen[number] = name
            else:
                left.append((kind, number))
        line = left
    chosen |= {number: 0 for _, number in line}

    for name in range(len(names) - 1, -1, -1):  # none stays empty
        of = Counter(chosen.values())
        free = [number for number in rest if of[chosen[number]] > 1]
        if len(together) >= len(names) and not of[name] and free:
            wanted = sum(want[name])
            chosen[min(free, key=lambda number: (abs(len(together[number]) - wanted), places[number]))] = name
    splits = {at: names[chosen[number]] for number, part in enumerate(together) for at in part}
    return [splits[at] for at in range(len(case.keys))]


def _lacks_most(counts: Counter[int], want: list[list[float]], have: list[list[float]]) -> int:
    size, lacks = sum(counts.values()), []
    for wanted, there in zip(want, have, strict=True):
        whole = max(sum(wanted), 1e-9)
        lack = (whole - sum(there) - size) / whole
        per_label = 0.0
        for kind, count in sorted(counts.items()):
            of_kind = max(wanted[kind], 1e-9)
            per_label += (of_kind - there[kind] - count) / of_kind * (count / size)
        lacks.append(lack + per_label)
    return lacks.index(max(lacks))


def few_one_by_one(patch: pytest.MonkeyPatch, count: int) -> None:
    patch.setattr(splits_module, "_ONE_BY_ONE", count)


# Splits


@given(cases(least=0), WANTED, st.integers(0, 3), st.sampled_from([0, 1, 4, 5000]), st.data())
@settings(deadline=None, max_examples=drawn(200, 100))
def test_a_split_is_the_one_of_the_rule(
    case: Case, fractions: dict[str, float], seed: int, one_by_one: int, data: st.DataObject
) -> None:
    kept = data.draw(st.lists(st.sampled_from(NAMES), min_size=len(case.keys), max_size=len(case.keys)))
    if data.draw(st.booleans()):
        kept = [None] * len(kept)
    before: Any = {key: name for key, name in zip(case.keys, kept, strict=True) if name is not None} | {"gone": "test"}
    if data.draw(st.booleans()):  # of a key that is there twice the last counts
        keys, names = [*reversed(case.keys), *before], ["train"] * len(kept) + [*before.values()]
        before = pa.table({"key": pa.array(keys, pa.large_string()), "split": names})
        kept = ["train" if name is None else name for name in kept]
    with pytest.MonkeyPatch.context() as patch:
        few_one_by_one(patch, one_by_one)
        found = assign_splits(case.members(), fractions, seed, before)
    assert found.type == pa.string()
    if case.keys:
        assert found.to_pylist() == plain_split(case, fractions, seed, kept, one_by_one)
    else:
        assert found.to_pylist() == []


def test_a_split_is_made_with_seed_0_and_the_usual_fractions_and_of_5000_one_by_one() -> None:
    count = 5003
    case = Case([f"k{at}" for at in range(count)], [None] * count, [None] * count, [0] * count, [], "list")
    kept: list[str | None] = [None] * count
    fractions = {"train": 0.7, "validation": 0.15, "test": 0.15}
    few = Case(*(each[:40] for each in case[:4]), [], "list")
    assert assign_splits(few.members()).to_pylist() == plain_split(few, fractions, 0, kept, 5000)
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits_module._Assignment, "_one_by_one", lambda self, chosen: asked.append(len(chosen)))
        patch.setattr(splits_module._Assignment, "_fill", lambda self, *_: None)
        splits_module.assign_splits(case.members())
    assert asked == [5000]


# Appending


def plain_append(
    case: Case, current: list[str | None], fractions: Mapping[str, float], seed: int, earlier: Mapping[str, str]
) -> tuple[list[str | None], dict[int, frozenset[str]]]:
    wanted = [name for name, fraction in fractions.items() if fraction > 0]
    names, several = [*current], dict[int, frozenset[str]]()
    for part in parts(case.groups, case.contents, case.pairs):
        lies = frozenset(name for at in part if (name := current[at]) is not None)
        for at in part:
            if current[at] is None and len(lies) > 1:
                several[at] = lies
            elif current[at] is None and lies:
                (names[at],) = lies
    dealt = [at for at in range(len(names)) if at not in several and (names[at] in wanted or names[at] is None)]
    kept = {at: names[at] if names[at] is not None else earlier.get(case.keys[at]) for at in dealt}
    last = {case.keys[at]: name for at, name in kept.items() if name in wanted}
    if not dealt:
        return names, several
    moved = {old: new for new, old in enumerate(dealt)}
    chosen = Case(
        *([column[at] for at in dealt] for column in case[:4]),
        [(moved[a], moved[b]) for a, b in case.pairs if a in moved and b in moved], case.form,
    )  # fmt: skip
    found = plain_split(chosen, fractions, seed, [last.get(key) for key in chosen.keys], 5000)
    for at, name in zip(dealt, found, strict=True):
        if names[at] is None:
            names[at] = name
    return names, several


@given(cases(keys_may_repeat=True), WANTED, st.integers(0, 2), st.data())
@settings(deadline=None, max_examples=drawn(200, 100))
def test_appended_members_go_where_the_rule_says(
    case: Case, fractions: dict[str, float], seed: int, data: st.DataObject
) -> None:
    count = len(case.keys)
    lies = data.draw(st.sampled_from([["train", None], ["test", "train", None, None], NAMES]))
    current = data.draw(st.lists(st.sampled_from(lies), min_size=count, max_size=count))
    earlier = data.draw(st.dictionaries(st.sampled_from(case.keys), st.sampled_from(["test", "train", "holdout"])))
    column = as_column(current, case.form)
    found = assign_appended(case.members(), column, fractions, seed, earlier)
    names, several = plain_append(case, current, fractions, seed, earlier)
    assert found.names.to_pylist() == names
    assert found.several == several


def plain_append_rows(
    case: Case, rows: Sequence[_Row], fractions: Mapping[str, float], seed: int
) -> list[tuple[str | None, str, str | None]]:
    """Split, quality and reason of each row afterwards."""
    took = [at for at, row in enumerate(rows) if row.quality == "ok" and (row.new or row.split is not None)]
    chosen = Case(*([column[at] for at in took] for column in case[:4]), [], "list")
    mine = [rows[at].new for at in took]
    current = [None if rows[at].new else rows[at].split for at in took]
    earlier = {case.keys[at]: name for at in took if (name := rows[at].split) is not None}
    names, refusals = list[str | None](), dict[int, frozenset[str]]()
    if took:
        names, refusals = plain_append(chosen, current, fractions, seed, earlier)
    for part in parts(chosen.groups, chosen.contents, []):
        teach = [at for at in part if mine[at] and rows[took[at]].only_train]
        for at in part if teach and all(mine[at] for at in part) else []:
            names[at] = "train"
            refusals.pop(at, None)
        for at in teach:
            if (name := names[at]) not in ("train", None):
                names[at], refusals[at] = None, frozenset({"train", str(name)})
    found = [(row.split, row.quality, row.reason) for row in rows]
    for at, place in enumerate(took):
        if mine[at] and at in refusals:
            *before, last = sorted(refusals[at])
            said = f"{', '.join(map(repr, before))} and {last!r}: in any of them it would leak."
            found[place] = (None, "refused", f"Its group or near-duplicates lie in the splits {said}")
        elif mine[at]:
            found[place] = (names[at], "ok", rows[place].reason)
    return found


class _Row(NamedTuple):
    split: str | None
    quality: str
    reason: str | None
    new: bool
    only_train: bool


ROWS = st.builds(
    _Row,
    split=st.sampled_from(NAMES), quality=st.sampled_from(["ok", "ok", "ok", "excluded"]),
    reason=st.sampled_from([None, "as told"]), new=st.booleans(), only_train=st.sampled_from([False, False, True]),
)  # fmt: skip


@given(cases(keys_may_repeat=True), WANTED, st.integers(0, 2), st.booleans(), st.data())
@settings(deadline=None, max_examples=drawn(200, 100))
def test_appended_rows_go_where_the_rule_says_and_others_stay_as_they_are(
    case: Case, fractions: dict[str, float], seed: int, teaching: bool, data: st.DataObject
) -> None:
    count = len(case.keys)
    rows = data.draw(st.lists(ROWS, min_size=count, max_size=count))
    if not teaching:
        rows = [row._replace(only_train=False) for row in rows]
    elif data.draw(st.booleans()):
        rows = [row._replace(split=row.split and "train") for row in rows]
    table = as_table(case, rows)
    given_ = {"only_train": np.array([row.only_train for row in rows])} if teaching else {}
    new = np.array([row.new for row in rows])
    found = append_rows(table, "tabular", new, fractions=fractions, seed=seed, **given_)  # type: ignore[arg-type]
    after = zip(*(found[name].to_pylist() for name in ("split", "quality", "reason")), strict=True)
    assert list(after) == plain_append_rows(case, rows, fractions, seed)
    assert found.column_names == table.column_names
    assert found["id"].equals(table["id"])
    assert {str(found.schema.field(name).type) for name in ("split", "quality", "reason")} == {"string"}


def as_table(case: Case, rows: Sequence[_Row]) -> pa.Table:
    return sealed.rows(
        {
            "id": [f"r{at}" for at in range(len(rows))], KEY: case.keys, "group_key": case.groups,
            FINGERPRINT: case.contents, "label": [None if kind == 0 else f"l{kind}" for kind in case.strata],
            "split": [row.split for row in rows], "quality": [row.quality for row in rows],
            "reason": [row.reason for row in rows],
        }
    )  # fmt: skip


def test_rows_are_appended_by_the_usual_fractions_and_seed_0() -> None:
    count = 60
    case = Case([f"k{at}" for at in range(count)], [None] * count, [None] * count, [0] * count, [], "list")
    rows = [_Row(None, "ok", None, new=True, only_train=False)] * count
    usual = {"train": 0.7, "validation": 0.15, "test": 0.15}
    found = append_rows(as_table(case, rows), "tabular", np.ones(count, bool))
    assert found["split"].to_pylist() == plain_split(case, usual, 0, [None] * count, 5000)
    again = split_rows(as_table(case, rows), "tabular")
    assert again.splits.to_pylist() == found["split"].to_pylist()


# Rows of media, whose sketches tell what is nearly equal


def sketched(count: int, **columns: Sequence[Any]) -> pa.Table:
    """Texts of which each even one and the next are nearly equal, and the last two are unlike all."""
    rng = np.random.default_rng(0)
    sketches = np.repeat(rng.integers(0, 256, (count // 2, TEXT_SKETCHES.width), np.uint8), 2, axis=0)
    sketches[1::2, :2] ^= 1
    sketches[-1] = rng.integers(0, 256, TEXT_SKETCHES.width, np.uint8)
    names = [f"n{at}" for at in range(count)]
    return sealed.rows({"id": names, KEY: names, FINGERPRINT: names, SKETCH: [*map(bytes, sketches)], **columns})


def test_nearly_equal_rows_are_members_that_stay_together_and_group_names_say_so() -> None:
    table = sketched(10, label=["x"] * 10)
    assert near_pairs(table, "text").tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert components(members_of(table, "text")).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 5]
    assert members_of(table, "text").uncompared == 0
    assert group_names(table, "text", list("badcfehgji")).to_pylist() == list("aacceeggji")
    bare = near_pairs(table.drop_columns([SKETCH]), "text")
    assert (bare.shape, bare.dtype) == ((0, 2), np.int64)
    new = np.arange(10) % 2 == 1
    split = ["train", None, "test", None, "validation", None, "holdout", None, "test", None]
    joined = append_rows(table.set_column(table.schema.get_field_index("split"), "split", pa.array(split)), "text", new)
    assert joined["split"].to_pylist()[:8] == [name for name in split[:8:2] for _ in range(2)]
    made = split_rows(table.set_column(table.schema.get_field_index("split"), "split", pa.nulls(10)), "text")
    assert made.audit["near_duplicates_across"] == 0
    assert all(made.splits[at] == made.splits[at + 1] for at in range(0, 8, 2))


def test_an_audit_of_a_new_split_names_rows_that_earlier_ones_tore_apart() -> None:
    table = sketched(4, split=["train", "test", None, None], label=["x"] * 4, group_key=[None, None, "g", "h"])
    kept = split_rows(table, "text", fractions={"train": 0.5, "test": 0.5})
    assert kept.splits.to_pylist()[:2] == ["train", "train"], "where a model may have learned from one"
    torn = audit_split(members_of(table, "text"), table["split"], table["id"])
    assert torn["near_duplicate_examples"] == [["n0", "n1"]]


def test_the_workspace_that_remembers_pairs_is_asked(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, pairs = list[object](), near_duplicates.near_duplicate_pairs

    def noted(*arguments: Any, folders: Any = None) -> Any:
        asked.append(folders)
        return pairs(*arguments)

    monkeypatch.setattr(near_duplicates, "near_duplicate_pairs", noted)
    table, folders = sketched(4, label=["x"] * 4), Folders(tmp_path)
    near_pairs(table, "text", folders)
    members_of(table, "text", folders=folders)
    append_rows(table, "text", np.array([True, False, False, False]), folders=folders)
    assert asked == [folders] * 3


def test_rows_without_keys_are_known_by_their_content_and_those_without_either_are_alike() -> None:
    table = sealed.rows({"id": list("abc"), KEY: ["k", None, None], CONTENT: ["x", "y", None], "label": ["l"] * 3})
    assert list(members_of(table, "tabular").keys.to_pylist()) == ["k", "None", "None"]  # type: ignore[union-attr]
    bare = members_of(table.drop_columns([KEY]), "tabular")
    assert bare.keys.to_pylist() == ["x", "y", "None"]  # type: ignore[union-attr]
    assert ORIGIN not in table.column_names


# Audits


@given(cases(least=0), st.data())
@settings(deadline=None)
def test_units_leaks_and_drift_are_those_that_one_counts_by_hand(case: Case, data: st.DataObject) -> None:
    count = len(case.keys)
    splits = data.draw(st.lists(st.sampled_from(["train", "test", "b", None]), min_size=count, max_size=count))
    members, names = case.members(), as_column(splits, case.form)
    together = parts(case.groups, case.contents, case.pairs)
    numbers = {at: number for number, part in enumerate(together) for at in part}
    assert components(members).tolist() == [numbers[at] for at in range(count)]

    crossing = [
        len(_splits_of(column, splits, value)) for column in (case.groups, case.contents) for value in {*column}
    ]
    of_groups = len({*case.groups})
    assert count_leaks(members, names) == (
        sum(each > 1 for each in crossing[:of_groups]), sum(each > 1 for each in crossing[of_groups:]),
        sum(None not in (splits[a], splits[b]) and splits[a] != splits[b] for a, b in case.pairs),
    )  # fmt: skip

    placed = [at for at in range(count) if splits[at] is not None]
    gaps = [0.0]
    for name in {splits[at] for at in placed}:
        inside = [case.strata[at] for at in placed if splits[at] == name]
        for kind in {case.strata[at] for at in placed}:
            everywhere = sum(case.strata[at] == kind for at in placed) / len(placed)
            gaps.append(abs(inside.count(kind) / len(inside) - everywhere))
    assert audit_split(members, names)["label_drift"] == pytest.approx(max(gaps), abs=5.1e-5)


def _splits_of(column: list[str | None], splits: list[str | None], value: str | None) -> set[str]:
    return {
        name for each, name in zip(column, splits, strict=True) if None not in (value, name) and each == value and name
    }


@given(cases(least=0), st.data())
@settings(deadline=None)
def test_units_without_copies_are_those_of_the_first_row_of_each_content(case: Case, data: st.DataObject) -> None:
    count = len(case.keys)
    copies = data.draw(st.lists(st.none() | st.sampled_from("xyz"), min_size=count, max_size=count))
    first = [at if copies[at] is None else copies.index(copies[at]) for at in range(count)]
    stay = [at for at in range(count) if first[at] == at]
    pairs = [(stay.index(first[a]), stay.index(first[b])) for a, b in case.pairs]
    expected = parts([case.groups[at] for at in stay], [case.contents[at] for at in stay], pairs)
    assert units_without_copies(case.members(), as_column(copies, case.form)) == len(expected)
