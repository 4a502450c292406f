from __future__ import annotations

import math
import time
from typing import NamedTuple

import numpy as np
import pytest

from speciate.datasets.loading.loader import Example
from speciate.evaluation.cost_difference import is_dearer
from speciate.evaluation.payload import CostLimits
from speciate.evaluation.predictors.timing import ReferenceTime, TimedModel, are_known, delayed_share, measure_by_turns
from speciate.evaluation.statistics import quantile_interval
from speciate.tasks.task import Prediction
from tests.brief_costs import COUNTS

EXAMPLES = [Example(str(place), "text", None, "", "test", {}) for place in range(5)]
FREE, DELAYED = ReferenceTime(0.001, 0.001), ReferenceTime(0.005, 0.001)


def test_models_take_turns_in_an_order_that_alternates() -> None:
    asked: list[str] = []

    def model(name: str) -> TimedModel:
        def ask(few: object) -> list[Prediction]:
            asked.append(name)
            return [Prediction("a", None, None)] * 5

        return TimedModel(ask, EXAMPLES, 0.05)

    costs = measure_by_turns([model("a"), model("b")], latency=False)
    assert all(len(cost.usd_turns) == len(costs[0].usd_turns) >= 3 for cost in costs)
    blocks = [name for place, name in enumerate(asked) if place == 0 or asked[place - 1] != name]
    assert len(blocks) > len(costs[0].usd_turns)
    assert all(cost.usd_interval is not None and cost.busy is None for cost in costs)


@pytest.mark.parametrize(("seconds", "once"), [(0.03, True), (0.0, False)], ids=["slow", "fast"])
def test_of_a_slow_model_the_first_batch_is_the_first_turn(seconds: float, once: bool) -> None:
    asked: list[object] = []

    def ask(few: object) -> list[Prediction]:
        asked.append(few)
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        return [Prediction("a", None, None)] * 5

    (cost,) = measure_by_turns([TimedModel(ask, EXAMPLES, 3600.0)], latency=False)
    assert (len(asked) - 3 == len(cost.usd_turns)) is once  # warm-up
    assert len(cost.usd_turns) >= 3
    assert cost.usd_per_1k is not None
    assert cost.usd_per_1k >= 1000 * seconds / 5  # at a dollar a second of one core


@pytest.mark.usefixtures("measured_costs")
def test_a_model_in_another_process_has_a_latency_and_no_cost() -> None:
    (cost,) = measure_by_turns([TimedModel(lambda few: [], EXAMPLES, None)], latency=True)
    assert (cost.usd_per_1k, cost.usd_interval, cost.usd_turns) == (None, None, ())
    assert cost.p95 is not None
    assert cost.busy is not None


@pytest.mark.parametrize(
    ("milliseconds", "waits", "share"),
    [
        (1.0, [FREE] * 100, 0.0),
        (1.0, [FREE] * 90 + [DELAYED] * 10, 0.1),
        (0.1, [FREE] * 90 + [DELAYED] * 10, 0.1),
        (2.0, [FREE] * 90 + [DELAYED] * 10, 0.19),  # twice as long, twice as often
        (1.0, [], None),
    ],
)
def test_longer_answers_are_delayed_more_often(
    milliseconds: float, waits: list[ReferenceTime], share: float | None
) -> None:
    assert delayed_share(milliseconds, waits) == (None if share is None else pytest.approx(share))


NOISE = [1.0, 1.01, 0.99, 1.0, 1.0]


