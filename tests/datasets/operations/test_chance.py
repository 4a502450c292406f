"""Chance that repeats."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.operations.chance import apportion, place, shuffled

keys = st.lists(st.text(max_size=5), unique=True, max_size=20)


@given(keys, st.integers(0, 5), st.data())
def test_an_order_does_not_depend_on_who_else_is_there(names: list[str], seed: int, data: st.DataObject) -> None:
    some = data.draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    order = [names[i] for i in shuffled(names, seed)]
    assert [some[i] for i in shuffled(some, seed)] == [name for name in order if name in some]


def test_another_seed_is_another_order() -> None:
    names = [f"ex-{i}" for i in range(20)]
    assert shuffled(names, 0) != shuffled(names, 1)
    assert place(0, "a") != place(1, "a")


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 50), min_size=1, max_size=6), st.data())
def test_shares_are_whole_add_up_and_are_within_one_of_exact(counts: dict[str, int], data: st.DataObject) -> None:
    total = sum(counts.values())
    wanted = data.draw(st.integers(0, total))
    given_ = apportion(counts, wanted)
    assert sum(given_.values()) == wanted
    assert all(abs(given_[name] - wanted * count / total) < 1 for name, count in counts.items())
    assert all(given_[name] <= count for name, count in counts.items())
