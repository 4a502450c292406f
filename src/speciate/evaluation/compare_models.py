"""From all models' answers to a report: values, intervals, paired comparisons, decisions. Worker side, no I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from speciate.evaluation import candidate_choice, gates, statistics
from speciate.evaluation.cost_difference import is_dearer
from speciate.evaluation.decisions import without_answers, without_copy
from speciate.evaluation.evaluated_models import CANDIDATES, EvaluatedModel
from speciate.evaluation.holdout_reuse import LooksOnRows, level_for
from speciate.evaluation.metrics import Answers, averaged, corpus_mean
from speciate.evaluation.rare_labels import unfound_labels
from speciate.evaluation.reports.report import (
    Comparison,
    Control,
    Decision,
    Interval,
    LabelCoverage,
    Report,
    Row,
    Suite,
    SuiteChange,
    ValidationEvidence,
    Value,
    Verdicts,
    break_even,
    interval,
    number,
)
from speciate.evaluation.slice_gains import SliceGain, slice_gains
from speciate.evaluation.statistics import Codes, Difference, Estimate, Floats, Resampled
from speciate.sample_size import LEVEL, detectable
from speciate.use_cases import CONSTANT, NEAREST, Gate, UseCase
from speciate.vocabulary import Metric, find_metric


class Cost(NamedTuple):
    """Measured on a warm model; None where it does not apply (a column, the constant)."""

    usd_per_1k: float | None = None
    p50_ms: float | None = None
    p95: Estimate | None = None
    device: str | None = None
    memory_mb: float | None = None
    ttft_ms: float | None = None
    """Median time to the first token, of models that answer in tokens."""
    usd_turns: tuple[float, ...] = ()
    """`usd_per_1k` of each turn, in which all models of the evaluation were measured."""
    usd_interval: Interval | None = None
    busy: float | None = None
    """Share of timings that other work delayed, by reference work between them."""


class ModelEntry(NamedTuple):
    """One model with all of its answers."""

    evaluated_model: EvaluatedModel
    repeats: tuple[Answers, ...]
    """Its answers to all examples, once per repeat."""
    errors: int
    """Number of errors in all repeats together."""
    cost: Cost
    seen: int | None = 0
    """Examples that were in its training data; None if that data is not known any more."""
    nearly_seen: int | None = 0
    """Further examples that have a near-duplicate there; None if that cannot be checked."""
    certain: bool = False
    """Gives no probabilities: its answers count as certain where a metric needs them."""
    served: tuple[str, ...] = ()
    """The model names that an endpoint reported."""
    label_coverage: LabelCoverage | None = None
    """How far a published model's labels cover the user's; the default for every other model."""
    without_consent: dict[str, int] | None = None
    """By the columns that gates ask for: training rows that do not say yes."""


class MetricScores(NamedTuple):
    """A metric of one entry on n examples: their scores (mean metrics) or resampled (corpus metrics)."""

    n: int
    values: Floats | None
    resampled: Resampled | None


class Question(NamedTuple):
    """The settings of the comparison. The first metric is the main one; `candidate` None lets the gates choose."""

    dataset: str
    metrics: tuple[Metric, ...]
    baseline: str
    candidate: str | None
    use_case: UseCase | None
    no_decision: str | None = None
    """Why no verdict may be given: the suite or the baseline is not the use case's own."""
    seed: int = 0
    looks: LooksOnRows = LooksOnRows()
    """What these rows were asked before."""
    suite: Suite = "core"
    suite_change: SuiteChange | None = None
    beside: frozenset[str] = frozenset()
    """Models that get no verdict: named baselines, and what is in use."""
    learned_elsewhere: frozenset[str] = frozenset()
    """Candidates that learned from other data than the free methods are fitted on."""
    shown: frozenset[str] = frozenset()
    """Candidates whose gain is shown by other rows."""
    order: tuple[ValidationEvidence, ...] = ()
    """In which the candidates may go forward; empty: the cheapest that passes does."""

    @property
    def gates(self) -> tuple[Gate, ...]:
        return self.use_case.gates_on(self.suite) if self.use_case else ()


def score(metric: Metric, repeats: Sequence[Answers], clusters: Codes, seed: int = 0) -> MetricScores:
    """What intervals of one metric of one model need, at any level. Repeats are averaged: they are not examples."""
    n = len(repeats[0].references)
    if metric.shape == "mean":
        return MetricScores(n, averaged(metric, repeats), None)
    value = corpus_mean(metric, repeats, clusters)
    return MetricScores(n, None, statistics.resample(value, clusters, seed))


