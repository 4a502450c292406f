"""Gates to a verdict: pure functions from measured rows and comparisons to promote, hold or inconclusive.

Every gate about quality looks at an interval, never at a point, so it has three answers: it surely holds, it surely
does not, or the data cannot tell. One failure holds a candidate back; without a failure, one that cannot be told
makes the verdict inconclusive, with the number of further examples that would settle it.

Where several candidates are judged at once the intervals are wider (`level_for`): the best of many tries is lucky.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from speciate.evaluation.metrics import Answers, averaged, corpus_mean
from speciate.evaluation.reports.report import (
    Comparison,
    Decision,
    GateResult,
    Interval,
    Outcome,
    Row,
    Verdict,
    dominates,
)
from speciate.evaluation.statistics import Codes, Difference, bootstrap_difference, paired_difference, resample
from speciate.sample_size import LEVEL, detectable, in_rows, more_needed
from speciate.use_cases import CONSTANT, NOT_WORSE_MARGIN, NOT_WORSE_SHARE, Gate, UseCaseLimits
from speciate.vocabulary import Metric, find_metric

DEARER = 1.25
"""Costs are measured, so a candidate counts as dearer only beyond this ratio."""

_LEAST_USD = 0.0001


class SliceGain(NamedTuple):
    """Candidate minus baseline, signed so that better is positive; ends are NaN where nothing can be told."""

    value: str
    n: int
    gain: float
    low: float
    high: float
    highest: float
    """The upper end at the level with which all values together keep the asked one (Bonferroni)."""
    standard_error: float


class Evidence(NamedTuple):
    """All that gates may look at. `comparisons` holds candidate against baseline, by metric."""

    metric: str
    candidate: Row
    baseline: Row
    comparisons: Mapping[str, Comparison]
    limits: UseCaseLimits
    level: float = LEVEL
    """Of the intervals in the rows and comparisons."""
    examples: int = 0
    """Test rows of all labels; a metric about one label counts fewer."""
    positive_label: str | None = None
    slices: Mapping[tuple[str, str], Sequence[SliceGain]] = {}
    """By metric and column: the gains over the baseline within each value."""


class _GateAnswer(NamedTuple):
    outcome: Outcome
    reason: str
    needed: int | None = None


def level_for(candidates: int) -> float:
    """The level of each candidate's intervals with which all of them together keep 95 % (Bonferroni)."""
    return 1 - (1 - LEVEL) / max(1, candidates)


def decide(gates: Sequence[Gate], evidence: Evidence) -> Decision:
    """The verdict of all gates on one candidate."""
    return _verdict([judge(gate, evidence) for gate in gates], evidence)


def judge(gate: Gate, evidence: Evidence) -> GateResult:
    """One gate's answer and its reason, a sentence with the numbers in it."""
    outcome, reason, needed = _RULES[gate.rule](gate, evidence)
    return GateResult(gate=gate, outcome=outcome, reason=reason, needed_examples=needed)


def is_dearer(candidate: Row, baseline: Row) -> bool:
    """Whether answers of the candidate cost more; also where the baseline's cost is unknown, to be careful."""
    if candidate.usd_per_1k is None or baseline.usd_per_1k is None:
        return True
    return candidate.usd_per_1k > DEARER * baseline.usd_per_1k


def prefer_cheaper(decision: Decision, evidence: Evidence, cheaper: Row, over: Comparison | None) -> Decision:
    """The decision once a cheaper model that passes its own gates is known: the candidate must surely beat it."""
    gain = over.improvement() if over else None
    if gain and gain[1][0] > 0:
        return decision
    found = f"the gain over it is {_span(*gain)}" if gain else "nothing shows a gain over it"
    reason = f"{cheaper.model} passes every gate and costs less ({_usd(cheaper)}); {found}, which does not exclude zero"
    blocked = GateResult(gate=Gate(rule="better_if_dearer"), outcome="fail", reason=reason)
    return _verdict([*decision.gates, blocked], evidence)


