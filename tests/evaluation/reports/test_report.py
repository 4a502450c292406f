"""A model is dominated only where that is certain."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest

from speciate.evaluation.reports.report import Comparison, Pareto, pareto
from tests.evaluation.handmade import compared, report, row


def two(half: float, **cheap: float | None) -> Pareto:
    """`good` is better by 0.1, plus or minus `half`; both cost the same unless `cheap` says more of `good`."""
    rows = [row("poor", 0.7), row("good", 0.8, **cheap)]
    return pareto(report(rows, [compared("poor", "good", 0.1, half)]))


def test_a_model_is_dominated_where_another_is_surely_better_at_no_more_cost() -> None:
    assert two(half=0.05) == Pareto(("good",), {"poor": ("good",)})


@pytest.mark.parametrize("half", [0.1, 0.2])
def test_an_interval_that_holds_zero_dominates_nobody(half: float) -> None:
    assert two(half).front == ("good", "poor")


@pytest.mark.parametrize("cost", [{"usd_per_1k": 0.02}, {"p95_ms": 3.0}, {"usd_per_1k": None}, {"p95_ms": None}])
def test_what_costs_more_or_is_not_measured_dominates_nobody(cost: dict[str, float | None]) -> None:
    assert two(half=0.01, **cost).dominated == {}


def test_without_a_comparison_nobody_is_dominated() -> None:
    assert pareto(report([row("poor", 0.1), row("good", 0.9)])).front == ("good", "poor")


def test_lower_is_better_where_the_metric_says_so() -> None:
    rows = [row("far", 5.0, metric="mae"), row("near", 3.0, metric="mae")]
    assert pareto(report(rows, [compared("far", "near", -2.0, metric="mae")])).dominated == {"far": ("near",)}


def test_a_hundred_models_have_their_front_from_one_pass_over_their_pairs() -> None:
    names = [f"m{number:03}" for number in range(100)]
    pairs = [compared(one, other, 0.1, 0.01) for one, other in combinations(names, 2)]
    read = 0

    class Counted(tuple[Comparison, ...]):
        def __iter__(self) -> Iterator[Comparison]:
            nonlocal read
            for pair in super().__iter__():
                read += 1
                yield pair

    made = report([row(name, 0.5) for name in names], pairs).model_copy(update={"comparisons": Counted(pairs)})
    front = pareto(made)
    assert front.front == ("m099",)
    assert len(front.dominated["m000"]) == 99
    assert read <= len(pairs)
    assert made.compare("m001", "m000").delta == -0.1  # type: ignore[union-attr]
