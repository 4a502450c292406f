"""Splits never leak, whatever the examples: properties, not examples."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.datasets import splits as splits_module
from speciate.datasets.columns import FINGERPRINT, KEY
from speciate.datasets.split_warnings import few_units_warnings
from speciate.datasets.splits import (
    FRACTIONS,
    Members,
    append_rows,
    assign_appended,
    components,
    count_leaks,
    readmit_refused,
    strata,
)
from speciate.datasets.versions import version
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets import sealed

WANTED = {"train": 0.7, "validation": 0.15, "test": 0.15}


class Member(NamedTuple):
    key: str
    group: str | None
    content: str
    stratum: str


def columns(members: Sequence[Member], pairs: Sequence[tuple[int, int]] = ()) -> Members:
    return Members(
        [m.key for m in members],
        [m.group for m in members],
        [m.content for m in members],
        strata([m.stratum for m in members]),
        np.array(pairs, np.int64).reshape(-1, 2),
    )


def assign_splits(
    members: Members, fractions: Mapping[str, float] = FRACTIONS, seed: int = 0, kept: splits_module.Kept | None = None
) -> list[str]:
    return list(splits_module.assign_splits(members, fractions, seed, kept or {}).to_pylist())


def alone(count: int, classes: int = 1) -> list[Member]:
    return [Member(f"{i:07}", None, f"c{i}", str(i % classes)) for i in range(count)]


texts = st.text("abcdef", min_size=1, max_size=2)
members_strategy = st.lists(
    st.builds(
        Member,
        key=st.text("0123456789abcdef", min_size=8, max_size=8),
        group=st.none() | texts,
        content=st.text("uvwxyz", min_size=1, max_size=3),
        stratum=st.sampled_from(["good", "bad", "rare"]),
    ),
    min_size=1,
    max_size=120,
    unique_by=lambda member: member.key,
)


@pytest.fixture(params=["one by one", "at once"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few components are dealt out one by one, many at once: both must keep every promise."""
    if request.param == "at once":
        monkeypatch.setattr(splits_module, "_ONE_BY_ONE", 3)


