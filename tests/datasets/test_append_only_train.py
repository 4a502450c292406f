"""Rows that may teach and never judge, appended to a split: against a plain reading of the rule, row by row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.columns import FINGERPRINT, KEY
from speciate.datasets.splits import append_rows
from tests.datasets import sealed


class Arrival(NamedTuple):
    group: str | None
    content: str | None
    split: str | None
    """Where it lies already; None: it is new."""
    only_train: bool


def append(arrivals: list[Arrival]) -> list[tuple[str | None, str]]:
    """The split and the quality of each."""
    names = [f"r{at}" for at in range(len(arrivals))]
    rows = sealed.rows(
        {
            "id": names, KEY: names, "label": ["x"] * len(names), "split": [each.split for each in arrivals],
            "group_key": [each.group for each in arrivals], FINGERPRINT: [each.content for each in arrivals],
        }
    )  # fmt: skip
    new = np.array([each.split is None for each in arrivals])
    told = np.array([each.only_train for each in arrivals])
    joined = append_rows(rows, "tabular", new, only_train=told)
    return list(zip(joined["split"].to_pylist(), joined["quality"].to_pylist(), strict=True))


def sets_that_belong_together(arrivals: list[Arrival]) -> Iterator[list[int]]:
    """Places that groups and contents join, directly or through others."""
    left = set(range(len(arrivals)))
    while left:
        found = {left.pop()}
        while more := {at for at in left if any(_belong_together(arrivals[at], arrivals[in_]) for in_ in found)}:
            found |= more
            left -= more
        yield sorted(found)


def _belong_together(one: Arrival, other: Arrival) -> bool:
    return any(mine is not None and mine == theirs for mine, theirs in zip(one[:2], other[:2], strict=True))


arrivals = st.lists(
    st.builds(
        Arrival,
        group=st.none() | st.sampled_from("abcde"),
        content=st.none() | st.sampled_from("uvwxyz"),
        split=st.none() | st.sampled_from(["train", "validation", "test"]),
        only_train=st.booleans(),
    ),
    min_size=1,
    max_size=14,
)


@given(arrivals)
def test_rows_for_training_alone_never_reach_another_split_and_take_no_row_out_of_one(rows: list[Arrival]) -> None:
    after = append(rows)
    for places in sets_that_belong_together(rows):
        older = {name for at in places if (name := rows[at].split) is not None}
        new = [at for at in places if rows[at].split is None]
        teach = [at for at in new if rows[at].only_train]
        assert all(after[at] == (rows[at].split, "ok") for at in places if at not in new)
        if len(older) > 1:
            assert all(after[at] == (None, "refused") for at in new)
        elif older == {"train"}:
            assert all(after[at] == ("train", "ok") for at in new)
        elif older:
            (there,) = older
            assert all(after[at] == ((None, "refused") if at in teach else (there, "ok")) for at in new)
        elif teach:
            assert all(after[at] == ("train", "ok") for at in new)
        else:
            assert len({after[at] for at in new}) == 1
            assert all(quality == "ok" for _, quality in (after[at] for at in new))


def test_others_that_arrive_with_them_are_shared_out_as_ever() -> None:
    """Only what belongs with a row for training alone goes to train; the rest has its share in every split."""
    plain = [Arrival(None, None, None, only_train=False)] * 60
    taught = [Arrival(None, None, None, only_train=True)] * 40
    found = defaultdict[bool, list[str | None]](list)
    for each, (name, _) in zip(plain + taught, append(plain + taught), strict=True):
        found[each.only_train].append(name)
    assert set(found[True]) == {"train"}
    assert set(found[False]) == {"train", "validation", "test"}


@pytest.mark.parametrize("there", ["validation", "test"])
def test_a_copy_for_training_alone_of_a_row_that_judges_is_refused_and_says_why(there: str) -> None:
    names = ["old", "copy"]
    rows = sealed.rows({"id": names, KEY: names, "label": list("xx"), "split": [there, None], FINGERPRINT: ["1", "1"]})
    joined = append_rows(rows, "tabular", np.array([False, True]), only_train=np.array([False, True]))
    assert joined["quality"].to_pylist() == ["ok", "refused"]
    assert joined["split"].to_pylist() == [there, None]
    assert all(name in joined["reason"].to_pylist()[1] for name in (f"'{there}'", "'train'"))