def choose(
    decisions: Mapping[str, Decision], rows: Mapping[str, Row], gain: Callable[[str, str], Comparison | None]
) -> str:
    """The model to put forward: the cheapest that passes, unless a dearer one surely beats it; else the best value.

    `gain(baseline, candidate)` is their comparison. Ascending in cost, the pick moves on only where the paired
    interval excludes zero.
    """
    passing = sorted(
        (name for name, decision in decisions.items() if decision.verdict == "promote"),
        key=lambda name: _cost(rows[name]),
    )
    if not passing:
        return max(decisions, key=lambda name: _standing(rows[name]))
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


def _reaches(gate: Gate, evidence: Evidence) -> _GateAnswer:
    metric, target = _metric(gate, evidence), gate.value
    measured = evidence.candidate.metrics.get(metric.name)
    if measured is None or measured.value is None or measured.interval is None or target is None:
        return _GateAnswer("inconclusive", f"{metric.name} has no interval{_why(measured.note if measured else '')}")
    best_case, worst_case = measured.interval[::-1] if metric.sign > 0 else measured.interval
    stated = f"{metric.name} is {_span(measured.value, measured.interval)}"
    if metric.sign * (worst_case - target) >= 0:
        return _GateAnswer("pass", f"{stated}: reaches {target:g}")
    if metric.sign * (best_case - target) < 0:
        return _GateAnswer("fail", f"{stated}: short of {target:g}")
    needed = more_needed(measured.n, measured.standard_error or 0.0, measured.value - target, evidence.level)
    doubt = f"{stated}: {measured.n} examples cannot tell whether it reaches {target:g}"
    return _undecided(doubt, metric, measured.n, needed, evidence)


def _not_worse(gate: Gate, evidence: Evidence) -> _GateAnswer:
    metric = _metric(gate, evidence)
    margin = gate.value if gate.value is not None else _margin(metric, evidence.baseline)
    judged = _gain(evidence, metric, -margin, -margin, f"not worse than {_rival(evidence)} by {margin:.3g}")
    allowed = judged.outcome == "pass" and gate.value is not None
    return judged if allowed else _surely_worse(evidence, metric) or judged


def _surely_worse(evidence: Evidence, metric: Metric) -> _GateAnswer | None:
    """A failure where the whole interval is a loss and no lower price pays for it."""
    comparison = evidence.comparisons.get(metric.name)
    improvement = comparison.improvement() if comparison else None
    candidate, baseline = evidence.candidate, evidence.baseline
    if improvement is None or improvement[1][1] >= 0 or _is_cheaper(candidate, baseline):
        return None
    lost = f"gain in {metric.name} {_span(*improvement)}: worse than {_rival(evidence)}"
    return _GateAnswer("fail", f"{lost}, and not shown to be cheaper: {_prices(candidate, baseline)}")


def _better(gate: Gate, evidence: Evidence) -> _GateAnswer:
    metric, least = _metric(gate, evidence), gate.value or 0.0
    more = f" by {least:.3g}" if least else ""
    return _gain(evidence, metric, least, least, f"better than {_rival(evidence)}{more}")


def _better_if_dearer(gate: Gate, evidence: Evidence) -> _GateAnswer:
    """Fails also where even the best case is a gain too small to pay for."""
    candidate, baseline = evidence.candidate, evidence.baseline
    if not is_dearer(candidate, baseline):
        return _GateAnswer("pass", f"costs {_usd(candidate)}, no more than {_rival(evidence)} ({_usd(baseline)})")
    metric, least = _metric(gate, evidence), gate.value or 0.0
    known = baseline.usd_per_1k is not None and candidate.usd_per_1k is not None
    why = f"costs more: {_prices(candidate, baseline)}" if known else "cannot be shown to cost no more"
    claim = f"better than {_rival(evidence)}, as it must be since it {why}"
    return _gain(evidence, metric, least, max(least, _margin(metric, baseline)), claim)


