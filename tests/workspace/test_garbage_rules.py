"""What may be deleted, as a table and as properties: no moment and no doubt may make a needed file garbage."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.workspace.garbage_rules import ACCOUNTED, OF_JOBS, Custody, Spared, implausible, joined, lacking, spared

_KINDS = sorted(ACCOUNTED | OF_JOBS | {"blobs", "features", "predictions"})
_GOOD = Custody(
    trusted=True, cutoff=1000.0, witnessed=900.0, since=100.0, gaps=((300.0, 400.0),), worked=((150.0, 500.0),)
)


@pytest.mark.parametrize(
    ("kind", "written", "expected"),
    [
        ("datasets", 200.0, None), ("datasets", 1000.0, Spared.YOUNG), ("datasets", 950.0, Spared.UNSEEN),
        ("datasets", 50.0, Spared.BEFORE), ("datasets", 350.0, Spared.GAP), ("datasets", 300.0, Spared.GAP),
        ("datasets", 600.0, Spared.NOBODY), ("evaluations", 600.0, Spared.NOBODY), ("blobs", 600.0, None),
        ("blobs", 350.0, Spared.GAP), ("blobs", 50.0, Spared.BEFORE), ("blobs", 950.0, Spared.UNSEEN),
        ("cache", 950.0, None), ("cache", 50.0, None), ("cache", 1000.0, Spared.YOUNG), ("runs", 350.0, None),
    ],
)  # fmt: skip
def test_what_nothing_names_goes_only_where_everything_agrees(
    kind: str, written: float, expected: Spared | None
) -> None:
    assert spared(kind, written, _GOOD) is expected
    assert spared(kind, written, _GOOD.model_copy(update={"trusted": False})) is Spared.DISTRUST


_moments = st.floats(0, 2000, allow_nan=False)
_spans = st.tuples(_moments, _moments).map(lambda pair: (min(pair), max(pair)))
_custodies = st.builds(
    Custody, trusted=st.booleans(), cutoff=_moments, witnessed=_moments, since=_moments,
    gaps=st.lists(_spans, max_size=3).map(tuple), worked=st.lists(_spans, max_size=4).map(joined),
)  # fmt: skip


@given(kind=st.sampled_from(_KINDS), written=_moments, custody=_custodies)
def test_whatever_goes_was_known_to_be_garbage(kind: str, written: float, custody: Custody) -> None:
    if spared(kind, written, custody) is not None:
        return
    assert custody.trusted
    assert written < custody.cutoff
    if kind in ACCOUNTED:
        return
    assert custody.since - 2 <= written <= custody.witnessed
    assert not any(since <= written <= until for since, until in custody.gaps)
    if kind in OF_JOBS:
        assert any(since - 2 <= written <= until + 2 for since, until in custody.worked)


@given(kind=st.sampled_from(_KINDS), written=_moments, custody=_custodies, gap=_spans)
def test_to_know_less_never_makes_more_garbage(
    kind: str, written: float, custody: Custody, gap: tuple[float, float]
) -> None:
    less = [
        {"trusted": False}, {"gaps": (*custody.gaps, gap)}, {"witnessed": custody.witnessed / 2},
        {"cutoff": custody.cutoff / 2}, {"since": custody.since * 2}, {"worked": custody.worked[1:]},
    ]  # fmt: skip
    if spared(kind, written, custody) is not None:
        assert all(spared(kind, written, custody.model_copy(update=each)) is not None for each in less)


_rows = st.lists(st.integers(0, 9), max_size=8)


@given(saved=_rows, known=_rows, deleted=_rows)
def test_what_a_backup_has_is_named_deleted_on_the_record_or_lost(
    saved: list[int], known: list[int], deleted: list[int]
) -> None:
    missing = lacking(saved, known, deleted)
    assert set(saved) <= {*missing, *known, *deleted}
    assert not set(missing) & {*known, *deleted}


@given(spans=st.lists(_spans, max_size=6), moment=_moments)
def test_joined_spans_hold_the_same_moments(spans: list[tuple[float, float]], moment: float) -> None:
    found = joined(spans)
    inside = [any(since <= moment <= until for since, until in each) for each in (spans, found)]
    assert inside[0] == inside[1]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("named", "going", "expected"), [(0, 9, False), (0, 10, True), (1, 10, True), (2, 12, False), (100, 899, False)]
)
def test_a_few_files_are_never_implausible(named: int, going: int, expected: bool) -> None:
    assert implausible(named, going) is expected
