"""Which of several judged candidates goes forward, and why, in words. Pure.

Where the best is wanted, it is the first that passes of an order that was fixed before the test rows were looked at
(candidate_order.py); else the cheapest that passes, unless a dearer one surely beats it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from speciate.evaluation.candidate_order import doubt_of
from speciate.evaluation.cost_difference import is_dearer
from speciate.evaluation.gates import figure, usd
from speciate.evaluation.reports.report import (
    Comparison,
    Decision,
    Row,
    ValidationEvidence,
    Verdict,
    dominates,
)
from speciate.vocabulary import find_metric

_BY_VERDICT: tuple[Verdict, ...] = ("promote", "inconclusive", "hold")


def choose(
    decisions: Mapping[str, Decision],
    rows: Mapping[str, Row],
    gain: Callable[[str, str], Comparison | None],
    order: Sequence[ValidationEvidence] = (),
) -> str:
    """The model to put forward: the cheapest that passes, unless a dearer one surely beats it; else the best value.

    `gain(baseline, candidate)` is their comparison. Ascending in cost, the pick moves on only where the paired
    interval excludes zero. With an `order` it is the first there that passes, else the first that more rows may let
    pass, else the first.
    """
    if order:
        sequence = [*(one.model for one in order if one.model in decisions), *decisions]
        return min(sequence, key=lambda name: _BY_VERDICT.index(decisions[name].verdict))
    passing = [name for name, decision in decisions.items() if decision.verdict == "promote"]
    if not passing:
        return max(decisions, key=lambda name: _signed_value(rows[name]))
    cheapest = rows[min(passing, key=lambda name: _cost(rows[name]))]
    passing.sort(key=lambda name: _cost(rows[name] if is_dearer(rows[name], cheapest) else cheapest))
    pick = passing[0]
    for name in passing[1:]:
        comparison = gain(pick, name)
        improvement = comparison.improvement() if comparison else None
        if improvement and improvement[1][0] > 0:
            pick = name
    return pick


def why_it(
    chosen: str, decisions: Mapping[str, Decision], rows: Mapping[str, Row], order: Sequence[ValidationEvidence]
) -> str | None:
    """Why this one goes forward and no other, with the figures that the order is by; None where it is the only one that
    might."""
    if len(order) < 2:
        return _why_of_several(chosen, decisions, rows)
    listed = [one for one in order if one.model in decisions]
    unjudged = [one.model for one in order if one.model not in decisions]
    behind, comes = " and ".join(unjudged), "comes" if len(unjudged) == 1 else "come"
    metric = rows[chosen].metric
    most = max(one.n for one in order)
    figures = ", ".join(f"{one.model} {_evidence(one, most)}" for one in order)
    said = (
        f"aim 'best': validation examples fixed the order of the candidates before the test rows were looked at, by "
        f"{find_metric(metric).plain}: {figures}"
    )
    place = next((at for at, one in enumerate(listed) if one.model == chosen), len(listed))
    if decisions[chosen].verdict != "promote" and behind:
        return f"{said}. {chosen} was judged first, by itself, and does not pass; then {comes} {behind}"
    if decisions[chosen].verdict != "promote":
        return f"{said}. None of them passes, and {chosen} is the first of those that come nearest"
    if behind:
        return (
            f"{said}. {chosen} was judged first, by itself, and passes every gate. So {behind} stayed unjudged: each "
            "further candidate makes the intervals wider, now and later"
        )
    before = [one.model for one in listed[:place]]
    went = f"{said}. {chosen} is the first that passes every gate"
    if before:
        went += f"; before it {' and '.join(before)} {'does' if len(before) == 1 else 'do'} not"
    cheaper = [
        one.model
        for one in listed
        if decisions[one.model].verdict == "promote" and is_dearer(rows[chosen], rows[one.model])
    ]
    if cheaper:
        costs = " and ".join(f"{name} ({usd(rows[name])})" for name in cheaper)
        went += (
            f". {costs} would pass, too, and cost less than {chosen} ({usd(rows[chosen])}): aim 'pass', or "
            f"promote_model(model={cheaper[0]!r}), takes the cheaper one"
        )
    return went


def _why_of_several(chosen: str, decisions: Mapping[str, Decision], rows: Mapping[str, Row]) -> str | None:
    """Why this one of several that pass."""
    others = [name for name, decision in decisions.items() if decision.verdict == "promote" and name != chosen]
    if not others or decisions[chosen].verdict != "promote":
        return None
    cheaper = [name for name in others if is_dearer(rows[chosen], rows[name])]
    shown = " and ".join(f"{name} ({usd(rows[name])})" for name in cheaper or others)
    if cheaper:
        than = "it" if len(cheaper) == 1 else "one of them"
        return f"{shown} would pass, too, and cost less: {chosen} ({usd(rows[chosen])}) is surely better than {than}"
    better = "it is not" if len(others) == 1 else "none of them is"
    return f"{shown} would pass, too; {better} surely better, and {chosen} ({usd(rows[chosen])}) costs no more"


def why_another(
    named: str,
    decisions: Mapping[str, Decision],
    rows: Mapping[str, Row],
    gain: Callable[[str, str], Comparison | None],
) -> str | None:
    """Which others pass that are surely better and no dearer than the passing one that the call put forward."""
    passing = [name for name, decision in decisions.items() if decision.verdict == "promote"]
    if named not in passing:
        return None
    better = [name for name in passing if name != named and dominates(rows[name], rows[named], gain)]
    if not better:
        return None
    are = "is" if len(better) == 1 else "are"
    return (
        f"{named} goes forward as the call names it, but {' and '.join(better)} would pass, too, and {are} surely "
        f"better at no higher cost and latency: promote_model(model={better[0]!r}) takes that one"
    )


def dominated(row: Row, others: Sequence[Row], gain: Callable[[str, str], Comparison | None]) -> bool:
    """Whether some other model is surely better and no worse in cost and latency."""
    return any(dominates(other, row, gain) for other in others if other.model != row.model)


def _evidence(one: ValidationEvidence, most: int) -> str:
    """`0.82 (out-of-fold, 400 rows)`, with the doubt that it has, if any."""
    value, doubt = "not known" if one.value is None else figure(one.value), doubt_of(one, most)
    less = f"; one standard error less: {doubt}" if doubt and one.value is not None else ""
    return f"{value} ({one.how}, {one.n:,} rows{less})"


def _cost(row: Row) -> float:
    return row.usd_per_1k if row.usd_per_1k is not None else float("inf")


def _signed_value(row: Row) -> float:
    """Greater is better."""
    return find_metric(row.metric).sign * row.value if row.value is not None else float("-inf")
