from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.loading.shuffling import order, share, step_count


@given(st.text(max_size=8), st.integers(0, 2**40), st.integers(0, 100), st.integers(0, 300))
def test_an_order_visits_each_once_and_is_the_same_again(version: str, seed: int, epoch: int, count: int) -> None:
    first = order(version, seed, epoch, count)
    assert np.array_equal(np.sort(first), np.arange(count))
    assert np.array_equal(first, order(version, seed, epoch, count))


def test_the_order_is_fixed_for_good() -> None:
    """A saved state must mean the same sequence on another machine and with another numpy."""
    assert order("v", 7, 0, 10).tolist() == [7, 9, 3, 2, 8, 5, 0, 1, 6, 4]


def test_version_seed_and_epoch_each_change_the_order() -> None:
    orders = [order("a", 0, 0, 50), order("b", 0, 0, 50), order("a", 1, 0, 50), order("a", 0, 1, 50)]
    assert len({tuple(found.tolist()) for found in orders}) == 4


def test_every_place_is_visited_early_about_as_often() -> None:
    first_halves = [set(order("v", seed, 0, 40)[:20].tolist()) for seed in range(400)]
    counts = np.bincount([place for half in first_halves for place in half], minlength=40)
    assert abs(counts - 200).max() < 60  # six standard deviations


@given(st.integers(0, 200), st.integers(1, 9), st.integers(1, 5))
def test_ranks_share_an_epoch_without_overlap_or_padding(count: int, batch: int, world: int) -> None:
    places = np.arange(count)
    steps = step_count(count, batch, world)
    shares = [[share(places, step, batch, rank, world) for rank in range(world)] for step in range(steps)]
    assert [place for step in shares for own in step for place in own] == places.tolist()
    for step in shares[:-1]:
        assert {len(own) for own in step} == {batch}
    if shares:
        sizes = [len(own) for own in shares[-1]]
        assert max(sizes) - min(sizes) <= 1
        assert 0 < max(sizes) <= batch
