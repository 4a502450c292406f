"""Evaluations of a training by reward: which is the best, what is kept, and how often chance is taken for a fall."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.evaluation.statistics import Floats
from speciate.training.language.reward_hacking import (
    Evaluations,
    HeldOutEvaluation,
    Limits,
    StepStatistics,
    ends,
    measure_wording,
    nothing_suspicious,
    stop_reason,
    warnings,
)

SEEN = [StepStatistics(1, 0.2, 20.0, 0.1, 0.9, 0.1, 1.5, 0.0, 0.2)]


def _groups(many: int) -> list[str]:
    return [f"group {at}" for at in range(many)]


def _held(step: int, reward: float, scores: Sequence[float]) -> HeldOutEvaluation:
    return HeldOutEvaluation(step, reward, float(np.mean(scores)), 0.08, 20.0)


def _see(evaluations: Evaluations, step: int, reward: float, scores: Sequence[float]) -> bool:
    return evaluations.see(_held(step, reward, scores), list(map(float, scores)))


def test_the_best_is_that_of_the_metric_and_among_equals_of_the_reward_then_the_earlier() -> None:
    evaluations = Evaluations(_groups(4), "metric")
    seen = [(0.2, [0, 0, 0, 1]), (0.1, [0, 0, 1, 1]), (0.4, [1, 1, 0, 0]), (0.4, [1, 1, 0, 0]), (0.9, [0, 0, 0, 0])]
    assert [_see(evaluations, 5 * at, *each) for at, each in enumerate(seen)] == [True, True, True, False, False]
    assert evaluations.kept.step == 10
    by_reward = Evaluations(_groups(4), "reward")
    assert [_see(by_reward, 5 * at, *each) for at, each in enumerate(seen)] == [True, False, True, False, True]
    assert by_reward.kept.step == 20


def test_without_truths_the_reward_decides() -> None:
    evaluations = Evaluations([], "metric")
    seen = [HeldOutEvaluation(at, reward, math.nan, math.nan, 20.0) for at, reward in enumerate((0.2, 0.4, 0.3))]
    assert [evaluations.see(each, []) for each in seen] == [True, True, False]
    assert evaluations.difference(0, 1) is None
    assert all(math.isnan(each.p_since_best) for each in evaluations.held)


def test_scores_are_kept_of_what_a_later_evaluation_is_compared_with_and_of_nothing_else() -> None:
    evaluations = Evaluations(_groups(4), "reward")
    seen = [(0.5, [0, 0, 0, 1]), (0.1, [1, 1, 1, 1]), (0.9, [0, 0, 1, 1]), (0.3, [0, 0, 0, 0]), (0.2, [0, 0, 0, 1])]
    for at, each in enumerate(seen):
        _see(evaluations, at, *each)
    assert evaluations.scores.keys() == {0, 1, 2, 4}  # the first, the best in the metric, the best in the reward, now
    found = evaluations.difference(1, 4)
    assert found is not None
    assert found.delta == -0.75
    assert evaluations.difference(1, 3) is None


def test_differences_are_paired_and_mind_groups() -> None:
    """One example in ten changes, always to the worse: more than chance, unless all of them are of one group."""
    before, after = [1.0] * 60 + [0.0] * 40, [0.0] * 10 + [1.0] * 50 + [0.0] * 40
    alone = Evaluations(_groups(100), "metric")
    together = Evaluations([f"group {at // 10}" for at in range(100)], "metric")
    for each in (alone, together):
        _see(each, 0, 0.2, before)
        _see(each, 5, 0.9, after)
    assert alone.held[1].p_since_best == pytest.approx(2 * 0.5**10)  # McNemar
    assert [each.pattern for each in warnings(SEEN, alone.held)] == ["metric_falls"]
    assert together.held[1].p_since_best > 0.1
    assert warnings(SEEN, together.held) == []


def test_what_is_kept_of_them_goes_back_and_older_states_are_read() -> None:
    evaluations = Evaluations(_groups(4), "metric")
    for at, (reward, scores) in enumerate([(0.2, [0, 1, 1, 1]), (math.nan, [1, 1, 1, 1]), (0.4, [0, 0, 0, 1])]):
        _see(evaluations, at, reward, scores)
    state = json.loads(json.dumps(evaluations.state(), allow_nan=False))
    again = Evaluations(_groups(4), "metric")
    again.restore(state, evaluations.kept.step)
    assert (again.scores, again.kept.step, again.state()) == (evaluations.scores, 1, state)
    older = Evaluations(_groups(4), "metric")
    older.restore(state | {"held": [row[:5] for row in state["held"]]}, 1)
    assert [each[:5] for each in older.held[::2]] == [each[:5] for each in evaluations.held[::2]]
    assert all(math.isnan(each.p_since_best) for each in older.held)
    assert _see(older, 3, 0.5, [1, 1, 1, 1])
    assert math.isfinite(older.held[-1].p_since_best)


Draw = Callable[[np.random.Generator, int, int], Floats]


def _anew(random: np.random.Generator, evaluations: int, examples: int) -> Floats:
    """Each answer is right by the toss of a coin."""
    return (random.random((evaluations, examples)) < 0.5).astype(float)


def _unlike(random: np.random.Generator, evaluations: int, examples: int) -> Floats:
    """Most examples are easy or hard."""
    return (random.random((evaluations, examples)) < random.beta(0.5, 0.5, examples)).astype(float)


def _sticky(random: np.random.Generator, evaluations: int, examples: int) -> Floats:
    """One answer in five is another one than at the evaluation before."""
    drawn, changed = _anew(random, evaluations, examples), random.random((evaluations, examples)) < 0.2
    for at in range(1, evaluations):
        drawn[at] = np.where(changed[at], drawn[at], drawn[at - 1])
    return drawn


def _graded(random: np.random.Generator, evaluations: int, examples: int) -> Floats:
    """Scores between 0 and 1, such as ROUGE."""
    noise = 0.2 * random.standard_normal((evaluations, examples))
    return np.clip(random.random(examples) + noise, 0, 1)


def _falling(random: np.random.Generator, evaluations: int, examples: int) -> Floats:
    """The share that is right rises from 0.5 to 0.7 and falls to 0.3; what is hard stays hard."""
    rate = np.array([0.5, 0.6, *np.linspace(0.7, 0.3, evaluations - 2)])
    return (random.random(examples) < rate[:, None]).astype(float)


def _warned(draw: Draw, examples: int, evaluations: int = 10, trainings: int = 100) -> float:
    """The share of trainings in which `metric_falls` is said at any evaluation, where the reward rises at each."""
    random, said = np.random.default_rng(0), 0
    for _ in range(trainings):
        seen = Evaluations(_groups(examples), "metric")
        for at, scores in enumerate(draw(random, evaluations, examples)):
            _see(seen, at, float(at), scores)
            if warnings(SEEN, seen.held):
                said += 1
                break
    return said / trainings


@pytest.mark.parametrize("draw", [_anew, _unlike, _sticky, _graded])
def test_a_metric_that_does_not_change_is_said_to_fall_in_at_most_one_training_of_ten(draw: Draw) -> None:
    assert _warned(draw, 40) <= 0.1


def test_a_metric_that_falls_for_good_is_found_out() -> None:
    assert _warned(_falling, 40, trainings=50) >= 0.9


# When a training by reward is said to please the reward alone: tables of what was seen.


USUAL: dict[str, float] = {
    "reward": 0.2, "length": 20.0, "cut": 0.1, "distinct": 0.9, "alike": 0.1, "entropy": 1.5, "kl": 0.0,
    "no_spread": 0.2,
}  # fmt: skip


def _seen(count: int = 20, **last: float) -> list[StepStatistics]:
    """The second half of the steps is otherwise."""
    return [StepStatistics(step=at + 1, **(USUAL | (last if at >= count // 2 else {}))) for at in range(count)]


def _evaluation(*rows: tuple[float, float], error: float = 0.03) -> list[HeldOutEvaluation]:
    """Of rewards and metrics. None is compared by example."""
    return [HeldOutEvaluation(10 * at, reward, metric, error, 20.0) for at, (reward, metric) in enumerate(rows)]


def _compared(*rows: tuple[float, float], first: float = 1.0, best: float = 1.0) -> list[HeldOutEvaluation]:
    """The same, with the newest one's p-values."""
    *before, newest = _evaluation(*rows)
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
        (_evaluation((0.2, 0.5), (0.4, 0.6), (0.6, 0.7)), False),
        (_evaluation((0.2, 0.5), (0.4, 0.6), (0.9, 0.4)), True),  # the reward rises, the metric falls
        (_evaluation((0.2, 0.5), (0.4, 0.6), (0.9, 0.58)), False),  # by less than its error
        (_evaluation((0.2, 0.5), (0.4, 0.6), (0.3, 0.4)), False),  # both fall: a training that fails, and hacks nothing
        (_evaluation((0.2, 0.5)), False),
        (_evaluation((0.2, math.nan), (0.9, math.nan)), False),  # there are no truths
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
def test_a_reward_that_rises_while_the_metric_falls_is_said(held: list[HeldOutEvaluation], suspicious: bool) -> None:
    found = warnings(_seen(), held)
    assert [each.pattern for each in found] == (["metric_falls"] if suspicious else [])
    assert nothing_suspicious(_seen(), held) is not suspicious


