"""Time to model as a table of histories."""

from __future__ import annotations

from typing import Any

import pytest

from speciate.production.ledger import deliveries, time_to_model
from speciate.workspace.database import Event

_DAY = 86_400.0


def _history(*steps: tuple[float, str, str, dict[str, Any]]) -> list[Event]:
    return [Event(seq, *step) for seq, step in enumerate(steps, 1)]


def _moved(
    at: float, before: str | None, after: str, action: str = "promote"
) -> tuple[float, str, str, dict[str, Any]]:
    return at, "use_case:digits", "alias.moved", {"before": before, "after": after, "action": action}


def _answered(at: float, model: str) -> tuple[float, str, str, dict[str, Any]]:
    return at, "use_case:digits", "production.answered", {"model": model}


_CREATED = (100.0, "use_case:digits", "use_case.created", {"version": 1})
_WHOLE = _history(
    _CREATED,
    (110.0, "dataset:digits", "dataset.created", {"version": 1}),
    (140.0, "model:m", "model.created", {"model": "m@v1"}),
    (150.0, "use_case:digits", "decision.made", {"candidate": "m@v1"}),
    _moved(155.0, None, "m@v1"),
    _answered(156.0, "m@v1"),
)


def test_the_stages_add_up_to_the_time_to_model() -> None:
    clock = time_to_model("digits", _WHOLE, 999.0, "digits@v1")
    assert clock.state == "provisional"
    assert clock.seconds == 56.0
    assert clock.stages == {"data": 10.0, "train": 30.0, "evaluate": 10.0, "promote": 5.0, "first_answer": 1.0}
    assert sum(clock.stages.values()) == clock.seconds


def test_the_clock_runs_until_production_answers() -> None:
    clock = time_to_model("digits", _WHOLE[:-1], 400.0)
    assert (clock.state, clock.seconds, clock.model) == ("open", 300.0, None)


def test_data_that_were_there_before_the_clock_started_cost_nothing() -> None:
    early = (50.0, "dataset:digits", "dataset.created", {"version": 1})
    clock = time_to_model(
        "digits", _history(early, _CREATED, _moved(120.0, None, "m@v1"), _answered(130.0, "m@v1")), 0, "digits@v1"
    )
    assert clock.stages == {"data": 0.0, "promote": 20.0, "first_answer": 10.0}


def test_the_answer_of_a_version_that_was_rolled_back_does_not_count() -> None:
    bad = _history(
        _CREATED, _moved(110.0, "old@v1", "m@v1"), _answered(111.0, "m@v1"), _moved(120.0, "m@v1", "old@v1", "rollback")
    )
    assert time_to_model("digits", bad, 200.0).state == "open"
    mended = [*bad, *_history(_moved(150.0, "old@v1", "m@v2"), _answered(160.0, "m@v2"))]
    clock = time_to_model("digits", mended, 200.0)
    assert (clock.state, clock.seconds, clock.model) == ("provisional", 60.0, "m@v2")


def test_another_use_case_does_not_stop_the_clock() -> None:
    other = (110.0, "use_case:other", "production.answered", {"model": "m@v1"})
    assert time_to_model("digits", _history(_CREATED, other), 200.0).state == "open"


@pytest.mark.parametrize(
    ("steps", "deployed", "rate"),
    [
        ([], 0, None),
        ([_moved(0, None, "m@v1")], 1, 0.0),
        ([_moved(0, None, "m@v1"), _moved(1, "m@v1", "m@v2")], 2, 0.0),
        ([_moved(0, None, "m@v1"), _moved(1, "m@v1", "m@v2"), _moved(2, "m@v2", "m@v1", "rollback")], 1, 0.5),
        ([_moved(-40 * _DAY, None, "m@v1")], 0, None),
    ],
)
def test_deliveries_of_thirty_days(
    steps: list[tuple[float, str, str, dict[str, Any]]], deployed: int, rate: float | None
) -> None:
    found = deliveries(_history(*steps), now=_DAY)
    assert (found.models_deployed_30d, found.change_failure_rate) == (deployed, rate)
