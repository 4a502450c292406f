"""From everybody's answers to a report: values, intervals, paired comparisons, decisions. Worker side, no I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from speciate.evaluation import gates, statistics
from speciate.evaluation.contestants import Contestant
from speciate.evaluation.metrics import Answers, contributions, corpus
from speciate.evaluation.report import Comparison, Control, Decision, Report, Row, Value, break_even, interval, number
from speciate.evaluation.statistics import Codes, Difference, Estimate, Floats, Resampled
from speciate.usecases import UseCase
from speciate.vocabulary import Metric, find_metric


class Cost(NamedTuple):
    """Measured on a warm model; None where nothing of it applies (a column, the constant)."""

    usd_per_1k: float | None = None
    p50_ms: float | None = None
    p95: Estimate | None = None
    device: str | None = None
    memory_mb: float | None = None


class Entry(NamedTuple):
    """One contestant with all of its answers."""

    contestant: Contestant
    answers: Answers
    errors: int
    cost: Cost
    seen: int = 0
    """Examples that were in its training data."""
    certain: bool = False
    """Gives no probabilities: its answers count as certain where a metric needs them."""


class Scored(NamedTuple):
    """A metric of one entry: per example (mean metrics) or resampled (corpus metrics)."""

    estimate: Estimate
    values: Floats | None
    resampled: Resampled | None


class Question(NamedTuple):
    """What the evaluation asks. The first metric is the main one; `candidate` None lets the gates choose."""

    dataset: str
    metrics: tuple[Metric, ...]
    baseline: str
    candidate: str | None
    use_case: UseCase | None
    decides: bool
    """Whether a verdict may be given: False where the suite or the baseline is not the use case's own."""
    seed: int = 0


def score(metric: Metric, answers: Answers, clusters: Codes, seed: int = 0) -> Scored:
    """One metric of one model with its interval."""
    if metric.shape == "mean":
        values = contributions(metric, answers)
        zero_one = np.isin(values[~np.isnan(values)], (0.0, 1.0)).all()
        estimate = (statistics.proportion if zero_one else statistics.clustered_mean)(values, clusters)
        return Scored(estimate, values, None)
    count = int(clusters.max()) + 1
    resampled = statistics.resample(corpus(metric, answers, clusters), count, seed)
    estimate = statistics.bootstrap(resampled, share=metric.is_share)._replace(n=len(answers.truth))
    return Scored(estimate, None, resampled)


def build(question: Question, entries: Sequence[Entry], clusters: Codes, notes: Sequence[str] = ()) -> Report:
    """The report of all entries on the same examples; `clusters` codes each example's group as 0..C-1."""
    scored = {
        entry.contestant.name: {
            metric.name: score(metric, entry.answers, clusters, question.seed) for metric in question.metrics
        }
        for entry in entries
    }
    main = question.metrics[0]
    rows = [_row(entry, main, scored[entry.contestant.name]) for entry in entries]
    comparisons = _comparisons(question, list(scored), scored, clusters)
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
        comparisons=comparisons,
        notes=tuple(notes),
    )
    return _decided(_without_dominated(report), question, entries)


def _row(entry: Entry, main: Metric, scored: dict[str, Scored]) -> Row:
    contestant, cost, n = entry.contestant, entry.cost, len(entry.answers.truth)
    values = {name: _value(find_metric(name), found.estimate, entry.certain) for name, found in scored.items()}
    is_model = contestant.source != "column"
    return Row(
        model=contestant.name,
        served_model=contestant.name,
        metric=main.name,
        value=values[main.name].value,
        interval=values[main.name].interval,
        n=values[main.name].n,
        errors=entry.errors,
        seen=entry.seen,
        coverage=round(1 - entry.errors / n, 6) if n else 0.0,
        usd_per_1k=number(cost.usd_per_1k) if cost.usd_per_1k is not None else None,
        p50_ms=number(cost.p50_ms) if cost.p50_ms is not None else None,
        p95_ms=number(cost.p95.value) if cost.p95 else None,
        p95_interval=interval(cost.p95.low, cost.p95.high) if cost.p95 else None,
        device=cost.device,
        control=Control(weights_owned=is_model, offline=is_model, pinned=is_model, license=contestant.license),
        parameters=contestant.parameters,
        memory_mb=cost.memory_mb,
        training_usd=contestant.training_usd,
        metrics=values,
    )