def _gain(evidence: Evidence, metric: Metric, least: float, worth: float, claim: str) -> _GateAnswer:
    """`claim` holds where the gain surely exceeds `least`, and not where it surely stays below `worth`."""
    comparison = evidence.comparisons.get(metric.name)
    improvement = comparison.improvement() if comparison else None
    if comparison is None or improvement is None:
        return _GateAnswer("inconclusive", f"{metric.name}: there is no paired interval to show '{claim}'")
    gain, (low, high) = improvement
    stated = f"gain in {metric.name} {_span(gain, (low, high))}"
    if low > least:
        return _GateAnswer("pass", f"{stated}: {claim}")
    if high <= least or high < worth:
        return _GateAnswer("fail", f"{stated}: not '{claim}'")
    seen = _detectable_gains(comparison, metric, evidence.baseline)
    needed = more_needed(comparison.n, comparison.standard_error or 0.0, gain - least, evidence.level)
    counted = evidence.candidate.metrics.get(metric.name)
    n = counted.n if counted else comparison.n
    return _undecided(f"{stated}: cannot tell '{claim}'{seen}", metric, n, needed, evidence)


def _detectable_gains(comparison: Comparison, metric: Metric, baseline: Row) -> str:
    """Which gains so many examples show; of a metric with a best value maybe none."""
    effect, had = comparison.minimum_detectable_effect, baseline.metrics.get(metric.name)
    least = None if effect is None else detectable(effect, metric, had.value if had else None)
    if least is not None:
        return f"; {comparison.n} examples show gains from {least:.3g}"
    best = metric.high if metric.sign > 0 else metric.low
    if best is None:
        return ""
    return f"; {comparison.n} examples are too few to show any gain: the best {metric.name} is {best:g}"


def _undecided(doubt: str, metric: Metric, n: int, needed: int | None, evidence: Evidence) -> _GateAnswer:
    """The doubt with what would settle it, in rows of all labels. `n`, `needed`: those that the metric counts."""
    if needed is None:
        return _GateAnswer("inconclusive", doubt)
    if n >= evidence.examples:
        return _GateAnswer("inconclusive", f"{doubt}; about {needed:,} further test examples would", needed)
    rows, label = in_rows(needed, n / evidence.examples), f"labelled {evidence.positive_label!r}"
    kind = f"not {label}" if metric.name == "specificity" else label
    if evidence.positive_label is None:
        kind = "of the kind that it counts"
    more = f"{needed:,} further test examples {kind} (about {rows:,} further test rows at the present share)"
    return _GateAnswer("inconclusive", f"{doubt}; {more} would", rows)


def _at_most(gate: Gate, evidence: Evidence) -> _GateAnswer:
    row, name, most = evidence.candidate, str(gate.metric), gate.value
    value = {
        "p95_latency_ms": row.p95_ms, "usd_per_1k": row.usd_per_1k, "parameters": row.parameters,
        "memory_mb": row.memory_mb,
    }.get(name)  # fmt: skip
    if value is None or most is None:
        return _GateAnswer("inconclusive", f"{name} was not measured")
    if name == "p95_latency_ms":
        return _latency(row, value, most)
    outcome: Outcome = "pass" if value <= most else "fail"
    return _GateAnswer(outcome, f"{name} {value:.4g} {'within' if outcome == 'pass' else 'over'} {most:.4g}")


def _latency(row: Row, value: float, most: float) -> _GateAnswer:
    if row.p95_interval is None:
        return _GateAnswer("inconclusive", f"p95 latency {value:.3g} ms rests on too few timings")
    low, high = row.p95_interval
    stated = f"p95 latency {value:.3g} ms ({low:.3g} to {high:.3g}) on {row.device}"
    if high <= most:
        return _GateAnswer("pass", f"{stated}: within {most:g} ms")
    outcome: Outcome = "fail" if low > most else "inconclusive"
    return _GateAnswer(
        outcome, f"{stated}: {'over' if outcome == 'fail' else 'cannot tell whether within'} {most:g} ms"
    )


def _license(gate: Gate, evidence: Evidence) -> _GateAnswer:
    license_, allowed = evidence.candidate.control.license, evidence.limits.licenses
    if license_ is not None and license_.lower() in {name.lower() for name in allowed}:
        return _GateAnswer("pass", f"licence {license_} is allowed")
    return _GateAnswer(
        "fail", f"licence {license_ or 'unknown'} is not among {', '.join(allowed) or 'the allowed (none)'}"
    )


def _offline(gate: Gate, evidence: Evidence) -> _GateAnswer:
    if evidence.candidate.control.offline:
        return _GateAnswer("pass", "runs without a network")
    return _GateAnswer("fail", "needs a network")


