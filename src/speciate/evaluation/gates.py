"""Gates to a verdict: pure functions from measured rows and comparisons to promote, hold or inconclusive.

Every gate about quality looks at an interval, never at a point, so it has three answers: it surely holds, it surely
does not, or the data cannot tell. One failure holds a candidate back; without a failure, one that cannot be told
makes the verdict inconclusive, with the number of test rows or groups that would settle it.

Where several candidates are judged at once, or the test rows judged others before, the intervals are wider
(`holdout_reuse.level_for`): the best of many tries is lucky.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from speciate.evaluation.cost_difference import LEAST_USD, is_cheaper, is_dearer, ratio, same_recipe
from speciate.evaluation.holdout_reuse import LooksOnRows
from speciate.evaluation.reports.report import (
    Comparison,
    Decision,
    GateResult,
    Interval,
    Outcome,
    Row,
    Verdict,
)
from speciate.evaluation.slice_gains import SliceGain
from speciate.evaluation.statistics import LEAST_UNITS, UNDEFINED_ON, units_needed
from speciate.models.licenses import forbids_commerce
from speciate.models.training_statement import TrainingStatement
from speciate.sample_size import LEVEL, MOST_GROWTH, detectable, is_worth_collecting, more_of
from speciate.use_cases import CONSTANT, NOT_WORSE_MARGIN, NOT_WORSE_SHARE, Gate, UseCaseLimits
from speciate.vocabulary import Metric, find_metric

BUSY = 0.025
"""Share of answers that other work delayed, beyond which a p95 is not that of a free machine."""


class Evidence(NamedTuple):
    """All that gates may look at. `comparisons` holds candidate against baseline, by metric."""

    metric: str
    candidate: Row
    baseline: Row
    comparisons: Mapping[str, Comparison]
    limits: UseCaseLimits
    level: float = LEVEL
    """Confidence level of the intervals in the rows and comparisons."""
    examples: int = 0
    """Test rows of all labels; a metric about one label counts fewer."""
    clusters: int = 0
    """Independent units among them: groups where there are groups."""
    fresh_level: float | None = None
    """Confidence level of intervals on rows that no model was judged on before; None: `level`."""
    next_level: float | None = None
    """Confidence level of the candidate's intervals at the next look at these rows, with others beside them; None:
    `level`."""
    reused: bool = False
    """Whether the rows judged other models before, or chose the one in production."""
    shown: bool = False
    """Whether a sure gain of the candidate is shown by other rows (shown_gains.py): it does not rest on luck here."""
    positive_label: str | None = None
    slices: Mapping[tuple[str, str], Sequence[SliceGain]] = {}
    """By metric and column: the gains over the baseline within each value."""


class _Doubt(NamedTuple):
    """What would settle a doubt, in rows of all labels; `groups` where the rows hang together in groups."""

    rows: int
    groups: int | None = None
    fresh: int | None = None
    """Rows that no model was judged on before."""


class _GateAnswer(NamedTuple):
    outcome: Outcome
    reason: str
    needed: _Doubt | None = None


def decide(
    gates: Sequence[Gate], evidence: Evidence, fresh: Evidence | None = None, looks: LooksOnRows | None = None
) -> Decision:
    """The verdict of all gates on one candidate.

    Of test rows that judged other models before (`looks`), `evidence` has the intervals that account for it, and
    `fresh` those of rows that nobody had asked. A gate fails or cannot tell by the latter. What passes by them must
    pass by the wider ones too, which is the gate `fresh_rows`. Not so `not_worse` in the metric in which other rows
    show a gain. That the candidate is better accounts for all its looks there, and one more condition cannot make a
    false "better" likelier (an intersection-union test: Berger 1982, "Multiparameter hypothesis testing and acceptance
    sampling"). That it is not worse here is claimed at the level of fresh rows, once for each candidate.
    """
    asked = [gate for gate in gates if gate.rule not in (FRESH_ROWS, "free_method")]
    results = [judge(gate, fresh or evidence) for gate in asked]
    if looks is not None and looks.spent and fresh is not None:
        passed = [one.gate for one in results if one.outcome == "pass"]
        results.append(_fresh_rows(passed, evidence, fresh, looks))
    return _verdict(results, evidence)


def judge(gate: Gate, evidence: Evidence) -> GateResult:
    """One gate's answer and its reason, a sentence with the numbers in it."""
    return _result(gate, _RULES[gate.rule](gate, evidence))


def _result(gate: Gate, answer: _GateAnswer) -> GateResult:
    needed = answer.needed
    return GateResult(
        gate=gate,
        outcome=answer.outcome,
        reason=answer.reason,
        needed_examples=needed.rows if needed else None,
        needed_groups=needed.groups if needed else None,
    )


FRESH_ROWS = "fresh_rows"


def _fresh_rows(passed: Sequence[Gate], strict: Evidence, fresh: Evidence, looks: LooksOnRows) -> GateResult:
    """Whether all that passes on rows as if they were fresh also passes at the level that earlier looks leave."""
    gate = Gate(rule="fresh_rows")
    before = (
        f"these test rows judged {looks.candidates} candidate(s) in {looks.evaluations} evaluation(s) before, and "
        f"{looks.promotions} promotion(s) rest on them"
    )
    strict = strict._replace(reused=True)
    once = [each for each in passed if strict.shown and _is_not_worse_in(strict.metric, each)]
    answers = [_RULES[each.rule](each, strict) for each in passed if each not in once]
    doubts = [answer for answer in answers if answer.outcome != "pass"]
    level = f"{100 * strict.level:.5g} %"
    if not doubts:
        beside = f", but 'not worse', asked at {100 * fresh.level:.5g} %, as other rows show the gain" if once else ""
        return _result(gate, _GateAnswer("pass", f"{before}: all that passes also holds at {level} intervals{beside}"))
    needed = max((one.needed.fresh or 0 for one in doubts if one.needed), default=0)
    rows = f"at least {needed:,} fresh test rows are needed" if needed else "fresh test rows are needed"
    worth = is_worth_collecting(needed, strict.examples)
    how = "add_examples with 'test' in a column 'split' adds them" if worth else f"not worth it, {NOT_WORTH}"
    reason = (
        f"{before}. At {level} intervals, which allow for that, {doubts[0].reason.partition(';')[0]}; {rows}: {how}"
    )
    return _result(gate, _GateAnswer("inconclusive", reason, _Doubt(needed) if needed else None))


def _is_not_worse_in(metric: str, gate: Gate) -> bool:
    return gate.rule == "not_worse" and gate.metric in (None, metric)


def prefer_cheaper(decision: Decision, evidence: Evidence, cheaper: Row, over: Comparison | None) -> Decision:
    """The decision once a cheaper model that passes its own gates is known: the candidate must surely beat it."""
    gain = over.improvement() if over else None
    if gain and gain[1][0] > 0:
        return decision
    found = f"the gain over it is {_span(*gain)}" if gain else "nothing shows a gain over it"
    reason = f"{cheaper.model} passes every gate and costs less ({usd(cheaper)}); {found}, which does not exclude zero"
    blocked = GateResult(gate=Gate(rule="better_if_dearer"), outcome="fail", reason=reason)
    return _verdict([*decision.gates, blocked], evidence)


def beside_free_method(
    decision: Decision, evidence: Evidence, free: Row, over: Comparison | None, *, same_data: bool = True
) -> Decision:
    """The decision once a method is known that costs nothing to train: a candidate that is surely worse is held.

    It cannot serve, so where the rows cannot tell the two apart the candidate stays what it is. The reason says so.
    `same_data`: it is fitted on what the candidate learned from; else a candidate that is not worse is not settled.
    """
    gain = over.improvement() if over else None
    gate = Gate(rule="free_method")
    if over is None or gain is None:
        reason = f"nothing tells whether it is better than the nearest neighbour{_no_interval(over)}"
        return _verdict([*decision.gates, GateResult(gate=gate, outcome="pass", reason=reason)], evidence)
    stated = f"gain in {find_metric(over.metric).plain} over {free.model} {_span(*gain)}"
    outcome: Outcome = "fail" if gain[1][1] < 0 and over.clusters >= FEWEST_UNITS else "pass"
    if outcome == "fail":
        found = "worse than the nearest neighbour, which costs nothing to train"
    else:
        shown = gain[1][0] > 0
        found = f"{'better' if shown else 'not shown to be better'} than the nearest neighbour"
        if not same_data:
            outcome = "inconclusive"
            found += ", which is fitted on other data than this model learned from: evaluate this model alone"
    return _verdict([*decision.gates, GateResult(gate=gate, outcome=outcome, reason=f"{stated}: {found}")], evidence)


def _reaches(gate: Gate, evidence: Evidence) -> _GateAnswer:
    metric, target = _metric(gate, evidence), gate.value
    measured = evidence.candidate.metrics.get(metric.name)
    if measured is None or measured.value is None or measured.interval is None or target is None:
        return _GateAnswer("inconclusive", f"{metric.plain} has no interval{_why(measured.note if measured else '')}")
    best_case, worst_case = measured.interval[::-1] if metric.sign > 0 else measured.interval
    stated = f"{metric.plain} is {_span(measured.value, measured.interval)}"
    if metric.sign * (worst_case - target) >= 0:
        units = _units(measured.n, evidence)
        return _too_few(stated, units, measured.method, evidence) or _GateAnswer(
            "pass", f"{stated}: reaches {target:,g}"
        )
    if metric.sign * (best_case - target) < 0:
        return _GateAnswer("fail", f"{stated}: short of {target:,g}")
    doubt = f"{stated}: {measured.n} test rows cannot tell whether it reaches {target:,g}"
    beyond = metric.sign * (measured.value - target)
    spread = _Spread(measured.n, _units(measured.n, evidence), measured.standard_error or 0.0, beyond)
    return _undecided(doubt, metric, spread, evidence)


def _not_worse(gate: Gate, evidence: Evidence) -> _GateAnswer:
    metric = _metric(gate, evidence)
    margin = gate.value if gate.value is not None else _margin(metric, evidence.baseline)
    claim = f"not worse than {_rival(evidence)} by {figure(margin)}"
    if evidence.reused:
        return _not_worse_without_luck(evidence, metric, margin, claim)
    judged = _gain(evidence, metric, -margin, -margin, claim)
    allowed = judged.outcome == "pass" and gate.value is not None
    return judged if allowed else _surely_worse(evidence, metric) or judged


def _not_worse_without_luck(evidence: Evidence, metric: Metric, margin: float, claim: str) -> _GateAnswer:
    """On rows that chose a model before: surely better, or not worse although a gain counts as none.

    Where rows are few, "not worse" is only passed by a lucky gain, and a loop that promotes on it collects luck: the
    measured value climbs and nothing is better. So the rows must be enough for a model that is just as good to pass
    nearly always: its doubt and two standard errors lie within the margin.
    """
    comparison = evidence.comparisons.get(metric.name)
    improvement = comparison.improvement() if comparison else None
    if comparison is None or improvement is None:
        return _gain(evidence, metric, -margin, -margin, claim)
    gain, (low, high) = improvement
    error = comparison.standard_error or 0.0
    stated = f"gain in {metric.plain} {_span(gain, (low, high))}"
    doubt = gain - low
    if few := _too_few(stated, comparison.clusters, comparison.method, evidence):
        return few
    if low > 0 or (doubt + 2 * error <= margin and min(gain, 0.0) - doubt > -margin):
        return _GateAnswer("pass", f"{stated}: {claim}, not by a lucky gain")
    counted = evidence.candidate.metrics.get(metric.name)
    spread = _Spread(counted.n if counted else comparison.n, comparison.clusters, error, min(gain, 0.0) + margin)
    doubtful = f"{stated}: shows '{claim}' only if its gain is no luck, which rows that were used before cannot say"
    return _undecided(doubtful, metric, spread, evidence)


def _surely_worse(evidence: Evidence, metric: Metric) -> _GateAnswer | None:
    """A failure where the whole interval is a loss and no lower price pays for it."""
    comparison = evidence.comparisons.get(metric.name)
    improvement = comparison.improvement() if comparison else None
    candidate, baseline = evidence.candidate, evidence.baseline
    if improvement is None or improvement[1][1] >= 0 or is_cheaper(candidate, baseline):
        return None
    lost = f"gain in {metric.plain} {_span(*improvement)}: worse than {_rival(evidence)}"
    return _GateAnswer("fail", f"{lost}, and not shown to be cheaper: {_prices(candidate, baseline)}")


def _better(gate: Gate, evidence: Evidence) -> _GateAnswer:
    metric, least = _metric(gate, evidence), gate.value or 0.0
    more = f" by {figure(least)}" if least else ""
    return _gain(evidence, metric, least, least, f"better than {_rival(evidence)}{more}")


def _better_if_dearer(gate: Gate, evidence: Evidence) -> _GateAnswer:
    """Fails also where even the best case is a gain too small to pay for.

    Than a constant answer every model is dearer, however little it costs: one that is no better is not worth having.
    """
    candidate, baseline = evidence.candidate, evidence.baseline
    if baseline.model != CONSTANT and not is_dearer(candidate, baseline):
        return _GateAnswer("pass", _not_dearer(evidence))
    metric, least = _metric(gate, evidence), gate.value or 0.0
    known = baseline.usd_per_1k is not None and candidate.usd_per_1k is not None
    why = f"costs more: {_prices(candidate, baseline)}" if known else "cannot be shown to cost no more"
    claim = f"better than {_rival(evidence)}, as it must be since it {why}"
    return _gain(evidence, metric, least, max(least, _margin(metric, baseline)), claim)


def _not_dearer(evidence: Evidence) -> str:
    candidate, baseline = evidence.candidate, evidence.baseline
    if same_recipe(candidate, baseline):
        return f"made by the recipe of {_rival(evidence)}, so it costs the same"
    if (candidate.usd_per_1k or 0.0) <= (baseline.usd_per_1k or 0.0):
        return f"costs {usd(candidate)}, no more than {_rival(evidence)} ({usd(baseline)})"
    return f"costs no more than {_rival(evidence)} by a difference that counts: {_prices(candidate, baseline)}"


def _gain(evidence: Evidence, metric: Metric, least: float, worth: float, claim: str) -> _GateAnswer:
    """`claim` holds where the gain surely exceeds `least`, and not where it surely stays below `worth`."""
    comparison = evidence.comparisons.get(metric.name)
    improvement = comparison.improvement() if comparison else None
    if comparison is None or improvement is None:
        why = _no_interval(comparison)
        return _GateAnswer("inconclusive", f"{metric.plain}: there is no paired interval to show '{claim}'{why}")
    gain, (low, high) = improvement
    stated = f"gain in {metric.plain} {_span(gain, (low, high))}"
    if low > least:
        return _too_few(stated, comparison.clusters, comparison.method, evidence) or _GateAnswer(
            "pass", f"{stated}: {claim}"
        )
    if high <= least or high < worth:
        return _GateAnswer("fail", f"{stated}: not '{claim}'")
    seen = _detectable_gains(comparison, metric, evidence.baseline)
    counted = evidence.candidate.metrics.get(metric.name)
    n = counted.n if counted else comparison.n
    spread = _Spread(n, comparison.clusters, comparison.standard_error or 0.0, gain - least)
    return _undecided(f"{stated}: cannot tell '{claim}'{seen}", metric, spread, evidence)


def _detectable_gains(comparison: Comparison, metric: Metric, baseline: Row) -> str:
    """Which gains so many examples show; of a metric with a best value maybe none."""
    effect, had = comparison.minimum_detectable_effect, baseline.metrics.get(metric.name)
    least = None if effect is None else detectable(effect, metric, had.value if had else None)
    if least is not None:
        return f"; {comparison.n} test rows show gains from {figure(least)}"
    best = metric.high if metric.sign > 0 else metric.low
    if best is None:
        return ""
    return f"; {comparison.n} test rows are too few to show any gain: the best {metric.plain} is {best:g}"


FEWEST_UNITS = 5
"""Independent units below which nothing passes: two groups that happen to agree have no spread at all."""


def _too_few(stated: str, units: int, method: str, evidence: Evidence) -> _GateAnswer | None:
    """No pass on a handful of units or of resamples, however narrow their interval is."""
    if UNDEFINED_ON in method:
        return _GateAnswer("inconclusive", f"{stated}: {_RARE}")
    if units >= FEWEST_UNITS:
        return None
    grouped = 0 < evidence.clusters < evidence.examples
    name, lacking = "groups" if grouped else "test rows", LEAST_UNITS - units
    rows = math.ceil(lacking * evidence.examples / evidence.clusters) if grouped else lacking
    reason = f"{stated}: {units} {name} are too few for a verdict; about {more_of(lacking, units, name)} would do"
    return _GateAnswer("inconclusive", reason, _Doubt(rows, lacking if grouped else None, rows))


def _no_interval(comparison: Comparison | None) -> str:
    """Why there is none, as the end of a sentence."""
    if comparison is None:
        return ""
    if comparison.method == "too_few_clusters":
        return f": all {comparison.n} test rows that count are of one group, which says nothing of other groups"
    if comparison.method == "undefined":
        return f": {_RARE}"
    return ""


_RARE = "too few test rows have a label that it needs, so that it is undefined on many resamples"


class _Spread(NamedTuple):
    """What a doubt comes from: `n` examples that the metric counts, in `units` independent ones."""

    n: int
    units: int
    standard_error: float
    beyond: float
    """How far the estimate lies beyond the bound, on the side that passes; negative on the other side."""


def _units(n: int, evidence: Evidence) -> int:
    """Independent units among `n` examples, at the share of the whole suite."""
    if not evidence.examples or not evidence.clusters:
        return n
    return max(1, min(n, round(n * evidence.clusters / evidence.examples)))


_MOST_GROWTH, _MOST_FURTHER = 100, 100_000
"""Further rows, for each that there is and in all, beyond which no number is named: the estimate is then within a third
of its standard error of the bound, and may as well lie on the other side."""


def _undecided(doubt: str, metric: Metric, spread: _Spread, evidence: Evidence) -> _GateAnswer:
    """The doubt with what would settle it, in rows of all labels and, where rows hang together, in groups.

    Where the estimate points the other way no number is given: more rows are expected to show that it does not hold.
    Nor where it lies as good as on the bound: the number would say nothing but that.
    """
    if spread.beyond <= 0:
        return _GateAnswer("inconclusive", f"{doubt}; the estimate points the other way, so more rows need not help")
    rows = max(spread.n, evidence.examples)
    total, fresh = (
        units_needed(spread.units, spread.standard_error, spread.beyond, level)
        for level in (evidence.next_level or evidence.level, evidence.fresh_level or evidence.level)
    )
    growth = math.inf if total is None else max(1, total - spread.units) / spread.units
    if growth > _MOST_GROWTH and rows * growth > _MOST_FURTHER:
        return _GateAnswer("inconclusive", f"{doubt}; the estimate lies as good as on the bound, so no number is named")
    further = math.ceil(rows * growth)
    groups = math.ceil(evidence.clusters * growth) if 0 < evidence.clusters < evidence.examples else None
    anew = None if fresh is None else math.ceil(rows * fresh / spread.units)
    if is_worth_collecting(further, rows):
        settles = _settles(math.ceil(spread.n * growth), further, groups, metric, spread, evidence)
    else:
        needed = (groups, evidence.clusters, "groups") if groups is not None else (further, rows, "test rows")
        settles = f"not worth settling, as it would take about {more_of(*needed)}: {NOT_WORTH}"
    return _GateAnswer("inconclusive", f"{doubt}; {settles}", _Doubt(further, groups, anew))


NOT_WORTH = f"more than {MOST_GROWTH} times what there is, for a difference that small"


def _settles(
    counted: int, rows: int, groups: int | None, metric: Metric, spread: _Spread, evidence: Evidence
) -> str:  # fmt: skip
    all_rows = more_of(rows, max(spread.n, evidence.examples), "test rows")
    if groups is not None:
        return f"about {more_of(groups, evidence.clusters, 'groups')} would: {all_rows}, at the present size of groups"
    if spread.n >= evidence.examples:
        return f"about {all_rows} would"
    label = f"labelled {evidence.positive_label!r}"
    kind = f"not {label}" if metric.name == "specificity" else label
    if evidence.positive_label is None:
        kind = "of the kind that it counts"
    return f"{more_of(counted, spread.n, f'test rows {kind}')} would: about {all_rows}, at the present share"


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
    if name == "usd_per_1k" and row.usd_interval is not None and row.usd_interval[0] <= most < row.usd_interval[1]:
        return _GateAnswer(
            "inconclusive", f"{name} {_span(value, row.usd_interval)}: cannot tell whether within {most:.4g}"
        )
    outcome: Outcome = "pass" if value <= most else "fail"
    return _GateAnswer(outcome, f"{name} {value:.4g} {'within' if outcome == 'pass' else 'over'} {most:.4g}")


def _latency(row: Row, value: float, most: float) -> _GateAnswer:
    if row.p95_interval is None:
        return _GateAnswer("inconclusive", f"p95 latency {value:.3g} ms rests on too few timings")
    low, high = row.p95_interval
    stated = f"p95 latency {value:.3g} ms ({low:.3g} to {high:.3g}) on {row.device}"
    if high <= most:
        return _GateAnswer("pass", f"{stated}: within {most:g} ms")
    if low > most and row.busy is not None and row.busy > BUSY:
        return _GateAnswer(
            "inconclusive",
            f"{stated}: over {most:g} ms, but this machine was busy: other work delayed about {row.busy:.0%} of the "
            "answers. Evaluate again when it is free",
        )
    outcome: Outcome = "fail" if low > most else "inconclusive"
    return _GateAnswer(
        outcome, f"{stated}: {'over' if outcome == 'fail' else 'cannot tell whether within'} {most:g} ms"
    )


def _license(gate: Gate, evidence: Evidence) -> _GateAnswer:
    control, allowed = evidence.candidate.control, evidence.limits.licenses
    known, among = {name.lower() for name in allowed}, ", ".join(allowed) or "the allowed (none)"
    of_weights = control.weights_license
    for what, name in (("licence", control.license), ("licence of the weights", of_weights)):
        if what != "licence" and name is None:
            continue
        if name is None or name.lower() not in known:
            barred = ", which forbids commercial use," if forbids_commerce(name) else ""
            return _GateAnswer("fail", f"{what} {name or 'unknown'}{barred} is not among {among}")
    both = f" and, of the weights, {of_weights}" if of_weights else ""
    return _GateAnswer("pass", f"licence {control.license}{both} is allowed")


def _offline(gate: Gate, evidence: Evidence) -> _GateAnswer:
    if evidence.candidate.control.offline:
        return _GateAnswer("pass", "runs without a network")
    return _GateAnswer("fail", "needs a network")


def _consent(gate: Gate, evidence: Evidence) -> _GateAnswer:
    known = evidence.candidate.without_consent
    lacking = (known or {}).get(str(gate.column))
    if lacking is None:
        why = f"the data that it learned from are not here: who consented by {gate.column!r} is not known"
        match gate.if_unknown if known is None else "refuse":
            case "ask":
                return _GateAnswer("not_known", f"{why}; a person accepts that once, with its promotion")
            case "accept":
                return _GateAnswer("pass", f"{why}; this use case accepts that")
            case _:
                return _GateAnswer("fail", why)
    if lacking:
        return _GateAnswer("fail", f"{lacking} rows that it learned from do not say yes in {gate.column!r}")
    return _GateAnswer("pass", f"every row of this workspace that it learned from says yes in {gate.column!r}")


def _unseen(gate: Gate, evidence: Evidence) -> _GateAnswer:
    row = evidence.candidate
    if row.seen is None and row.training_data is not None:
        return _unknown_training(gate, row.training_data)
    if row.seen is None:
        return _GateAnswer(
            "inconclusive", "the data that it learned from are not here: whether it saw these is unknown"
        )
    if row.seen:
        return _GateAnswer("fail", f"{row.seen} of these examples were in its training data: it knows their answers")
    if row.nearly_seen:
        return _GateAnswer("fail", f"{row.nearly_seen} of these examples have a near-duplicate in its training data")
    beyond = "; near-duplicates: not_checked" if row.nearly_seen is None else ""
    return _GateAnswer("pass", f"none of these examples was in its training data{beyond}")


def _unknown_training(gate: Gate, stated: TrainingStatement) -> _GateAnswer:
    """The gate's answer on a model of others whose training data nobody here knows. No further example would tell, so
    the use case refuses, accepts, or leaves it to a person."""
    told = f" ({said})" if (said := stated.sentence()) else ""
    known = f"what it learned from is not here{told}: nobody knows whether it saw these examples"
    match gate.if_unknown or "ask":
        case "refuse":
            return _GateAnswer("fail", f"{known}, and this use case refuses such models")
        case "accept":
            return _GateAnswer("pass", f"{known}; this use case accepts that")
        case _:
            return _GateAnswer("not_known", f"{known}; a person accepts that once, with its promotion")


def _no_slice_worse(gate: Gate, evidence: Evidence) -> _GateAnswer:
    """Holds where it holds in every slice, each at the full level (an intersection-union test, Berger 1982); fails
    where one slice is surely worse by more than the margin, for all that were looked at (Bonferroni)."""
    metric = _metric(gate, evidence)
    margin = gate.value if gate.value is not None else _margin(metric, evidence.baseline)
    found = evidence.slices.get((metric.name, str(gate.column)), ())
    if not found:
        return _GateAnswer("inconclusive", f"there are no slices by {gate.column!r}")
    judged = [each for each in found if math.isfinite(each.low)]
    claim = f"no value of {gate.column!r} worse in {metric.plain} by {figure(margin)}"
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
    spread = _Spread(worst.n, worst.clusters or worst.n, worst.standard_error, worst.gain + margin)
    doubt = _undecided("", metric, spread, evidence).needed
    return _GateAnswer("inconclusive", f"cannot tell '{claim}'; {stated}, on {worst.n} test rows", doubt)


_RULES: dict[str, Callable[[Gate, Evidence], _GateAnswer]] = {
    "reaches": _reaches, "not_worse": _not_worse, "better": _better, "better_if_dearer": _better_if_dearer,
    "at_most": _at_most, "license": _license, "offline": _offline, "unseen": _unseen,
    "no_slice_worse": _no_slice_worse, "consent": _consent,
}  # fmt: skip


def _verdict(results: Sequence[GateResult], evidence: Evidence) -> Decision:
    outcomes = {result.outcome for result in results}
    verdict: Verdict = "hold" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "promote"
    order = ("fail", "inconclusive", "not_known", "pass")
    doubts = [result for result in results if result.outcome == "inconclusive"] if verdict == "inconclusive" else []
    groups = [result.needed_groups for result in doubts if result.needed_groups is not None]
    needed = [result.needed_examples for result in doubts if result.needed_examples is not None]
    return Decision(
        verdict=verdict,
        reasons=tuple(result.reason for result in sorted(results, key=lambda result: order.index(result.outcome))),
        needed_examples=max(needed, default=None),
        needed_groups=max(groups, default=None),
        rows=evidence.examples,
        groups=evidence.clusters,
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
    metric = find_metric(evidence.metric)
    if "regression" in metric.families:
        return f"always answering the {metric.middle}"
    if "forecasting" in metric.families:
        return "repeating the last step or period"
    if metric.seeks_positives and evidence.positive_label is not None:
        return f"always answering {evidence.positive_label!r}"
    if "classification" in metric.families:
        return "always answering the most frequent label"
    return "the best answer that is the same for all"


def _span(value: float, interval: Interval) -> str:
    value, low, high = value + 0.0, interval[0] + 0.0, interval[1] + 0.0  # never "-0"
    return f"{figure(value)} ({figure(low)} to {figure(high)})"


def figure(value: float) -> str:
    """To three digits; thousands in full. What is nearly 1 has more digits, up to six, and is not told as 1."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    short = f"{value:.3g}"
    return short if short != "1" or value >= 1 else f"{value:.{min(6, math.ceil(-math.log10(1 - value)))}f}"


def usd(row: Row) -> str:
    """The cost of 1,000 answers in words."""
    cost = row.usd_per_1k
    if cost is None:
        return "an unknown price"
    if 0 < cost < LEAST_USD:
        return f"under ${LEAST_USD} per 1,000"
    return f"${cost:,.0f} per 1,000" if cost >= 1000 else f"${cost:.3g} per 1,000"


def _prices(candidate: Row, baseline: Row) -> str:
    known = ratio(candidate, baseline)
    times = f", {known[0]:.3g} to {known[1]:.3g} times as much" if known else ""
    here = [row.model for row in (candidate, baseline) if row.device and row.usd_per_1k is not None]
    what = f" ({'both' if len(here) == 2 else here[0]}: processor time here)" if here else ""
    return f"{usd(candidate)} against {usd(baseline)}{times}{what}"


def _why(note: str) -> str:
    return f": {note}" if note else ""