def _value(metric: Metric, estimate: Estimate, certain: bool) -> Value:
    note = "gives no probabilities: each answer counts as certain" if certain and metric.probabilities else ""
    if estimate.clusters < 2:
        note = f"{estimate.clusters} independent example(s) counted: too few for an interval"
    return Value(
        value=number(estimate.value),
        interval=interval(estimate.low, estimate.high),
        standard_error=number(estimate.standard_error),
        n=estimate.n,
        method=estimate.method,
        note=note,
    )


# Comparisons


def _comparisons(
    question: Question, names: Sequence[str], scored: dict[str, dict[str, Scored]], clusters: Codes
) -> tuple[Comparison, ...]:
    """Every pair under every metric, the question's baseline first where it takes part."""
    ordered = sorted(names, key=lambda name: name != question.baseline)
    return tuple(
        _comparison(metric, first, second, scored[first][metric.name], scored[second][metric.name], clusters)
        for metric in question.metrics
        for first, second in combinations(ordered, 2)
    )


def _comparison(
    metric: Metric, baseline: str, candidate: str, first: Scored, second: Scored, clusters: Codes
) -> Comparison:
    difference = _difference(metric, first, second, clusters)
    return Comparison(
        metric=metric.name,
        baseline=baseline,
        candidate=candidate,
        delta=number(difference.delta),
        interval=interval(difference.low, difference.high),
        p_value=number(difference.p_value),
        method=difference.method,
        minimum_detectable_effect=number(difference.minimum_detectable_effect),
        standard_error=number(difference.standard_error),
        n=difference.n,
        clusters=difference.clusters,
        **_tally(metric, difference),
    )


def _difference(metric: Metric, first: Scored, second: Scored, clusters: Codes) -> Difference:
    if first.values is not None and second.values is not None:
        return statistics.paired_difference(first.values, second.values, clusters)
    if first.resampled is None or second.resampled is None:
        raise TypeError("both sides of a comparison are scored by the same metric")
    difference = statistics.bootstrap_difference(first.resampled, second.resampled, share=metric.is_share)
    return difference._replace(n=first.estimate.n)


def _tally(metric: Metric, difference: Difference) -> dict[str, int | None]:
    """Wins are the candidate's, whichever direction is better."""
    wins, losses = difference.wins, difference.losses
    return {
        "wins": wins if metric.sign > 0 else losses,
        "ties": difference.ties,
        "losses": losses if metric.sign > 0 else wins,
    }


def _without_dominated(report: Report) -> Report:
    rows = tuple(
        row.model_copy(update={"dominated": gates.dominated(row, report.leaderboard, report.compare)})
        for row in report.leaderboard
    )
    return report.model_copy(update={"leaderboard": rows})


# Decisions


def _decided(report: Report, question: Question, entries: Sequence[Entry]) -> Report:
    """The report with the verdict on every model against the baseline, and on the candidate above all."""
    models = [
        entry.contestant.name
        for entry in entries
        if entry.contestant.source == "model" and entry.contestant.name != question.baseline
    ]
    candidate = question.candidate
    if question.use_case is not None and question.decides and models:
        decisions = _decisions(report, question.use_case, models)
        rows = {name: report.row(name) for name in models}
        chosen = candidate if candidate in decisions else None
        chosen = chosen or (gates.choose(decisions, rows, report.compare) if candidate is None else None)
        candidate = chosen or candidate
        report = report.model_copy(
            update={"decisions": tuple(decisions.values()), "decision": decisions[chosen] if chosen else None}
        )
    candidate = candidate or (models[-1] if models else question.baseline)
    return report.model_copy(
        update={"candidate": candidate, "break_even": break_even(report, report.baseline, candidate)}
    )


def _decisions(report: Report, use_case: UseCase, models: Sequence[str]) -> dict[str, Decision]:
    evidence = {name: _evidence(report, use_case, name) for name in models}
    alone = {name: gates.decide(use_case.in_force, evidence[name]) for name in models}
    final = {}
    for name in models:
        row = report.row(name)
        cheaper = [
            report.row(other)
            for other in models
            if alone[other].verdict == "promote" and gates.is_dearer(row, report.row(other))
        ]
        best = min(cheaper, key=lambda other: other.usd_per_1k or 0.0, default=None)
        final[name] = (
            gates.prefer_cheaper(alone[name], evidence[name], best, report.compare(best.model, name))
            if best
            else alone[name]
        )
    return final


def _evidence(report: Report, use_case: UseCase, candidate: str) -> gates.Evidence:
    found = {
        metric: comparison
        for metric in report.row(candidate).metrics
        if (comparison := report.compare(report.baseline, candidate, metric))
    }
    return gates.Evidence(report.metric, report.row(candidate), report.row(report.baseline), found, use_case.limits)