def estimate(metric: Metric, scored: MetricScores, clusters: Codes, level: float = LEVEL) -> Estimate:
    """The metric's value with its interval."""
    if scored.resampled is not None:
        return statistics.bootstrap(scored.resampled, level, share=metric.is_share)._replace(n=scored.n)
    return statistics.mean(np.asarray(scored.values, float), clusters, level)


def build(
    question: Question,
    entries: Sequence[ModelEntry],
    clusters: Codes,
    notes: Sequence[str] = (),
    slices: Mapping[str, Sequence[str]] | None = None,
) -> Report:
    """The report of all entries on the same examples; `clusters` codes each example's group as 0..C-1.

    `slices`: of the columns that gates look into, each example's value.
    """
    scored = {
        entry.evaluated_model.name: {
            metric.name: score(metric, entry.repeats, clusters, question.seed) for metric in question.metrics
        }
        for entry in entries
    }
    report = _without_verdict(question, entries, scored, clusters, LEVEL)
    models = _challengers(question, entries)
    if models and question.use_case is not None and question.no_decision is None:

        def judged_at(level: float) -> _Judged:
            same = report if level == LEVEL else _without_verdict(question, entries, scored, clusters, level)
            return _Judged(same, level, _slice_gains(question, entries, clusters, slices or {}, level))

        # On further suites a candidate must only not be worse, beside the core: there luck alone promotes nobody.
        looks = question.looks if question.suite == "core" else LooksOnRows()
        fresh, level = level_for(len(models)), level_for(len(models), looks)
        first = judged_at(fresh)
        strict = first if level == fresh else judged_at(level)
        report = _with_decisions(report, strict, first, question, question.use_case, models, entries)
        report = _without_copies(report, entries)
        notes = (*notes, *_remarks(len(models), level, question.looks))
    else:
        report = report.model_copy(update={"candidate": question.candidate or (models or [question.baseline])[-1]})
    paid = break_even(report, report.baseline, report.candidate)
    return report.model_copy(update={"break_even": paid, "notes": tuple(notes)})


def _without_verdict(
    question: Question,
    entries: Sequence[ModelEntry],
    scored: dict[str, dict[str, MetricScores]],
    clusters: Codes,
    level: float,
) -> Report:
    """The report without a verdict, every interval at `level`."""
    main = question.metrics[0]
    rows = [_row(entry, main, scored[entry.evaluated_model.name], clusters, level) for entry in entries]
    report = Report(
        dataset=question.dataset,
        use_case=question.use_case.name if question.use_case else None,
        use_case_version=question.use_case.version if question.use_case else None,
        metric=main.name,
        better=main.better,
        n=clusters.size,
        clusters=int(np.unique(clusters).size),
        baseline=question.baseline,
        candidate=question.candidate or question.baseline,
        leaderboard=tuple(
            sorted(rows, key=lambda row: -main.sign * (row.value if row.value is not None else -math.inf))
        ),
        comparisons=_comparisons(question, list(scored), scored, clusters, level),
        no_decision=question.no_decision,
    )
    return _mark_dominated(report)


def _row(entry: ModelEntry, main: Metric, scored: dict[str, MetricScores], clusters: Codes, level: float) -> Row:
    evaluated_model, cost = entry.evaluated_model, entry.cost
    covered = entry.label_coverage or LabelCoverage()
    n = len(entry.repeats[0].references)
    values = {
        name: _value(find_metric(name), found, clusters, level, certain=entry.certain) for name, found in scored.items()
    }
    return Row(
        model=evaluated_model.name,
        served_model=" and ".join(entry.served) or evaluated_model.name,
        repeats=len(entry.repeats),
        metric=main.name,
        value=values[main.name].value,
        interval=values[main.name].interval,
        n=values[main.name].n,
        errors=entry.errors,
        seen=entry.seen,
        nearly_seen=entry.nearly_seen,
        training_data=evaluated_model.statement,
        without_consent=entry.without_consent,
        coverage=round(1 - entry.errors / (n * len(entry.repeats)), 6) if n else 0.0,
        uncovered=covered.uncovered if entry.label_coverage else None,
        ceiling=covered.ceiling,
        elsewhere=covered.elsewhere,
        usd_per_1k=number(cost.usd_per_1k) if cost.usd_per_1k is not None else None,
        usd_interval=interval(*cost.usd_interval) if cost.usd_interval else None,
        usd_turns=cost.usd_turns,
        recipe=evaluated_model.recipe,
        busy=round(cost.busy, 3) if cost.busy is not None else None,
        p50_ms=number(cost.p50_ms) if cost.p50_ms is not None else None,
        p95_ms=number(cost.p95.value) if cost.p95 else None,
        p95_interval=interval(cost.p95.low, cost.p95.high) if cost.p95 else None,
        device=cost.device,
        control=_control(evaluated_model),
        ttft_ms=number(cost.ttft_ms) if cost.ttft_ms is not None else None,
        parameters=evaluated_model.parameters,
        memory_mb=cost.memory_mb,
        training_usd=evaluated_model.training_usd,
        metrics=values,
    )


