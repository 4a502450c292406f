"""Evaluations of a training by reward: which is the best, what is kept, and how often chance is taken for a fall."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from speciate.evaluation.statistics import Floats
from speciate.training.language.reinforcement.evaluations import Evaluations
from speciate.training.language.reinforcement.hacking import Held, Seen, warnings

SEEN = [Seen(1, 0.2, 20.0, 0.1, 0.9, 0.1, 1.5, 0.0, 0.2)]


def _groups(many: int) -> list[str]:
    return [f"group {at}" for at in range(many)]


def _held(step: int, reward: float, scores: Sequence[float]) -> Held:
    return Held(step, reward, float(np.mean(scores)), 0.08, 20.0)


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
    seen = [Held(at, reward, math.nan, math.nan, 20.0) for at, reward in enumerate((0.2, 0.4, 0.3))]
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


def _warned(draw: Draw, examples: int, evaluations: int = 10, trainings: int = 200) -> float:
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
