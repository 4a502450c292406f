"""Splits never leak, whatever the examples: properties, not examples."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.split import Member, audit, components, split, strata

texts = st.text("abcdef", min_size=1, max_size=2)
members_strategy = st.lists(
    st.builds(
        Member,
        key=st.text("0123456789abcdef", min_size=8, max_size=8),
        group=st.none() | texts,
        content=st.text("uvwxyz", min_size=1, max_size=3),
        stratum=st.sampled_from(["good", "bad", "rare"]),
    ),
    max_size=120,
    unique_by=lambda member: member.key,
)


@given(members_strategy, st.integers(0, 5))
def test_a_split_never_crosses_a_group_or_identical_content(members: list[Member], seed: int) -> None:
    assert audit(members, split(members, seed=seed)) == (0, 0)


@given(members_strategy, st.randoms(use_true_random=False))
def test_a_split_does_not_depend_on_the_order(members: list[Member], chance: random.Random) -> None:
    shuffled = list(members)
    chance.shuffle(shuffled)
    first = dict(zip([m.key for m in members], split(members), strict=True))
    assert dict(zip([m.key for m in shuffled], split(shuffled), strict=True)) == first


@given(members_strategy, members_strategy)
def test_added_examples_move_an_old_one_only_where_they_join_it_to_others(old: list[Member], new: list[Member]) -> None:
    first = dict(zip([m.key for m in old], split(old), strict=True))
    members = old + [m for m in new if m.key not in first]
    second = split(members, kept=first)
    assert audit(members, second) == (0, 0)
    for component in components(members):
        earlier = {first[members[i].key] for i in component if members[i].key in first}
        if len(earlier) == 1:
            assert {second[i] for i in component} == earlier
        elif earlier:
            assert second[component[0]] == next(name for name in ("train", "validation") if name in earlier)


@given(st.integers(20, 200), st.integers(1, 200))
def test_shares_stay_near_while_a_set_grows_and_nothing_moves(count: int, added: int) -> None:
    members = [Member(f"{i * 7919 % 10007:05}", None, f"c{i}", "ab"[i % 2]) for i in range(count + added)]
    first = dict(zip([m.key for m in members], split(members[:count]), strict=False))
    second = split(members, kept=first)
    assert second[:count] == list(first.values())
    for name, wanted in {"train": 0.7, "validation": 0.15, "test": 0.15}.items():
        assert abs(second.count(name) - wanted * len(members)) <= 3


@given(members_strategy)
def test_components_are_a_partition(members: list[Member]) -> None:
    found = components(members)
    assert sorted(i for component in found for i in component) == list(range(len(members)))


@given(st.integers(20, 400), st.integers(0, 3), st.sampled_from([2, 3, 7]))
def test_shares_and_labels_come_near_to_what_was_asked(count: int, seed: int, classes: int) -> None:
    members = [Member(f"{i:05}", None, f"c{i}", str(i % classes)) for i in range(count)]
    names = split(members, {"train": 0.7, "validation": 0.15, "test": 0.15}, seed)
    for name, share in Counter(names).items():
        wanted = {"train": 0.7, "validation": 0.15, "test": 0.15}[name] * count
        assert abs(share - wanted) <= classes + 1
    for stratum in range(classes):
        inside = [name for name, member in zip(names, members, strict=True) if member.stratum == str(stratum)]
        assert abs(inside.count("train") - 0.7 * len(inside)) <= 2


def test_another_seed_gives_another_split() -> None:
    members = [Member(f"{i:05}", None, f"c{i}", "x") for i in range(100)]
    assert split(members, seed=0) != split(members, seed=1)
    assert split(members, seed=1) == split(members, seed=1)


def test_one_group_stays_whole_in_training() -> None:
    members = [Member(f"{i:05}", "only", f"c{i}", "x") for i in range(10)]
    assert set(split(members)) == {"train"}


def test_groups_and_copies_chain() -> None:
    members = [
        Member("a", "patient-1", "scan", "x"),
        Member("b", "patient-2", "scan", "x"),
        Member("c", "patient-2", "other", "x"),
        Member("d", None, "alone", "x"),
    ]
    assert sorted(map(len, components(members))) == [1, 3]


@pytest.mark.parametrize("labels", [[1.0, 2.0, 3.0, None], ["a", "b", None], [], [5.0] * 4])
def test_every_label_has_a_stratum(labels: list[str | float | None]) -> None:
    assert len(strata(labels)) == len(labels)


def test_numbers_are_balanced_by_tenths() -> None:
    assert Counter(strata([float(i) for i in range(100)])) == {str(i): 10 for i in range(10)}