def test_a_model_that_has_learned_what_it_should_may_be_sure_of_it() -> None:
    sure = _seen(entropy=0.01, alike=1.0)
    assert {each.pattern for each in warnings(sure, [])} == {"entropy", "same_answers"}
    assert warnings(sure, _evaluation((0.1, 0.1), (0.9, 0.9))) == []
    assert warnings(sure, _compared((0.1, 0.1), (0.2, 0.9), (0.9, 0.3), first=0.04)) == []
    by_chance = _compared((0.1, 0.1), (0.9, 0.3), first=0.06)
    assert {each.pattern for each in warnings(sure, by_chance)} == {"entropy", "same_answers"}
    worse = _compared((0.1, 0.3), (0.05, 0.1), first=0.0)
    assert {each.pattern for each in warnings(sure, worse)} == {"entropy", "same_answers"}


def test_no_difference_from_the_beginning_is_said_as_such() -> None:
    (found,) = warnings([StepStatistics(step=at, **(USUAL | {"no_spread": 1.0})) for at in range(1, 5)], [])
    assert "from the beginning" in found.said


def test_limits_end_a_training() -> None:
    far = _seen(kl=0.4)
    assert stop_reason(far, [], Limits()) is None
    assert "kl_limit=0.3" in (stop_reason(far, [], Limits(kl=0.3)) or "")
    assert stop_reason(far, [], Limits(kl=0.5)) is None
    assert "length_limit=30" in (stop_reason(_seen(length=40.0), [], Limits(length=30)) or "")
    assert stop_reason(_seen(no_spread=1.0), [], Limits(stop_on_hacking=True)) is None  # nothing is spoiled by it
    assert "repeat" in (stop_reason(_seen(distinct=0.2), [], Limits(stop_on_hacking=True)) or "")
    assert stop_reason([], [], Limits(0.1, 1.0, True)) is None


_NUMBERS = st.one_of(st.floats(-1e6, 1e6), st.just(math.nan))


@given(st.lists(st.tuples(*[_NUMBERS] * 8), max_size=12), st.lists(st.tuples(*[_NUMBERS] * 6), max_size=5))
def test_whatever_is_seen_the_same_is_said_again_and_ends_are_within(
    steps: list[tuple[Any, ...]], judged: list[tuple[Any, ...]]
) -> None:
    seen = [StepStatistics(at + 1, *each) for at, each in enumerate(steps)]
    held = [HeldOutEvaluation(at, *each) for at, each in enumerate(judged)]
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
    assert measure_wording(answers).distinct == pytest.approx(distinct, nan_ok=True)


def test_answers_to_a_question_that_are_the_same_are_counted() -> None:
    assert measure_wording([[1], [1], [1], [1], [2], [3], [4], [5]], each=4).alike == 0.5
    assert measure_wording([[1]] * 4, each=4).alike == 1.0
