"""A model is dominated only where that is certain."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


class Candidate(NamedTuple):
    value: float
    usd: float | None
    p95: float | None


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        st.sampled_from([0.5, 0.6, 0.7, 0.8]),
        st.sampled_from([None, 0.0, 1e-7, 0.01]),
        st.sampled_from([None, 0.04, 2.0]),
    ),
    min_size=1,
    max_size=6,
)
"""Often equal in one of the three; unknown as those of `nearest:` and of columns are."""


@given(st.data(), CANDIDATES, st.sampled_from(["accuracy", "mae"]))
def test_the_front_is_all_that_nothing_beats_with_known_costs_that_are_no_higher(
    data: st.DataObject, drawn: list[Candidate], metric: str
) -> None:
    named = {f"model-{place}": candidate for place, candidate in enumerate(drawn)}
    pairs, sure = list[Comparison](), set[tuple[str, str]]()
    for pair in combinations(named, 2):
        one, other = data.draw(st.permutations(pair))
        if (half := data.draw(st.sampled_from([0.05, 0.1, 0.15, None]), label="half an interval")) is None:
            continue  # what was not compared
        delta = round(named[other].value - named[one].value, 3)
        pairs.append(compared(one, other, delta, half, metric=metric))
        if abs(delta) > half:
            sure.add((one, other) if (delta < 0) == (metric == "accuracy") else (other, one))
    rows = [
        row(name, one.value, metric=metric, usd_per_1k=one.usd, p95_ms=one.p95) for name, one in named.items()
    ]  # fmt: skip
    made = report(rows, pairs)

    def no_worse(mine: float | None, theirs: float | None) -> bool:
        return mine is not None and theirs is not None and mine <= theirs

    beaten = {
        name: {
            better
            for better, worse in sure
            if worse == name
            and no_worse(named[better].usd, named[name].usd)
            and no_worse(named[better].p95, named[name].p95)
        }
        for name in named
    }
    found = pareto(made)
    assert {name: set(by) for name, by in found.dominated.items()} == {name: by for name, by in beaten.items() if by}
    assert found.front == tuple(one.model for one in made.leaderboard if not beaten[one.model])
    assert found.front, "the best is never dominated"
