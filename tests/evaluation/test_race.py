"""Which published models are fetched and which leave a race: the pure parts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from speciate.evaluation.race import rounds, stratified_order, surely_worse
from speciate.evaluation.screening import Screened, choose


def screened(ref: str, size: int, ceiling: float | None = 1.0, downloads: int = 0) -> Screened:
    return Screened(ref, None, ref, size, ceiling, downloads)


def test_the_most_promising_are_kept_while_bytes_last() -> None:
    fitting = [screened("a", 60, 0.8), screened("b", 50), screened("c", 50, downloads=9), screened("d", 30, 0.7)]
    kept, beyond = choose(fitting, 130, 3)
    assert [each.ref for each in kept] == ["c", "b", "d"]
    assert [(each.ref, "more than the 30 that are left" in each.why) for each in beyond] == [("a", True)]
    assert choose(fitting, 1000, 2)[1][0].why == "2 others promise as much or more."


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=90), st.integers(0, 9))
def test_any_beginning_of_a_race_has_each_label_in_turn(labels: list[str], seed: int) -> None:
    order = stratified_order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    for end in range(1, len(order)):
        seen = [labels[place] for place in order[:end]]
        left = {labels[place] for place in order[end:]}
        counts = [seen.count(label) for label in left]
        assert not counts or max(map(seen.count, {*seen, *left})) - min(counts) <= 1


def test_rounds_grow_to_all_examples_and_only_what_is_surely_worse_leaves() -> None:
    assert (rounds(20), rounds(50), rounds(201)) == ([20], [50], [50, 200, 201])
    assert surely_worse(-0.3, -0.1, 1)
    assert not surely_worse(-0.3, 0.1, 1)
    assert surely_worse(0.1, 0.3, -1)
    assert not surely_worse(float("nan"), float("nan"), 1)
