from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.evaluation.endpoints.concurrency import (
    Bounds,
    Pace,
    after_answer,
    after_failure,
    after_rate_limit,
    first_pace,
)

BOUNDS = Bounds(least=1, start=4, most=64)


def after_answers(pace: Pace, count: int, *, in_flight: int | None = None, now: float = 0.0) -> Pace:
    for _ in range(count):
        pace = after_answer(pace, BOUNDS, in_flight=pace.limit if in_flight is None else in_flight, now=now)
    return pace


@pytest.mark.parametrize(
    ("pace", "answers", "limit"),
    [
        pytest.param(Pace(4), 3, 4, id="a round is as many answers as the limit"),
        pytest.param(Pace(4), 4, 8, id="slow start doubles after a round"),
        pytest.param(Pace(4), 4 + 8 + 16, 32, id="and doubles again"),
        pytest.param(Pace(40), 40, 64, id="up to the most"),
        pytest.param(Pace(4, slow_start=False), 4, 5, id="later one is added after a round"),
        pytest.param(Pace(40, slow_start=False), 40, 42, id="or a twentieth"),
        pytest.param(Pace(1), 1, 2, id="from the floor it comes back"),
    ],
)
def test_it_grows_after_whole_rounds(pace: Pace, answers: int, limit: int) -> None:
    assert after_answers(pace, answers).limit == limit


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    assert after_answers(Pace(10), 100, in_flight=7).limit == 10
    assert after_answers(Pace(10), 10, in_flight=8).limit == 20


def test_a_rate_limit_shrinks_it_and_ends_the_slow_start() -> None:
    pace = after_rate_limit(Pace(40), BOUNDS, sent=0, now=1, retry_after_s=None)
    assert (pace.limit, pace.slow_start, pace.held_until) == (28, False, 2)


def test_one_overload_shrinks_it_once() -> None:
    """Ten calls were in flight when the first was refused; the refusals of the others are no news."""
    pace = Pace(10)
    for _ in range(10):
        pace = after_rate_limit(pace, BOUNDS, sent=0, now=1, retry_after_s=None)
    assert pace.limit == 7
    assert after_rate_limit(pace, BOUNDS, sent=2, now=3, retry_after_s=None).limit == 4


@pytest.mark.parametrize(
    ("retry_after_s", "held_until"), [(None, 101), (0.0, 100), (7.0, 107), (9999.0, 160), (-5.0, 100)]
)
def test_a_retry_after_is_honoured_up_to_a_cap(retry_after_s: float | None, held_until: float) -> None:
    assert after_rate_limit(Pace(8), BOUNDS, sent=0, now=100, retry_after_s=retry_after_s).held_until == held_until


def test_a_shorter_retry_after_does_not_shorten_a_longer_one() -> None:
    pace = after_rate_limit(Pace(8), BOUNDS, sent=0, now=0, retry_after_s=30)
    assert after_rate_limit(pace, BOUNDS, sent=0, now=1, retry_after_s=1).held_until == 30


def test_a_servers_fault_only_pauses_growth() -> None:
    pace = after_failure(after_answers(Pace(4), 3), BOUNDS, now=10)
    assert pace.limit == 4
    assert after_answers(pace, 100, now=14.9).limit == 4
    assert after_answers(pace, 4, now=15).limit == 8


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("answered"), st.integers(1, 100)),
        st.tuples(st.just("limited"), st.one_of(st.none(), st.floats(0, 1e6))),
        st.tuples(st.just("failed"), st.none()),
    ),
    max_size=200,
)


@given(EVENTS, st.integers(1, 5), st.integers(1, 100), st.integers(5, 100), st.floats(0.01, 0.99))
def test_whatever_happens_it_keeps_its_bounds_and_only_rate_limits_shrink_it(
    events: list[tuple[str, float | None]], least: int, start: int, most: int, decrease: float
) -> None:
    bounds = Bounds(least=least, start=start, most=most, decrease=decrease)
    pace = first_pace(bounds)
    for now, (kind, value) in enumerate(events):
        before = pace
        if kind == "answered":
            pace = after_answer(pace, bounds, in_flight=int(value or 1), now=now)
            assert before.limit <= pace.limit <= 2 * before.limit
            assert pace.limit == before.limit or (value or 0) >= bounds.saturation * before.limit
        elif kind == "limited":
            pace = after_rate_limit(pace, bounds, sent=now - 1.5, now=now, retry_after_s=value)
            assert pace.limit <= before.limit
            assert now <= pace.held_until <= max(now + bounds.longest_hold_s, before.held_until)
        else:
            pace = after_failure(pace, bounds, now=now)
            assert pace.limit == before.limit
        assert least <= pace.limit <= most