def _control(evaluated_model: EvaluatedModel) -> Control:
    """What is served elsewhere may change or go away; what a column holds is a system that nobody here knows."""
    if evaluated_model.source == "ensemble":
        every = [_control(member) for member in evaluated_model.members]
        return Control(
            weights_owned=all(one.weights_owned for one in every),
            offline=all(one.offline for one in every),
            pinned=all(one.pinned for one in every),
            license=evaluated_model.license,
        )
    local = evaluated_model.endpoint is not None and evaluated_model.endpoint.is_local
    mine = evaluated_model.source not in ("column", "endpoint", "inspect")
    return Control(
        weights_owned=mine, offline=mine or local, pinned=mine, license=evaluated_model.license,
        weights_license=evaluated_model.weights_license,
    )  # fmt: skip


def _value(metric: Metric, scored: MetricScores, clusters: Codes, level: float, *, certain: bool) -> Value:
    found = estimate(metric, scored, clusters, level)
    note = "gives no probabilities: each answer counts as certain" if certain and metric.probabilities else ""
    if found.clusters < 2:
        note = f"all that count lie in {found.clusters} group(s): too few for an interval"
    elif found.method == "undefined":
        note = "undefined on most resamples: too few test rows have a label that it needs"
    return Value(
        value=number(found.value),
        interval=interval(found.low, found.high),
        standard_error=number(found.standard_error),
        n=found.n,
        method=found.method,
        note=note,
    )


def _comparisons(
    question: Question, names: Sequence[str], scored: dict[str, dict[str, MetricScores]], clusters: Codes, level: float
) -> tuple[Comparison, ...]:
    """Every pair under every metric, the question's baseline first where it takes part."""
    ordered = sorted(names, key=lambda name: name != question.baseline)
    return tuple(
        _comparison(
            metric,
            first,
            second,
            difference(metric, scored[first][metric.name], scored[second][metric.name], clusters, level),
        )
        for metric in question.metrics
        for first, second in combinations(ordered, 2)
    )


def _comparison(metric: Metric, baseline: str, candidate: str, difference: Difference) -> Comparison:
    return Comparison(
        metric=metric.name,
        baseline=baseline,
        candidate=candidate,
        delta=number(difference.delta),
        interval=interval(difference.low, difference.high),
        p_value=number(difference.p_value),
        method=difference.method,
        minimum_detectable_effect=detectable(difference.minimum_detectable_effect, metric),
        standard_error=number(difference.standard_error),
        n=difference.n,
        clusters=difference.clusters,
        **_wins_ties_losses(metric, difference),
    )


def difference(metric: Metric, first: MetricScores, second: MetricScores, clusters: Codes, level: float) -> Difference:
    """The difference of two models in one metric on the same examples, with its interval."""
    if first.values is not None and second.values is not None:
        return statistics.paired_difference(first.values, second.values, clusters, level)
    if first.resampled is None or second.resampled is None:
        raise TypeError("both sides of a comparison are scored by the same metric")
    found = statistics.bootstrap_difference(first.resampled, second.resampled, level, share=metric.is_share)
    return found._replace(n=first.n)


def _wins_ties_losses(metric: Metric, difference: Difference) -> dict[str, int | None]:
    """Wins are the candidate's, whichever direction is better."""
    wins, losses = difference.wins, difference.losses
    return {
        "wins": wins if metric.sign > 0 else losses,
        "ties": difference.ties,
        "losses": losses if metric.sign > 0 else wins,
    }