def _unseen(gate: Gate, evidence: Evidence) -> _GateAnswer:
    row = evidence.candidate
    if row.seen is None:
        return _GateAnswer(
            "inconclusive", "the data that it learned from are not here: whether it saw these is unknown"
        )
    if row.seen:
        return _GateAnswer("fail", f"{row.seen} of these examples were in its training data: it knows their answers")
    if row.nearly_seen:
        return _GateAnswer("fail", f"{row.nearly_seen} of these examples have a near-duplicate in its training data")
    return _GateAnswer("pass", "none of these examples was in its training data")


def _no_slice_worse(gate: Gate, evidence: Evidence) -> _GateAnswer:
    """Holds where it holds in every slice, each at the full level (an intersection-union test, Berger 1982); fails
    where one slice is surely worse by more than the margin, for all that were looked at (Bonferroni)."""
    metric = _metric(gate, evidence)
    margin = gate.value if gate.value is not None else _margin(metric, evidence.baseline)
    found = evidence.slices.get((metric.name, str(gate.column)), ())
    if not found:
        return _GateAnswer("inconclusive", f"there are no slices by {gate.column!r}")
    judged = [each for each in found if math.isfinite(each.low)]
    claim = f"no value of {gate.column!r} worse in {metric.name} by {margin:.3g}"
    worst = min(judged, key=lambda each: each.low, default=None)
    stated = f"worst bound: {worst.value[:64]!r} {_span(worst.gain, (worst.low, worst.high))}" if worst else ""
    if surely := [each for each in judged if each.highest < -margin]:
        named = ", ".join(f"{each.value[:64]!r} {_span(each.gain, (each.low, each.high))}" for each in surely[:3])
        return _GateAnswer("fail", f"not '{claim}': {named}")
    if worst is not None and len(judged) == len(found) and worst.low > -margin:
        return _GateAnswer("pass", f"{claim}; {stated}")
    if worst is None or len(judged) < len(found):
        unknown = ", ".join(repr(each.value[:64]) for each in found if each not in judged)
        return _GateAnswer("inconclusive", f"cannot tell '{claim}': {unknown} gives no interval; {stated}")
    needed = more_needed(worst.n, worst.standard_error, worst.gain + margin, evidence.level)
    rows = None if needed is None else in_rows(needed, worst.n / max(1, evidence.examples))
    return _GateAnswer("inconclusive", f"cannot tell '{claim}'; {stated}, on {worst.n} examples", rows)


_RULES: dict[str, Callable[[Gate, Evidence], _GateAnswer]] = {
    "reaches": _reaches, "not_worse": _not_worse, "better": _better, "better_if_dearer": _better_if_dearer,
    "at_most": _at_most, "license": _license, "offline": _offline, "unseen": _unseen,
    "no_slice_worse": _no_slice_worse,
}  # fmt: skip


def _verdict(results: Sequence[GateResult], evidence: Evidence) -> Decision:
    outcomes = {result.outcome for result in results}
    verdict: Verdict = "hold" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "promote"
    order = ("fail", "inconclusive", "pass")
    needed = [r.needed_examples for r in results if r.needed_examples is not None and r.outcome == "inconclusive"]
    return Decision(
        verdict=verdict,
        reasons=tuple(result.reason for result in sorted(results, key=lambda result: order.index(result.outcome))),
        needed_examples=max(needed) if needed and verdict == "inconclusive" else None,
        candidate=evidence.candidate.model,
        baseline=evidence.baseline.model,
        gates=tuple(results),
    )


def _metric(gate: Gate, evidence: Evidence) -> Metric:
    return find_metric(gate.metric or evidence.metric)


def _margin(metric: Metric, baseline: Row) -> float:
    measured = baseline.metrics.get(metric.name)
    if metric.bounded or measured is None or measured.value is None:
        return NOT_WORSE_MARGIN
    return NOT_WORSE_SHARE * abs(measured.value)


def _rival(evidence: Evidence) -> str:
    """The baseline in words."""
    if evidence.baseline.model != CONSTANT:
        return evidence.baseline.model
    numbers = "regression" in find_metric(evidence.metric).families
    return f"always answering the {'mean' if numbers else 'most frequent label'}"


