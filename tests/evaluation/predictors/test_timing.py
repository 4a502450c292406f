from __future__ import annotations

import pytest

from speciate.datasets.loading.loader import Example
from speciate.evaluation.predictors.timing import ReferenceTime, TimedModel, delayed_share, measure_by_turns
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
