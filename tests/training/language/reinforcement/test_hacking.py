"""When a training by reward is said to please the reward alone: tables of what was seen."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.training.language.reinforcement.hacking import Held, Limits, Seen, calm, ends, stops, warnings
from speciate.training.language.reinforcement.wording import wording

USUAL: dict[str, float] = {
    "reward": 0.2, "length": 20.0, "cut": 0.1, "distinct": 0.9, "alike": 0.1, "entropy": 1.5, "kl": 0.0,
    "no_spread": 0.2,
}  # fmt: skip


def _seen(count: int = 20, **last: float) -> list[Seen]:
    """The second half of the steps is otherwise."""
    return [Seen(step=at + 1, **(USUAL | (last if at >= count // 2 else {}))) for at in range(count)]


def _held(*rows: tuple[float, float], error: float = 0.03) -> list[Held]:
    """Of rewards and metrics. None is compared by example."""
    return [Held(10 * at, reward, metric, error, 20.0) for at, (reward, metric) in enumerate(rows)]


def _compared(*rows: tuple[float, float], first: float = 1.0, best: float = 1.0) -> list[Held]:
    """The same, with the newest one's p-values."""
    *before, newest = _held(*rows)
    return [*before, newest._replace(p_since_first=first, p_since_best=best)]


@pytest.mark.parametrize(
    ("last", "pattern"),
    [
        ({}, None),
        ({"reward": 0.9}, None),
        ({"length": 45.0}, "longer"),
        ({"length": 35.0}, None),  # not yet twice
        ({"cut": 0.8}, "cut"),
        ({"distinct": 0.3}, "repeats"),
        ({"distinct": 0.6}, None),
        ({"entropy": 0.05}, "entropy"),
        ({"entropy": 0.5}, None),
        ({"no_spread": 1.0}, "no_signal"),
        ({"alike": 0.95}, "same_answers"),
        ({"distinct": math.nan, "kl": math.nan}, None),
    ],
)  # fmt: skip
def test_what_is_seen_of_answers_is_suspicious_or_not(last: dict[str, float], pattern: str | None) -> None:
    assert [each.pattern for each in warnings(_seen(**last), [])] == ([pattern] if pattern else [])


@pytest.mark.parametrize(
    ("held", "suspicious"),
    [
        (_held((0.2, 0.5), (0.4, 0.6), (0.6, 0.7)), False),
        (_held((0.2, 0.5), (0.4, 0.6), (0.9, 0.4)), True),  # the reward rises, the metric falls
        (_held((0.2, 0.5), (0.4, 0.6), (0.9, 0.58)), False),  # by less than its error
        (_held((0.2, 0.5), (0.4, 0.6), (0.3, 0.4)), False),  # both fall: a training that fails, and hacks nothing
        (_held((0.2, 0.5)), False),
        (_held((0.2, math.nan), (0.9, math.nan)), False),  # there are no truths
        (_compared((0.2, 0.5), (0.4, 0.6), (0.9, 0.59), best=0.016), True),  # by little, and surely: three pairs
        (_compared((0.2, 0.5), (0.4, 0.6), (0.9, 0.4), best=0.017), False),  # by much, and maybe by chance
        (_compared((0.4, 0.6), (0.9, 0.5), best=0.049), True),  # one pair
        (_compared(*[(0.4, 0.6)] * 9, (0.9, 0.5), best=0.002), False),  # one of 45
        (_compared(*[(0.4, 0.6)] * 9, (0.9, 0.5), best=0.001), True),
        (_compared((0.2, 0.5), (0.4, 0.6), (0.9, 0.7), best=0.0), False),  # it rises
        (_compared((0.2, 0.5), (0.4, 0.6), (0.3, 0.4), best=0.0), False),  # both fall
        (_compared((0.2, 0.5), (0.4, 0.6), (0.9, 0.4), first=0.0), False),  # the first is not the best
    ],
)
def test_a_reward_that_rises_while_the_metric_falls_is_said(held: list[Held], suspicious: bool) -> None:
    found = warnings(_seen(), held)
    assert [each.pattern for each in found] == (["metric_falls"] if suspicious else [])
    assert calm(_seen(), held) is not suspicious


def test_a_model_that_has_learned_what_it_should_may_be_sure_of_it() -> None:
    sure = _seen(entropy=0.01, alike=1.0)
    assert {each.pattern for each in warnings(sure, [])} == {"entropy", "same_answers"}
    assert warnings(sure, _held((0.1, 0.1), (0.9, 0.9))) == []
    assert warnings(sure, _compared((0.1, 0.1), (0.2, 0.9), (0.9, 0.3), first=0.04)) == []
    by_chance = _compared((0.1, 0.1), (0.9, 0.3), first=0.06)
    assert {each.pattern for each in warnings(sure, by_chance)} == {"entropy", "same_answers"}
    worse = _compared((0.1, 0.3), (0.05, 0.1), first=0.0)
    assert {each.pattern for each in warnings(sure, worse)} == {"entropy", "same_answers"}


def test_no_difference_from_the_beginning_is_said_as_such() -> None:
    (found,) = warnings([Seen(step=at, **(USUAL | {"no_spread": 1.0})) for at in range(1, 5)], [])
    assert "from the beginning" in found.said


def test_limits_end_a_training() -> None:
    far = _seen(kl=0.4)
    assert stops(far, [], Limits()) is None
    assert "kl_limit=0.3" in (stops(far, [], Limits(kl=0.3)) or "")
    assert stops(far, [], Limits(kl=0.5)) is None
    assert "length_limit=30" in (stops(_seen(length=40.0), [], Limits(length=30)) or "")
    assert stops(_seen(no_spread=1.0), [], Limits(stop_on_hacking=True)) is None  # nothing is spoiled by it
    assert "repeat" in (stops(_seen(distinct=0.2), [], Limits(stop_on_hacking=True)) or "")
    assert stops([], [], Limits(0.1, 1.0, True)) is None


_NUMBERS = st.one_of(st.floats(-1e6, 1e6), st.just(math.nan))


@given(st.lists(st.tuples(*[_NUMBERS] * 8), max_size=12), st.lists(st.tuples(*[_NUMBERS] * 6), max_size=5))
def test_whatever_is_seen_the_same_is_said_again_and_ends_are_within(
    steps: list[tuple[Any, ...]], judged: list[tuple[Any, ...]]
) -> None:
    seen = [Seen(at + 1, *each) for at, each in enumerate(steps)]
    held = [Held(at, *each) for at, each in enumerate(judged)]
    assert warnings(seen, held) == warnings(list(seen), list(held))
    if seen:
        for edge in ends(seen):
            known = [each.reward for each in seen if math.isfinite(each.reward)]
            assert math.isnan(edge.reward) or min(known) - 1e-6 <= edge.reward <= max(known) + 1e-6


@pytest.mark.parametrize(
    ("answers", "distinct"),
    [
        ([[1, 2, 3, 4, 5, 6]], 1.0),
        ([[7] * 9], 1 / 8),
        ([[1, 2, 1, 2, 1, 2]], 2 / 5),
        ([[1, 2]], math.nan),
        ([], math.nan),
    ],
)
def test_wording_counts_what_is_said_again(answers: list[list[int]], distinct: float) -> None:
    assert wording(answers).distinct == pytest.approx(distinct, nan_ok=True)


def test_answers_to_a_question_that_are_the_same_are_counted() -> None:
    assert wording([[1], [1], [1], [1], [2], [3], [4], [5]], each=4).alike == 0.5
    assert wording([[1]] * 4, each=4).alike == 1.0
