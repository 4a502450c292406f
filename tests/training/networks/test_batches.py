"""Batches: every example once an epoch, of like length, the same for the same seed; items within their budget."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from speciate.training.networks import batches as feed
from speciate.training.networks.batches import PreparedItems
from tests.training.networks.world import TinyBackbone, media

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=300).map(lambda values: np.array(values, np.int64))


@given(LENGTHS, st.integers(1, 40), st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_has_every_example_once_in_even_batches(
    lengths: feed.Places, size: int, seed: int, epoch: int
) -> None:
    made = feed.batches(lengths, size, seed, epoch)
    assert sorted(np.concatenate(made).tolist()) == list(range(len(lengths)))
    assert len(made) == feed.step_count(len(lengths), size)
    sizes = [len(batch) for batch in made]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    again = feed.batches(lengths, size, seed, epoch)
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))


def test_batches_have_little_padding_and_differ_between_epochs() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, 1000)

    def padded(batches: list[feed.Places]) -> int:
        return sum(int(lengths[batch].max()) * len(batch) for batch in batches)

    grouped = feed.batches(lengths, 16, 0, 1)
    assert padded(grouped) < 1.1 * lengths.sum()
    assert padded(np.array_split(np.arange(1000), 63)) > 1.5 * lengths.sum()
    other = feed.batches(lengths, 16, 0, 2)
    assert {frozenset(batch.tolist()) for batch in grouped} != {frozenset(batch.tolist()) for batch in other}
    first = feed.batches(lengths, 16, 0, 0)[0]
    assert lengths.max() in lengths[first]


@given(st.integers(1, 100), st.integers(1, 100))
def test_parts_of_a_batch(count: int, most: int) -> None:
    made = feed.parts(np.arange(count), most)
    assert np.concatenate(made).tolist() == list(range(count))
    assert max(map(len, made)) <= most
    assert max(map(len, made)) - min(map(len, made)) <= 1


def test_items_beyond_the_budget_are_prepared_again() -> None:
    given_media, _ = media(100)
    backbone, rich = TinyBackbone(), TinyBackbone()
    everything = PreparedItems(given_media, rich.prepare, rich.length)
    half = PreparedItems(given_media, backbone.prepare, backbone.length, kept_bytes=8 * sum(map(len, given_media)) // 2)
    assert half.lengths.tolist() == everything.lengths.tolist() == [len(each) for each in given_media]
    places = np.array([99, 3, 50, 98])
    for _ in range(2):
        for one, other in zip(half.take(places), everything.take(places), strict=True):
            assert np.array_equal(one["words"], other["words"])
    assert rich.prepared == 100
    assert 100 < backbone.prepared <= 108
