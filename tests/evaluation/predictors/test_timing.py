from __future__ import annotations

import pytest

from speciate.datasets.loading.loader import Example
from speciate.evaluation.predictors.timing import ReferenceTime, TimedModel, are_close, delayed_share, measure_by_turns
from speciate.tasks.task import Prediction

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
    assert all(len(cost.usd_turns) == len(costs[0].usd_turns) >= 5 for cost in costs)
    blocks = [name for place, name in enumerate(asked) if place == 0 or asked[place - 1] != name]
    assert len(blocks) > len(costs[0].usd_turns)
    assert all(cost.usd_interval is not None and cost.busy is None for cost in costs)


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


@pytest.mark.parametrize(
    ("costs", "close"),
    [
        ([[1.0, 1.01, 0.99, 1.0, 1.0]], True),
        ([[1.0, 1.1, 0.9, 1.0, 1.0]], False),
        ([[1.0, 1.1, 0.9, 1.0, 1.0] * 3], False),
        ([[1.0, 1.03, 0.97, 1.0, 1.0] * 3], True),  # more turns make up for it
        ([[1.0, 1.01, 0.99, 1.0, 1.0], [2.0, 2.02, 1.98, 2.0, 2.0]], True),
        ([[1.0, 1.02, 0.98, 1.01, 1.0, 1.0], [2.0, 1.96, 2.04, 1.98, 2.0, 2.0]], False),  # each is, their ratio is not
        ([[0.0] * 5], False),
        ([], True),
    ],
)
def test_turns_end_once_costs_and_their_ratios_are_known_closely(costs: list[list[float]], close: bool) -> None:
    assert are_close(costs) is close


@pytest.mark.usefixtures("measured_costs")
@pytest.mark.parametrize(("limited", "timings"), [(True, 80), (False, 72)])
def test_latency_without_a_limit_is_timed_as_often_as_bounds_a_p95(limited: bool, timings: int) -> None:
    asked: list[object] = []

    def ask(few: object) -> list[Prediction]:
        asked.append(few)
        return []

    (cost,) = measure_by_turns([TimedModel(ask, EXAMPLES, None)], latency=True, limited=limited)
    assert len(asked) == timings + 3  # warm-up
    assert cost.p95 is not None
    assert cost.p95.high < float("inf")