def _is_cheaper(candidate: Row, baseline: Row) -> bool:
    return candidate.usd_per_1k is not None and baseline.usd_per_1k is not None and is_dearer(baseline, candidate)


def _cost(row: Row) -> float:
    return row.usd_per_1k if row.usd_per_1k is not None else float("inf")


def _standing(row: Row) -> float:
    return find_metric(row.metric).sign * row.value if row.value is not None else float("-inf")


def _span(value: float, interval: Interval) -> str:
    return f"{value:.3g} ({interval[0]:.3g} to {interval[1]:.3g})"


def _usd(row: Row) -> str:
    usd = row.usd_per_1k
    if usd is None:
        return "an unknown price"
    if 0 < usd < _LEAST_USD:
        return f"under ${_LEAST_USD} per 1,000"
    return f"${usd:,.0f} per 1,000" if usd >= 1000 else f"${usd:.3g} per 1,000"


def _prices(candidate: Row, baseline: Row) -> str:
    """Both; where rounding hides which is the dearer one, with how many times as much the candidate costs."""
    shown = (_usd(candidate), _usd(baseline))
    times = ""
    if shown[0] == shown[1] and candidate.usd_per_1k and baseline.usd_per_1k:
        times = f", {candidate.usd_per_1k / baseline.usd_per_1k:.2g} times as much"
    return f"{shown[0]} against {shown[1]}{times}"


def _why(note: str) -> str:
    return f": {note}" if note else ""


LEAST_EXAMPLES = 20
"""Independent examples that a value needs to be judged by itself; rarer values are judged together."""
RARE_VALUES = "all rarer values together"


def slice_gains(
    metric: Metric,
    baseline: Sequence[Answers],
    candidate: Sequence[Answers],
    clusters: Codes,
    values: Sequence[str],
    level: float = LEVEL,
    seed: int = 0,
) -> list[SliceGain]:
    """How much better or worse a candidate is within each value of a column, for the gate `no_slice_worse`.

    Works for metrics of every shape, since it has all answers (reports/slice_metrics.py reads stored scores).
    `values` (n,): each example's value of the column. `baseline`, `candidate`: their answers, per repeat.
    """
    found = []
    cells = np.array(_pool_rare_values(values, clusters))
    kinds = sorted(set(cells.tolist()))
    levels = level, 1 - (1 - level) / len(kinds)
    for value in kinds:
        places = np.flatnonzero(cells == value)
        codes = np.unique(clusters[places], return_inverse=True)[1].astype(np.int64)
        sides = [[_select_answers(answers, places) for answers in side] for side in (baseline, candidate)]
        usual, strict = _differences(metric, sides[0], sides[1], codes, levels, seed)
        low, high = sorted((metric.sign * usual.low, metric.sign * usual.high))
        highest = max(metric.sign * strict.low, metric.sign * strict.high)
        gain = metric.sign * usual.delta
        found.append(SliceGain(value, len(places), gain, low, high, highest, usual.standard_error))
    return found


def _differences(
    metric: Metric,
    baseline: Sequence[Answers],
    candidate: Sequence[Answers],
    clusters: Codes,
    levels: Sequence[float],
    seed: int,
) -> list[Difference]:
    """At each of the levels."""
    if metric.shape == "mean":
        first, second = averaged(metric, baseline), averaged(metric, candidate)
        return [paired_difference(first, second, clusters, level) for level in levels]
    mine, theirs = (resample(corpus_mean(metric, side, clusters), clusters, seed) for side in (baseline, candidate))
    return [bootstrap_difference(mine, theirs, level, share=metric.is_share) for level in levels]


def _select_answers(answers: Answers, places: Codes) -> Answers:
    table = None if answers.probabilities is None else answers.probabilities[places]
    scores = {name: scores[places] for name, scores in answers.scores.items()}
    return answers._replace(
        references=answers.references[places], given=answers.given[places], probabilities=table, scores=scores
    )  # fmt: skip


def _pool_rare_values(values: Sequence[str], clusters: Codes) -> list[str]:
    independent = Counter(value for value, _ in {*zip(values, clusters.tolist(), strict=True)})
    return [value if independent[value] >= LEAST_EXAMPLES else RARE_VALUES for value in values]