def _mark_dominated(report: Report) -> Report:
    compare = report.comparer()
    rows = tuple(
        row.model_copy(update={"dominated": candidate_choice.dominated(row, report.leaderboard, compare)})
        for row in report.leaderboard
    )
    return report.model_copy(update={"leaderboard": rows})


def _challengers(question: Question, entries: Sequence[ModelEntry]) -> list[str]:
    """The models that could replace the baseline in production."""
    models = [entry.evaluated_model for entry in entries]
    beside = {question.baseline, *question.beside}
    return [one.name for one in models if one.source in CANDIDATES and one.name not in beside]


Gains = Mapping[tuple[str, str, str], Sequence[SliceGain]]
"""By model, metric and column: the candidate's gains over the baseline."""


def _slice_gains(
    question: Question,
    entries: Sequence[ModelEntry],
    clusters: Codes,
    slices: Mapping[str, Sequence[str]],
    level: float,
) -> Gains:
    """What the gates about slices need, of every rival of the baseline."""
    by_name = {entry.evaluated_model.name: entry for entry in entries}
    found: dict[tuple[str, str, str], Sequence[SliceGain]] = {}
    for gate in question.gates:
        if gate.rule != "no_slice_worse":
            continue
        metric = find_metric(gate.metric or question.metrics[0].name)
        for name in _challengers(question, entries):
            found[name, metric.name, str(gate.column)] = slice_gains(
                metric, by_name[question.baseline].repeats, by_name[name].repeats, clusters,
                slices[str(gate.column)], level, question.seed,
            )  # fmt: skip
    return found


class _Judged(NamedTuple):
    """The report whose intervals are of `level`, by which gates judge."""

    report: Report
    level: float
    slices: Gains


def _with_decisions(
    report: Report,
    strict: _Judged,
    fresh: _Judged,
    question: Question,
    use_case: UseCase,
    models: Sequence[str],
    entries: Sequence[ModelEntry],
) -> Report:
    """The report with the verdict on every model against the baseline, and on the candidate above all.

    `fresh` would judge rows that nobody had asked before; `strict` accounts for the looks at these.
    """
    remarks = _remarks(len(models), strict.level, question.looks)
    if (change := question.suite_change) is not None and change.is_another:
        remarks.append(
            f"{report.dataset} {change}: another suite, so a promotion waits for a person. To stay on those rows, "
            f"evaluate on dataset={change.since!r}"
        )
    answers = {entry.evaluated_model.name: entry.repeats for entry in entries}
    compare = strict.report.comparer()
    decisions = {
        name: decision.model_copy(
            update={
                "reasons": (*decision.reasons, *unfound_labels(question.metrics[0], answers[name]), *remarks),
                "suite": question.suite,
                "dataset": report.dataset,
                "n": report.n,
                "interval": gain.interval if (gain := compare(report.baseline, name)) else None,
                "level": strict.level,
                "looks": question.looks.evaluations,
                "earlier_candidates": question.looks.candidates,
                "suite_change": question.suite_change,
            }
        )
        for name, decision in _decisions(strict, fresh, question, use_case, models).items()
    }
    decisions = {name: without_answers(decision, report.row(name)) for name, decision in decisions.items()}
    candidate, rows = question.candidate, {name: report.row(name) for name in models}
    if candidate is None:
        candidate = candidate_choice.choose(decisions, rows, compare, question.order)
        why = candidate_choice.why_it(candidate, decisions, rows, question.order)
    else:
        why = candidate_choice.why_another(candidate, decisions, rows, compare)
    if why:
        told = (*decisions[candidate].reasons, why)
        decisions[candidate] = decisions[candidate].model_copy(update={"reasons": told})
    return report.model_copy(
        update={
            "candidate": candidate,
            "order": question.order,
            "decisions": tuple(decisions.values()),
            "decision": decisions.get(candidate),
            "no_decision": None if candidate in decisions else f"the candidate {candidate} is no model to be judged",
        }
    )


def _without_copies(report: Report, entries: Sequence[ModelEntry]) -> Report:
    models = [entry.evaluated_model for entry in entries]
    identities = {one.name: one.identity for one in models if one.source in ("model", "endpoint")}
    decided = {each.candidate: without_copy(each, identities) for each in report.decisions}
    chosen = decided.get(report.decision.candidate) if report.decision else None
    return report.model_copy(update={"decisions": tuple(decided.values()), "decision": chosen})


