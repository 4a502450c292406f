"""What came into production, and how it held, as a table of histories."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.loop.deployment_periods import DeploymentMetrics, deployment_metrics, deployment_periods
from tests.loop.histories import Step, history, moved, survived, told

_DAY = 86_400.0


def _of(*steps: Step, now: float = _DAY) -> DeploymentMetrics:
    return deployment_metrics({"digits": deployment_periods(history(*steps), now)}, now)


_FIRST = (moved(0, None, "m@v1"), survived(1, "m@v1"))
_BAD = (*_FIRST, moved(10, "m@v1", "m@v2"))
_AUTO = (*_BAD, moved(30, "m@v2", "m@v1", "rollback"), told(30, "m@v2", "bake.rolled_back", alias="production"))


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        pytest.param((), (0, 0, None, None, None), id="nothing"),
        pytest.param((moved(0, None, "m@v1"),), (0, 1, 0.0, None, 0.0), id="baking"),
        pytest.param(_FIRST, (1, 0, 0.0, None, 0.0), id="survived"),
        pytest.param((*_FIRST, moved(5, "m@v1", "m@v2"), survived(6, "m@v2")), (2, 0, 0.0, None, 0.0), id="two"),
        pytest.param((*_FIRST, moved(5, "m@v1", "m@v1"), survived(6, "m@v1")), (1, 0, 0.0, None, 0.0), id="once each"),
        pytest.param((moved(-40 * _DAY, None, "m@v1"), survived(1, "m@v1")), (0, 0, None, None, None), id="long ago"),
        pytest.param(
            (*_BAD, moved(30, "m@v2", "m@v1", "rollback")), (1, 0, 0.5, 20.0, 0.0), id="a person takes it back"
        ),
        pytest.param(_AUTO, (1, 0, 0.5, 0.0, 0.0), id="the bake takes it back at once"),
        pytest.param(
            (*_AUTO, told(35, "m@v1", "slot.serving", at=32.0)), (1, 0, 0.5, 2.0, 0.0), id="and a deployment serves it"
        ),
        pytest.param(
            (*_BAD, told(12, "m@v2", "bake.broken"), moved(30, "m@v2", "m@v3"), survived(40, "m@v3")),
            (2, 0, 1 / 3, 18.0, 1 / 3), id="mended by the next version",
        ),
        pytest.param((*_BAD, told(12, "m@v2", "bake.broken")), (1, 0, 0.5, None, 0.0), id="broken, and still there"),
        pytest.param(
            (*_BAD, told(12, "m@v1", "bake.broken", alias="canary")), (1, 1, 0.0, None, 0.0), id="a canary's limit"
        ),
    ],
)  # fmt: skip
def test_deliveries_of_thirty_days(steps: tuple[Step, ...], found: tuple[Any, ...]) -> None:
    assert _of(*steps) == found


def test_an_export_is_no_other_model() -> None:
    steps = history(*_FIRST, moved(5, "m@v1", "m-int8@v1"), survived(6, "m-int8@v1"))
    served = {"digits": deployment_periods(steps, _DAY)}
    assert deployment_metrics(served, _DAY).models_deployed_30d == 2
    assert deployment_metrics(served, _DAY, {"m-int8@v1": "m-onnx@v1", "m-onnx@v1": "m@v1"}).models_deployed_30d == 1


_steps = st.lists(
    st.one_of(
        st.builds(
            moved, st.integers(0, 60).map(float), st.none(), st.sampled_from("abc"),
            st.sampled_from(["promote", "rollback"]),
        ),
        st.builds(
            told, st.integers(0, 60).map(float), st.sampled_from("abc"),
            st.sampled_from(["promotion.survived", "bake.broken", "bake.rolled_back", "slot.serving"]),
        ),
    ),
    max_size=20,
)  # fmt: skip


@given(_steps, st.integers(0, 70).map(float))
def test_rates_are_shares_and_times_are_not_negative(steps: list[Step], now: float) -> None:
    found = _of(*steps, now=now)
    assert 0 <= (found.change_failure_rate or 0) <= 1
    assert 0 <= (found.rework_rate or 0) <= 1
    assert (found.seconds_to_recover or 0) >= 0
    assert found.models_deployed_30d + found.models_baking_30d <= 3
    assert (found.seconds_to_recover is None) or found.change_failure_rate
