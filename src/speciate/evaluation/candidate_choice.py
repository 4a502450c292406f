"""Which of several judged candidates goes forward. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from speciate.evaluation.cost_difference import is_dearer
from speciate.evaluation.reports.report import Comparison, Decision, Row, dominates
from speciate.vocabulary import find_metric


def choose(
    decisions: Mapping[str, Decision], rows: Mapping[str, Row], gain: Callable[[str, str], Comparison | None]
) -> str:
    """The model to put forward: the cheapest that passes, unless a dearer one surely beats it; else the best value.

    `gain(baseline, candidate)` is their comparison. Ascending in cost, the pick moves on only where the paired
    interval excludes zero.
    """
    passing = [name for name, decision in decisions.items() if decision.verdict == "promote"]
    if not passing:
        return max(decisions, key=lambda name: _standing(rows[name]))
    cheapest = rows[min(passing, key=lambda name: _cost(rows[name]))]
    passing.sort(key=lambda name: _cost(rows[name] if is_dearer(rows[name], cheapest) else cheapest))
    pick = passing[0]
    for name in passing[1:]:
        comparison = gain(pick, name)
        improvement = comparison.improvement() if comparison else None
        if improvement and improvement[1][0] > 0:
            pick = name
    return pick


def dominated(row: Row, others: Sequence[Row], gain: Callable[[str, str], Comparison | None]) -> bool:
    """Whether some other model is surely better and no worse in cost and latency."""
    return any(dominates(other, row, gain) for other in others if other.model != row.model)


def _cost(row: Row) -> float:
    return row.usd_per_1k if row.usd_per_1k is not None else float("inf")


def _standing(row: Row) -> float:
    return find_metric(row.metric).sign * row.value if row.value is not None else float("-inf")