def _remarks(judged: int, level: float, looks: LooksOnRows) -> list[str]:
    """How often these examples were asked, which a reader of the intervals must know. Where that widens the intervals,
    the gate `fresh_rows` says so."""
    remarks = []
    if judged > 1:
        remarks.append(
            f"{judged} candidates were judged, so each gate looks at {100 * level_for(judged):.4g} % intervals "
            "(Bonferroni); the leaderboard's are 95 % each"
        )
    if looks.evaluations and level == level_for(judged):
        others = "" if looks.candidates else ", of no other candidate"
        remarks.append(f"these rows were read by {looks.evaluations} earlier evaluation(s){others}")
    return remarks


def _decisions(
    strict: _Judged, fresh: _Judged, question: Question, use_case: UseCase, models: Sequence[str]
) -> dict[str, Decision]:
    later = _next_level(question, len(models))
    evidence = {name: _evidence(strict, use_case, name, fresh.level, later, question.shown) for name in models}
    alone = {
        name: gates.decide(
            question.gates,
            evidence[name],
            _evidence(fresh, use_case, name, fresh.level, later, question.shown),
            question.looks if question.suite == "core" else None,
        )
        for name in models
    }
    if any(row.model == NEAREST for row in fresh.report.leaderboard) and question.baseline == CONSTANT:
        free = fresh.report.row(NEAREST)
        alone = {
            name: gates.beside_free_method(
                decision,
                evidence[name],
                free,
                fresh.report.compare(NEAREST, name),
                same_data=name not in question.learned_elsewhere,
            )
            for name, decision in alone.items()
        }
    if question.suite != "core" or question.order:
        return alone  # which is worth its price is settled on the core suite, or by an order
    final, compare = {}, strict.report.comparer()
    for name in models:
        row = strict.report.row(name)
        cheaper = [
            strict.report.row(other)
            for other in models
            if alone[other].verdict == "promote" and is_dearer(row, strict.report.row(other))
        ]
        best = min(cheaper, key=lambda other: other.usd_per_1k or 0.0, default=None)
        final[name] = (
            gates.prefer_cheaper(alone[name], evidence[name], best, compare(best.model, name)) if best else alone[name]
        )
    return final


def _next_level(question: Question, judged: int) -> float | None:
    """The level for one candidate alone when rows are added to these, which have judged so many by then."""
    if question.suite != "core":
        return None
    return level_for(1, LooksOnRows(candidates=question.looks.spent + judged))


def _evidence(
    judged: _Judged, use_case: UseCase, candidate: str, fresh_level: float, later: float | None, shown: frozenset[str]
) -> gates.Evidence:  # fmt: skip
    report = judged.report
    found = {
        metric: comparison
        for metric in report.row(candidate).metrics
        if (comparison := report.compare(report.baseline, candidate, metric))
    }
    return gates.Evidence(
        report.metric,
        report.row(candidate),
        report.row(report.baseline),
        found,
        use_case.limits,
        judged.level,
        examples=report.n,
        clusters=report.clusters,
        fresh_level=fresh_level,
        next_level=later,
        shown=candidate in shown,
        positive_label=use_case.positive_label,
        slices={
            (metric, column): gains for (name, metric, column), gains in judged.slices.items() if name == candidate
        },
    )


class Unscored(NamedTuple):
    """An answer that a scorer gave no score. `detail` may quote what the code or the data say: foreign text."""

    model: str
    example: str
    repeat: int
    failure: str
    detail: str


class ExtraScores(NamedTuple):
    """Scores of a metric outside the metric tables: a judge's or a scorer's. They count like any other mean metric.

    `repeats`, by model: scores (n,) of each repeat, NaN where a score is missing.
    """

    metric: str
    repeats: Mapping[str, Sequence[Floats]]
    notes: Sequence[str] = ()
    verdicts: Verdicts | None = None
    unscored: Sequence[Unscored] = ()


def with_scores(entry: ModelEntry, extra: ExtraScores) -> ModelEntry:
    """The entry with these scores among its answers'."""
    scores = extra.repeats[entry.evaluated_model.name]
    repeats = tuple(
        answers._replace(scores={**answers.scores, extra.metric: each})
        for answers, each in zip(entry.repeats, scores, strict=True)
    )
    return entry._replace(repeats=repeats)