@pytest.mark.parametrize(
    ("costs", "known"),
    [
        ([NOISE], True),
        ([NOISE[:3]], True),
        ([NOISE[:2]], False),  # no interval
        ([[1.0, 1.5, 0.7]], False),
        ([[1.0, 1.5, 0.7] * 4], True),  # more turns make up for it
        ([[1.0, 1.2, 0.9, 1.0], [1.0] * 4], False),  # each is known, whether one is dearer is not
        ([[1.0, 1.2, 0.9, 1.0] * 3, [1.0] * 12], True),
        ([NOISE[:3], [100.0, 101.0, 99.0]], True),  # surely dearer
        ([NOISE[:3], [1.0, 1.0, 1.0]], True),  # surely not
        ([NOISE[:3], [1.25, 1.25, 1.25]], False),  # at the bound
        ([[1.0, 1.04, 0.97, 1.01, 1.0], [1.25] * 5], False),
        ([NOISE, [1.25, 1.26, 1.24, 1.25, 1.25]], True),  # at the bound, and closer it is not measured
        ([[1e-6, 1.1e-6, 0.9e-6] * 4, [1.2e-6, 1.1e-6, 1.3e-6] * 4], True),  # too little to count
        ([[0.0] * 3], True),
        ([], True),
    ],
)
def test_turns_end_once_no_decision_could_change(costs: list[list[float]], known: bool) -> None:
    assert are_known(costs) is known
    assert are_known(costs[::-1]) is known


@pytest.mark.parametrize(
    ("most", "known"), [(None, True), (2.0, True), (0.5, True), (1.0, False)], ids=["none", "within", "over", "at"]
)
def test_turns_go_on_while_a_cost_may_be_on_either_side_of_its_limit(most: float | None, known: bool) -> None:
    assert are_known([NOISE[:3]], most) is known
    assert are_known([[1.0, 1.001, 0.999, 1.0, 1.0]], most), "closer than 5 % it is not measured"


@pytest.mark.parametrize("cost", [1.0, 100.0])
def test_models_that_cost_the_same_are_never_told_apart(cost: float) -> None:
    """Whatever the noise, after as many turns as end it."""
    random, apart = np.random.default_rng(0), 0
    for _ in range(300):
        noise = random.uniform(0.02, 0.3)
        turns = cost * np.exp(random.normal(0, noise, (2, 15)))
        count = next((at for at in range(3, 15) if are_known(turns[:, :at].tolist())), 15)
        one, other = (Costed(float(np.median(each)), tuple(each)) for each in turns[:, :count].tolist())
        apart += is_dearer(one, other) or is_dearer(other, one)
    assert apart <= 6, "two of 100"


class Costed(NamedTuple):
    usd_per_1k: float | None
    usd_turns: tuple[float, ...]
    usd_interval: tuple[float, float] | None = None
    recipe: str | None = None
    parameters: int | None = None


@pytest.mark.usefixtures("measured_costs")
@pytest.mark.parametrize(("most", "timings"), [(None, 72), (1000.0, 76), (0.0, 132)])
def test_latency_is_timed_as_often_as_its_limit_needs(most: float | None, timings: int) -> None:
    asked: list[object] = []

    def ask(few: object) -> list[Prediction]:
        asked.append(few)
        return []

    (cost,) = measure_by_turns([TimedModel(ask, EXAMPLES, None)], latency=True, limits=CostLimits(most))
    assert len(asked) == timings + 3  # warm-up
    assert cost.p95 is not None
    assert cost.p95.high < float("inf")


def test_of_a_p95_at_its_limit_one_in_forty_measurements_says_that_it_is_within() -> None:
    """Both looks together: none over the limit at the first, or few enough at the second."""
    first, all_ = COUNTS["_FIRST_TIMINGS"], COUNTS["_ALL_TIMINGS"]

    def passing(count: int) -> int:
        """The most timings over the limit with which a p95 is within it."""
        return max(
            over for over in range(count) if quantile_interval([1.0] * (count - over) + [3.0] * over, 0.95).high < 2
        )

    def chance(count: int, over: int) -> float:
        return math.comb(count, over) * 0.05**over * 0.95 ** (count - over)

    at_first = chance(first, 0)
    later = sum(
        chance(first, early) * chance(all_ - first, over - early)
        for over in range(1, passing(all_) + 1)
        for early in range(1, over + 1)
    )
    assert passing(first) == 0
    assert 0.02 < at_first + later <= 0.025
