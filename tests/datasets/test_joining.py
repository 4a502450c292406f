"""Rows that come to a split never make it leak, whatever they tie together, and whatever was there stays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.datasets.columns import FINGERPRINT, KEY
from speciate.datasets.joining import join, join_rows, readmitted
from speciate.datasets.split import FRACTIONS, Members, crossing
from tests.datasets import sealed

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
def test_what_comes_adds_no_leak(case: tuple[Members, list[str | None]]) -> None:
    members, lies = case
    joined = join(members, lies, FRACTIONS, seed=0)
    after = [name if isinstance(name, str) else None for name in joined]
    assert all(was is None or was == now for was, now in zip(lies, after, strict=True))
    assert all(name for name in after if name is not None)
    assert crossing(members, after) == crossing(members, lies)


@settings(deadline=None)
@given(arrivals())
def test_only_what_ties_several_splits_is_refused(case: tuple[Members, list[str | None]]) -> None:
    members, lies = case
    for name in join(members, lies, FRACTIONS, seed=0):
        assert isinstance(name, str) or len(name) > 1


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
    joined = join_rows(rows, "tabular", new)
    assert joined["split"].to_pylist() == ["train", "test", None, "holdout", "holdout"]
    assert joined["quality"].to_pylist() == ["ok", "ok", "refused", "ok", "ok"]
    assert "'test' and 'train'" in joined["reason"].to_pylist()[2]
    assert readmitted(joined)["quality"].to_pylist() == ["ok"] * 5


def test_shares_that_are_wanted_are_kept() -> None:
    count = 100
    names = [f"r{i:03}" for i in range(count)]
    splits = pa.array(["train"] * 40 + ["test"] * 10 + [None] * 50, pa.string()).to_pylist()
    rows = sealed.rows({"id": names, "split": splits, KEY: names, FINGERPRINT: names, "label": ["x"] * count})
    joined = join_rows(rows, "tabular", np.arange(count) >= 50, fractions={"train": 0.8, "test": 0.2})
    found = joined["split"].to_pylist()
    assert (found.count("train"), found.count("test")) == (80, 20)
