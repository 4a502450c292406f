"""Which models another one surely beats without costing more, and which are left to choose from. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from speciate.evaluation.report import Comparison, Report, Row


class Pareto(NamedTuple):
    """`dominated`: each model that is, with those that dominate it. `front` holds all others, the best value first.

    A model is dominated only where the paired interval of the difference excludes zero and both costs and both
    latencies are known: what was not measured, or cannot be told apart, stays to be chosen from.
    """

    front: tuple[str, ...]
    dominated: dict[str, tuple[str, ...]]


def pareto(report: Report) -> Pareto:
    by = {
        row.model: tuple(other.model for other in report.leaderboard if dominates(other, row, report.compare))
        for row in report.leaderboard
    }
    return Pareto(tuple(model for model, others in by.items() if not others), {m: o for m, o in by.items() if o})


def dominates(one: Row, other: Row, gain: Callable[[str, str], Comparison | None]) -> bool:
    """Whether `one` is surely better than `other` and no worse in cost and latency. `gain(baseline, candidate)`."""
    comparison = gain(other.model, one.model)
    improvement = comparison.improvement() if comparison else None
    if not improvement or improvement[1][0] <= 0:
        return False
    pairs = ((one.usd_per_1k, other.usd_per_1k), (one.p95_ms, other.p95_ms))
    return all(mine is not None and theirs is not None and mine <= theirs for mine, theirs in pairs)
