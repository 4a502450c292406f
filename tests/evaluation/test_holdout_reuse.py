from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.evaluation.holdout_reuse import LooksOnRows, level_for

looks = st.builds(LooksOnRows, candidates=st.integers(1, 10_000))


def test_a_first_look_keeps_its_level() -> None:
    assert level_for(1) == 0.95
    assert level_for(5) == pytest.approx(0.99)
    assert level_for(5, LooksOnRows(evaluations=3)) == level_for(5)
    assert level_for(5, LooksOnRows(promotions=1)) == level_for(5, LooksOnRows(candidates=1))


@pytest.mark.parametrize(
    ("judged", "looks", "spent"),
    [
        (1, LooksOnRows(candidates=1), 10 / (10 * 11)),  # of half the budget, by a first candidate after the first look
        (1, LooksOnRows(candidates=2), 10 / (11 * 12)),
        (3, LooksOnRows(candidates=1), 10 / (10 * 13)),
        (3, LooksOnRows(candidates=117, promotions=2), 10 / (126 * 129)),
        (0, LooksOnRows(candidates=4, promotions=7), 10 / (16 * 17)),
    ],
)
def test_a_later_look_spends_its_part_of_the_budget(judged: int, looks: LooksOnRows, spent: float) -> None:
    assert level_for(judged, looks) == pytest.approx(1 - 0.05 * spent, abs=1e-12)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=200))
def test_all_looks_after_the_first_together_spend_no_more_than_one_look(rounds: list[int]) -> None:
    spent, earlier = 0.0, 1
    for judged in rounds:
        spent += judged * (1 - level_for(judged, LooksOnRows(candidates=earlier)))
        earlier += judged
    assert spent < 0.05


@given(looks, st.integers(1, 20))
def test_more_looks_never_make_an_interval_narrower(earlier: LooksOnRows, judged: int) -> None:
    more = LooksOnRows(candidates=earlier.candidates + 1)
    assert level_for(judged) <= level_for(judged, earlier) <= level_for(judged, more) < 1
    assert level_for(judged, earlier) <= level_for(judged + 1, earlier)


def test_forty_rounds_of_three_still_show_twice_the_detectable_effect() -> None:
    """4.3 standard errors, of 5.6, leave 90 % power."""
    from statistics import NormalDist

    level = level_for(3, LooksOnRows(candidates=117))
    assert NormalDist().inv_cdf((1 + level) / 2) < 2 * (1.96 + 0.84) - 1.2816
