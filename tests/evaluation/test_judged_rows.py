"""A suite is its rows: whatever takes away or changes a judged row makes another one, and nothing else does."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.evaluation import judged_rows, suites
from speciate.evaluation.suites import Scored
from tests.drawn import drawn

Row = dict[str, Any]
ROW = st.fixed_dictionaries(
    {"_content": st.sampled_from("abcdef"), "label": st.sampled_from(["yes", "no"]), "group_key": st.sampled_from("gh")}
)
ROWS = st.lists(ROW, min_size=1, max_size=12)


def table(rows: list[Row], **more: list[Any]) -> pa.Table:
    names = ("_content", "label", "group_key")
    cells = {name: pa.array([row[name] for row in rows], pa.string()) for name in names}
    return pa.table(cells | {name: pa.array(column) for name, column in more.items()})


def pack(rows: list[Row]) -> judged_rows.Packed:
    return judged_rows.pack(table(rows), "label")


@settings(max_examples=drawn(200), deadline=None)
@given(ROWS, st.lists(ROW, max_size=5), st.randoms(use_true_random=False))
def test_rows_that_join_leave_the_suite_as_it_is(before: list[Row], joined: list[Row], order: random.Random) -> None:
    after = [*before, *joined]
    order.shuffle(after)
    change = judged_rows.compare(pack(before), pack(after))
    assert not change.is_another
    assert (change.judged, change.joined) == (len(before), len(joined))


@settings(max_examples=drawn(200), deadline=None)
@given(ROWS, ROWS)
def test_a_suite_goes_on_exactly_where_every_judged_row_is_there_as_often(before: list[Row], after: list[Row]) -> None:
    lost = len(_lost(before, after))
    change = judged_rows.compare(pack(before), pack(after))
    assert change.missing + change.changed == lost
    assert change.is_another == (lost > 0)


COUNT = 60


def _judged() -> list[Row]:
    draw = random.Random(3)
    return [
        {"_content": f"c{i % 40}", "label": draw.choice(["yes", "no"]), "group_key": f"g{i // 3}"} for i in range(COUNT)
    ]


def _drop(rows: list[Row], draw: random.Random) -> list[Row]:
    gone = set(draw.sample(range(len(rows)), draw.randint(1, len(rows) - 1)))
    return [row for place, row in enumerate(rows) if place not in gone]


def _relabel(rows: list[Row], draw: random.Random) -> list[Row]:
    chosen = draw.randrange(len(rows))
    turned = {"yes": "no", "no": "yes"}[rows[chosen]["label"]]
    return [row | {"label": turned} if place == chosen else row for place, row in enumerate(rows)]


def _unlabel(rows: list[Row], draw: random.Random) -> list[Row]:
    chosen = draw.randrange(len(rows))
    return [row | {"label": None} if place == chosen else row for place, row in enumerate(rows)]


def _regroup(rows: list[Row], draw: random.Random) -> list[Row]:
    chosen = draw.randrange(len(rows))
    return [row | {"group_key": "another"} if place == chosen else row for place, row in enumerate(rows)]


def _replace(rows: list[Row], draw: random.Random) -> list[Row]:
    chosen = draw.randrange(len(rows))
    return [row | {"_content": "fresh"} if place == chosen else row for place, row in enumerate(rows)]


def _append(rows: list[Row], draw: random.Random) -> list[Row]:
    count = draw.randint(1, 20)
    return [*rows, *({"_content": f"new {draw.random()}", "label": "yes", "group_key": "new"} for _ in range(count))]


def _repeat(rows: list[Row], draw: random.Random) -> list[Row]:
    return [*rows, draw.choice(rows)]


def _shuffle(rows: list[Row], draw: random.Random) -> list[Row]:
    return draw.sample(rows, len(rows))


Curation = Callable[[list[Row], random.Random], list[Row]]
LOSSES: tuple[Curation, ...] = (_drop, _relabel, _unlabel, _regroup, _replace)
HARMLESS: tuple[Curation, ...] = (_append, _repeat, _shuffle)


def test_of_five_hundred_curations_those_that_lose_a_judged_row_are_flagged_and_no_other() -> None:
    """Chains of curations: a loss anywhere in one flags it, whatever joins beside."""
    draw, before = random.Random(11), pack(_judged())
    flagged = 0
    for number in range(500):
        rows, steps = _judged(), draw.choices((*LOSSES, *HARMLESS), k=draw.randint(1, 3))
        for step in steps:
            rows = step(rows, draw)
        change = judged_rows.compare(before, pack(rows))
        assert change.is_another == bool(_lost(_judged(), rows)), (number, [step.__name__ for step in steps])
        flagged += change.is_another
    assert 200 < flagged < 450, "both kinds are among them"


def _lost(before: list[Row], after: list[Row]) -> list[Row]:
    left = list(after)
    lost = []
    for row in before:
        if row in left:
            left.remove(row)
        else:
            lost.append(row)
    return lost


def test_ids_names_and_columns_that_nobody_judges_by_do_not_count() -> None:
    rows = _judged()
    plain = table(rows, id=[f"a{i}" for i in range(COUNT)])
    renamed = table(rows, id=[f"b{i}" for i in range(COUNT)], score=[float(i) for i in range(COUNT)])
    assert judged_rows.suite_id(judged_rows.pack(plain, "label")) == judged_rows.suite_id(
        judged_rows.pack(renamed, "label")
    )


def test_a_label_of_another_type_is_the_same_label() -> None:
    names = {"_content": ["a", "b"], "group_key": ["g", "h"]}
    whole, fraction = pa.table(names | {"y": pa.array([1, 2])}), pa.table(names | {"y": pa.array([1.0, 2.0])})
    assert not judged_rows.compare(judged_rows.pack(whole, "y"), judged_rows.pack(fraction, "y")).is_another


def test_numbers_within_lists_and_records_are_the_same_whatever_their_type() -> None:
    names = {"_content": ["a", "b"], "group_key": ["g", "h"]}
    for whole, fraction in (([[1, 2], [3]], [[1.0, 2.0], [3.0]]), ([{"n": [1]}] * 2, [{"n": [1.0]}] * 2)):
        first, second = (pa.table(names | {"y": pa.array(cells)}) for cells in (whole, fraction))
        assert not judged_rows.compare(judged_rows.pack(first, "y"), judged_rows.pack(second, "y")).is_another


def test_only_the_same_row_with_its_reference_is_shared() -> None:
    rows = _judged()
    assert judged_rows.share_a_row(pack(rows[:1]), pack(rows))
    assert not judged_rows.share_a_row(pack([row | {"label": "maybe"} for row in rows]), pack(rows))


def test_windows_of_one_medium_are_different_rows() -> None:
    cut = table([{"_content": "film", "label": "yes", "group_key": "g"}] * 2, _start=[0.0, 5.0], _stop=[5.0, 9.0])
    first = cut.filter(pc.equal(cut["_start"], 0.0))
    change = judged_rows.compare(judged_rows.pack(cut, "label"), judged_rows.pack(first, "label"))
    assert (change.missing, change.changed) == (1, 0)


@pytest.mark.parametrize(
    ("shared", "expected"), [(0, False), (1, False), (2, True), (200, True)], ids=["none", "one", "one in 100", "all"]
)
def test_rows_were_looked_at_where_one_in_a_hundred_was(shared: int, expected: bool) -> None:
    mine = [{"_content": f"m{i}", "label": "yes", "group_key": ""} for i in range(200)]
    theirs = [{"_content": f"t{i}", "label": "yes", "group_key": ""} for i in range(200 - shared)]
    theirs += [row | {"label": "no"} for row in mine[:shared]]
    assert judged_rows.overlaps(pack(theirs), pack(mine)) is expected


def test_named_baselines_count_once_they_were_a_way_to_choose() -> None:
    scored = [
        Scored("e1", "a@v1", "candidate"), Scored("e1", "old@v1", "incumbent"), Scored("e1", "b@v1", "baseline"),
        Scored("e1", "c@v1", "baseline"), Scored("e1", "column:rules", "baseline"), Scored("e2", None, None),
    ]  # fmt: skip
    assert counted(scored, "new@v1") == {"a@v1"}
    assert counted(scored, "a@v1") == set()
    assert counted(scored, "b@v1") == {"a@v1", "c@v1"}
    assert counted(scored, "b@v2") == {"a@v1", "b@v1", "c@v1"}, "whatever its version"
    renamed = [each._replace(weights=f"weights of {each.model}") for each in scored]
    assert counted(renamed, "new@v1", weights=["weights of b@v1"]) == {"a@v1", "b@v1", "c@v1"}, "whatever its name"


def counted(scored: list[Scored], *judged_now: str, weights: Sequence[str] = ()) -> set[str]:
    return {model for model, _ in suites.count_candidates(scored, judged_now, weights=weights)}


def test_a_model_counts_once_for_each_state_of_a_suite_and_not_for_the_present_one() -> None:
    scored = [Scored(f"e{n}", model, "candidate", suite) for n, (model, suite) in enumerate(PAIRS)]
    assert suites.count_candidates(scored, ["a@v1"], "large") == {("a@v1", "small"), ("b@v1", "small")}
    assert suites.count_candidates(scored, ["a@v1"], "small") == {("a@v1", "large"), ("b@v1", "small")}
    assert len(suites.count_candidates(scored, ["c@v1"], "larger")) == 3


PAIRS = [("a@v1", "small"), ("a@v1", "small"), ("b@v1", "small"), ("a@v1", "large")]
