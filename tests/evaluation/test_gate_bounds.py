"""Where each gate turns: from both sides of its bound."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.evaluation import gates
from speciate.use_cases import Gate
from tests.evaluation.test_gates import comparison, evidence, row

NOT_WORSE, BETTER, REACHES = Gate(rule="not_worse"), Gate(rule="better"), Gate(rule="reaches", value=0.9)
MARGIN = 0.02
"""Of `not_worse` in a metric with bounds."""


def on_reused_rows(gain: float, doubt: float, error: float) -> str:
    compared = comparison(gain, gain - doubt, gain + doubt).model_copy(update={"standard_error": error})
    return gates.judge(NOT_WORSE, evidence(row(), compared)._replace(reused=True)).outcome


@pytest.mark.parametrize(
    ("gain", "doubt", "error", "outcome"),
    [
        (0.000, 0.013, 0.003, "pass"),  # doubt and two errors lie within the margin
        (0.000, 0.015, 0.003, "inconclusive"),
        (0.000, 0.013, 0.004, "inconclusive"),
        (0.010, 0.013, 0.003, "pass"),
        (0.010, 0.015, 0.003, "inconclusive"),  # what a lucky gain alone shows
        (-0.006, 0.013, 0.003, "pass"),
        (-0.008, 0.013, 0.003, "inconclusive"),  # a loss counts
        (0.050, 0.049, 0.025, "pass"),  # surely better
        (0.050, 0.051, 0.025, "inconclusive"),
        (0.000, 0.045, 0.020, "inconclusive"),
        (-0.300, 0.045, 0.020, "inconclusive"),
    ],
)
def test_on_rows_that_chose_a_model_not_worse_takes_room_for_doubt_and_luck(
    gain: float, doubt: float, error: float, outcome: str
) -> None:
    assert on_reused_rows(gain, doubt, error) == outcome


@given(st.floats(-0.2, 0.2), st.floats(0.0005, 0.2), st.floats(0, 0.1))
def test_on_reused_rows_nothing_passes_by_a_gain_that_may_be_luck(gain: float, doubt: float, error: float) -> None:
    if on_reused_rows(gain, doubt, error) == "pass" and gain - doubt <= 0:
        assert on_reused_rows(min(gain, 0.0), doubt, error) == "pass"
        assert doubt <= MARGIN


@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("gate", [BETTER, NOT_WORSE, REACHES], ids=lambda gate: gate.rule)
@pytest.mark.parametrize(("units", "outcome"), [(4, "inconclusive"), (5, "pass"), (6, "pass")])
def test_nothing_passes_on_fewer_than_five_independent_units(
    gate: Gate, reused: bool, units: int, outcome: str
) -> None:
    compared = comparison(0.2, 0.2, 0.2).model_copy(update={"clusters": units, "standard_error": 0.0})
    grouped = evidence(row(interval=(0.95, 0.95)), compared)._replace(examples=200, clusters=units, reused=reused)
    got = gates.judge(gate, grouped)
    assert got.outcome == outcome
    assert (got.needed_groups, got.needed_examples) == (None, None) if outcome == "pass" else (20 - units, 800)


@pytest.mark.parametrize(
    ("update", "needed"),
    [
        ({"examples": 200, "clusters": 4}, (16, 800)),  # of 50 rows each
        ({"examples": 210, "clusters": 4}, (16, 840)),
        ({"examples": 4, "clusters": 4}, (None, 16)),  # rows are the units
        ({"examples": 0, "clusters": 0}, (None, 16)),
    ],
)
def test_of_too_few_units_twenty_are_asked_for(update: dict[str, Any], needed: tuple[int | None, int]) -> None:
    compared = comparison(0.2, 0.1, 0.3).model_copy(update={"clusters": 4, "n": 4})
    got = gates.judge(BETTER, evidence(row(), compared)._replace(**update))
    assert (got.outcome, got.needed_groups, got.needed_examples) == ("inconclusive", *needed)