@settings(deadline=None)
@given(members_strategy, st.integers(0, 5), st.data())
def test_a_split_never_crosses_a_group_identical_content_or_a_near_duplicate(
    members: list[Member], seed: int, data: st.DataObject
) -> None:
    place = st.integers(0, len(members) - 1)
    found = columns(members, data.draw(st.lists(st.tuples(place, place), max_size=5)))
    for one_by_one in (3, 5000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(splits_module, "_ONE_BY_ONE", one_by_one)
            assert count_leaks(found, assign_splits(found, seed=seed)) == (0, 0, 0)


def test_a_plain_random_split_does_cross() -> None:
    members = [Member(f"{i:05}", f"patient-{i // 4}", f"c{i // 2}", "x") for i in range(400)]
    found = columns(members, [(i, i + 4) for i in range(0, 396, 8)])
    rng = random.Random(0)
    plain = rng.choices(list(WANTED), list(WANTED.values()), k=len(members))
    assert min(count_leaks(found, plain)) > 10
    assert count_leaks(found, assign_splits(found)) == (0, 0, 0)


@settings(deadline=None)
@given(members_strategy, st.randoms(use_true_random=False))
def test_a_split_does_not_depend_on_the_order(members: list[Member], rng: random.Random) -> None:
    shuffled = list(members)
    rng.shuffle(shuffled)
    for one_by_one in (3, 5000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(splits_module, "_ONE_BY_ONE", one_by_one)
            first = dict(zip([m.key for m in members], assign_splits(columns(members)), strict=True))
            assert dict(zip([m.key for m in shuffled], assign_splits(columns(shuffled)), strict=True)) == first


@settings(deadline=None)
@given(members_strategy, members_strategy)
def test_added_examples_move_an_old_one_only_where_they_join_it_to_others(old: list[Member], new: list[Member]) -> None:
    first = dict(zip([m.key for m in old], assign_splits(columns(old)), strict=True))
    members = columns(old + [m for m in new if m.key not in first])
    second = assign_splits(members, kept=first)
    assert count_leaks(members, second) == (0, 0, 0)
    for names in _by_component(members, second, first):
        if len(names.earlier) == 1:
            assert names.now == names.earlier
        elif names.earlier:
            assert names.now == {next(name for name in ("train", "validation") if name in names.earlier)}


class _Names(NamedTuple):
    earlier: set[str]
    now: set[str]


def _by_component(members: Members, now: Sequence[str], first: dict[str, str]) -> list[_Names]:
    found: dict[int, _Names] = {}
    for number, key, name in zip(components(members).tolist(), members.keys, now, strict=True):
        names = found.setdefault(number, _Names(set(), set()))
        names.now.add(name)
        if key in first:
            names.earlier.add(first[key])
    return list(found.values())


@settings(deadline=None)
@given(st.integers(20, 200), st.integers(1, 200))
def test_shares_stay_near_while_a_set_grows_and_nothing_moves(count: int, added: int) -> None:
    members = [Member(f"{i * 7919 % 10007:05}", None, f"c{i}", "ab"[i % 2]) for i in range(count + added)]
    first = dict(zip([m.key for m in members], assign_splits(columns(members[:count])), strict=False))
    second = assign_splits(columns(members), kept=first)
    assert second[:count] == list(first.values())
    for name, wanted in WANTED.items():
        assert abs(second.count(name) - wanted * len(members)) <= 3


@settings(deadline=None)
@given(st.integers(20, 400), st.integers(0, 3), st.sampled_from([2, 3, 7]))
def test_fractions_and_labels_come_near_to_the_request(count: int, seed: int, classes: int) -> None:
    members = alone(count, classes)
    for one_by_one in (0, 5000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(splits_module, "_ONE_BY_ONE", one_by_one)
            names = assign_splits(columns(members), WANTED, seed)
        for name, share in Counter(names).items():
            assert abs(share - WANTED[name] * count) <= classes + 1
        for stratum in range(classes):
            inside = [name for name, member in zip(names, members, strict=True) if member.stratum == str(stratum)]
            assert abs(inside.count("train") - 0.7 * len(inside)) <= 2


def test_many_groups_of_many_sizes_keep_shares_and_labels() -> None:
    rng = random.Random(1)
    members = []
    for group in range(12_000):
        label = rng.choice("aaab")
        members += [Member(f"{group}/{i}", f"g{group}", f"{group}/{i}", label) for i in range(rng.randint(1, 9))]
    found = columns(members)
    names = assign_splits(found)
    assert count_leaks(found, names) == (0, 0, 0)
    for label in "ab":
        inside = [name for name, member in zip(names, members, strict=True) if member.stratum == label]
        for name, wanted in WANTED.items():
            assert abs(inside.count(name) / len(inside) - wanted) < 0.005


def test_a_split_that_is_not_wanted_gets_nothing() -> None:
    for count in (50, 9000):
        assert set(assign_splits(columns(alone(count)), {"train": 0.8, "validation": 0, "test": 0.2})) == {
            "train",
            "test",
        }


def test_nothing_to_split() -> None:
    assert assign_splits(Members([], [], [], strata([]))) == []


@pytest.mark.usefixtures("_either_way")
def test_another_seed_gives_another_split() -> None:
    members = columns(alone(100))
    assert assign_splits(members, seed=0) != assign_splits(members, seed=1)
    assert assign_splits(members, seed=1) == assign_splits(members, seed=1)


def test_one_group_stays_whole_in_training() -> None:
    members = [Member(f"{i:05}", "only", f"c{i}", "x") for i in range(10)]
    assert set(assign_splits(columns(members))) == {"train"}


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=3, max_size=12), st.integers(0, 3))
def test_no_split_stays_empty_while_there_are_as_many_groups(sizes: list[int], seed: int) -> None:
    members = [Member(f"{g}/{i}", f"g{g}", f"{g}/{i}", "x") for g, size in enumerate(sizes) for i in range(size)]
    for one_by_one in (0, 5000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(splits_module, "_ONE_BY_ONE", one_by_one)
            names = assign_splits(columns(members), WANTED, seed)
        assert set(names) == set(WANTED)
        assert count_leaks(columns(members), names) == (0, 0, 0)


def test_new_groups_fill_empty_splits_and_old_ones_stay() -> None:
    members = [Member(f"{i:02}", f"g{i // 10}", f"c{i}", "x") for i in range(40)]
    first = assign_splits(columns(members[:10]))
    assert set(first) == {"train"}
    second = assign_splits(columns(members[:20]), kept=dict(zip([m.key for m in members], first, strict=False)))
    assert second[:10] == first
    third = assign_splits(columns(members), kept=dict(zip([m.key for m in members], second, strict=False)))
    assert third[:20] == second
    assert set(third) == set(WANTED)


def test_groups_copies_and_near_duplicates_chain() -> None:
    members = [
        Member("a", "patient-1", "scan", "x"),
        Member("b", "patient-2", "scan", "x"),
        Member("c", "patient-2", "other", "x"),
        Member("d", None, "alone", "x"),
        Member("e", None, "near d", "x"),
    ]
    found = components(columns(members, [(3, 4)])).tolist()
    assert sorted(Counter(found).values()) == [2, 3]


def test_two_examples_without_content_are_not_the_same() -> None:
    members = Members(["a", "b"], [None, None], [None, None], strata(["x", "x"]))
    assert len(set(components(members).tolist())) == 2


@pytest.mark.parametrize("labels", [[1.0, 2.0, 3.0, None], ["a", "b", None], [], [5.0] * 4])
def test_every_label_has_a_stratum(labels: list[str | float | None]) -> None:
    found = strata(labels)
    assert len(found) == len(labels)
    assert (found >= 0).all()


def test_numbers_are_balanced_by_tenths() -> None:
    assert sorted(Counter(strata([float(i) for i in range(100)]).tolist()).values()) == [10] * 10


def _ungrouped(labels: Sequence[str]) -> Members:
    return Members([f"{i:07}" for i in range(len(labels))], [None] * len(labels), [None] * len(labels), strata(labels))


def test_texts_that_occur_once_are_no_classes() -> None:
    message = [f"what is said in recording {i}" for i in range(200)] + ["yes"] * 20
    dealt = assign_splits(_ungrouped(message), seed=3)
    assert Counter(dealt[:200])["test"] == pytest.approx(30, abs=6)
    rare = ["cat", "dog"] * 60 + ["owl"]  # one of a class stays where it is learned
    assert assign_splits(_ungrouped(rare))[-1] == "train"


NAMES = [None, "train", "validation", "test", "holdout"]
GROUPS = st.none() | st.sampled_from("abcd")


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[Members, list[str | None]]:
    """Members of which those with a split lie in it already; where these leak among themselves it is not our doing."""
    count = draw(st.integers(1, 14))
    groups = draw(st.lists(GROUPS, min_size=count, max_size=count))
    contents = draw(st.lists(GROUPS, min_size=count, max_size=count))
    places = st.integers(0, count - 1)
    pairs = draw(st.lists(st.tuples(places, places).filter(lambda pair: pair[0] < pair[1]), max_size=8))
    lies = draw(st.lists(st.sampled_from(NAMES), min_size=count, max_size=count))
    keys = [f"k{i}" for i in draw(st.permutations(range(count)))]
    near = np.array(pairs, np.int64).reshape(-1, 2)
    return Members(keys, groups, contents, np.zeros(count, np.int64), near), lies


@settings(deadline=None)
@given(arrivals())
def test_appended_rows_add_no_leak(case: tuple[Members, list[str | None]]) -> None:
    members, lies = case
    after = assign_appended(members, lies, FRACTIONS, seed=0).names.to_pylist()
    assert all(was is None or was == now for was, now in zip(lies, after, strict=True))
    assert count_leaks(members, after) == count_leaks(members, lies)


@settings(deadline=None)
@given(arrivals())
def test_only_rows_that_join_several_splits_are_refused(case: tuple[Members, list[str | None]]) -> None:
    members, lies = case
    joined = assign_appended(members, lies, FRACTIONS, seed=0)
    assert joined.several.keys() == {place for place, name in enumerate(joined.names.to_pylist()) if name is None}
    assert all(len(splits) > 1 for splits in joined.several.values())


def test_a_row_that_joins_two_splits_is_refused_and_names_both() -> None:
    rows = sealed.rows(
        {
            "id": ["a", "b", "c", "d", "e"],
            "split": ["train", "test", None, None, "holdout"],
            "label": list("xyxyx"),
            "group_key": ["g", "h", "g", None, None],
            FINGERPRINT: ["1", "2", "2", "3", "3"],
            KEY: list("abcde"),
        }
    )
    new = np.array([False, False, True, True, False])
    joined = append_rows(rows, "tabular", new)
    assert joined["split"].to_pylist() == ["train", "test", None, "holdout", "holdout"]
    assert joined["quality"].to_pylist() == ["ok", "ok", "refused", "ok", "ok"]
    assert "'test' and 'train'" in joined["reason"].to_pylist()[2]
    assert readmit_refused(joined)["quality"].to_pylist() == ["ok"] * 5


def test_few_groups_are_told_with_what_to_do(workspace: Workspace) -> None:
    rows = tuple(
        {"pig": f"p{pig}", "week": week, "feed": week * 10.0 + pig * 7.3 + week * pig, "weight": 20.0 + pig / 7 + week}
        for pig in range(60)
        for week in range(1, 7)
    )  # fmt: skip
    asked = {"label": "weight", "inputs": ("week", "feed"), "group_by": "pig", "modality": "tabular"}
    data.ingest(workspace, "pigs", rows=rows, **asked)
    report = version(workspace.database, "pigs").report
    (said,) = [each for each in report["warnings"] if "group(s)" in each]
    assert report["split"]["units"] == 60
    assert f"only {report['split']['test_units']} group(s) of 60" in said
    assert ", for rows of one group stay together: few" in said
    assert "fractions={'train': 0.5, 'validation': 0.1, 'test': 0.4}" in said
    audit = {"made_by": "speciate", "test_rows": 95, "test_units": 3, "units": 60, "test_groups": 23}
    (joined,) = few_units_warnings(audit)
    assert "for groups and near-duplicates stay together, and equal or nearly equal rows join their 23 named" in joined
    assert "fractions=" not in joined, "a larger share would not part them"
    assert joined.endswith("Add rows of at least 17 more groups (20 in all) to it.")
    assert few_units_warnings({**audit, "test_units": 20}) == []


def test_shares_that_are_wanted_are_kept() -> None:
    count = 100
    names = [f"r{i:03}" for i in range(count)]
    splits = pa.array(["train"] * 40 + ["test"] * 10 + [None] * 50, pa.string()).to_pylist()
    rows = sealed.rows({"id": names, "split": splits, KEY: names, FINGERPRINT: names, "label": ["x"] * count})
    joined = append_rows(rows, "tabular", np.arange(count) >= 50, fractions={"train": 0.8, "test": 0.2})
    found = joined["split"].to_pylist()
    assert (found.count("train"), found.count("test")) == (80, 20)
