"""What was asked, and what the gates say to it."""

from __future__ import annotations

import time

from speciate.evaluation.pages.contents import Contents, called
from speciate.evaluation.pages.markup import Child, Column, Markup, element, facts, listed, paragraph, section, table
from speciate.evaluation.pages.numbers import count, show, span
from speciate.evaluation.report import Decision
from speciate.usecases import Gate, UseCase
from speciate.vocabulary import find_metric

_WORDS = {
    "promote": "Promote: every gate passes.",
    "hold": "Hold: at least one gate fails.",
    "inconclusive": "Inconclusive: no gate fails, but these examples cannot tell whether all pass.",
}


def asked(contents: Contents) -> Markup:
    report, use_case = contents.report, contents.use_case
    metric = find_metric(report.metric)
    target = use_case.objective.target if use_case else None
    pair = contents.candidate != contents.baseline
    groups = "" if report.clusters == report.n else f" in {report.clusters:,} independent groups"
    return section(
        "What was asked",
        facts(
            [
                ("Use case", _named(report.use_case, report.use_case_version)),
                ("Task", use_case.task if use_case else None),
                ("Examples", f"{report.n:,} of {report.dataset}{groups}"),
                ("Metric", f"{metric.name}: {metric.what}; {metric.better} is better"),
                ("Target", f"{show(target)} or {_beyond(metric.better)}" if target is not None else None),
                ("Limits", _limits(use_case) if use_case else None),
                ("Candidate", element("span", called(contents.candidate), class_="candidate")),
                ("Baseline", element("span", called(contents.baseline), class_="baseline") if pair else None),
                ("Made", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(contents.created))),
            ]
        ),
        paragraph(use_case.description) if use_case and use_case.description else None,
        name="asked",
    )


def verdict(contents: Contents) -> Markup:
    report = contents.report
    if report.decision is None:
        why = report.no_decision or "no use case was named"
        return section("Verdict", paragraph(f"There is no verdict: {why}."), name="verdict")
    decision = report.decision
    return section(
        "Verdict",
        paragraph(badge(decision.verdict), f" on {decision.candidate}, against {called(decision.baseline)}. "),
        paragraph(_WORDS[decision.verdict]),
        paragraph(f"About {decision.needed_examples:,} further test rows would settle it.")
        if decision.needed_examples
        else None,
        _gates(decision),
        *_remarks(decision),
        _others(report.decisions, decision),
        name="verdict",
    )


def badge(word: str) -> Markup:
    return element("span", word, class_=f"verdict {word}")


def _gates(decision: Decision) -> Markup:
    rows: list[list[Child]] = [
        [describe_gate(result.gate), element("span", result.outcome, class_=result.outcome), result.reason]
        for result in decision.gates
    ]
    return table("Each condition, and what the intervals say", [Column("Gate"), Column("Outcome"), Column("Why")], rows)


def _remarks(decision: Decision) -> list[Markup]:
    """Reasons that are no gate's."""
    told = {result.reason for result in decision.gates}
    rest = [reason for reason in decision.reasons if reason not in told]
    return [listed(list(rest))] if rest else []


def _others(decisions: tuple[Decision, ...], chosen: Decision) -> Markup | None:
    others = [decision for decision in decisions if decision.candidate != chosen.candidate]
    if not others:
        return None
    rows: list[list[Child]] = [
        [one.candidate, element("span", one.verdict, class_=one.verdict), span(one.interval), one.reasons[0]]
        for one in others
    ]
    columns = [Column("Model"), Column("Verdict"), Column("Gain over the baseline", True), Column("First reason")]
    return table("Verdicts on the other models", columns, rows)


def describe_gate(gate: Gate) -> str:
    """`better accuracy`, `at_most p95_latency_ms 50`, `no_slice_worse by site`."""
    value = "" if gate.value is None else show(gate.value)
    column = f"by {gate.column}" if gate.column else ""
    return " ".join(part for part in (gate.rule, gate.metric or "", value, column) if part)


def _named(name: str | None, version: int | None) -> str | None:
    return f"{name}, version {version}" if name and version else name


def _beyond(better: str) -> str:
    return "more" if better == "higher" else "less"


def _limits(use_case: UseCase) -> str:
    limits = use_case.limits
    known = [
        (limits.p95_latency_ms, "p95 latency at most {} ms"),
        (limits.usd_per_1k, "at most ${} per 1,000 examples"),
        (limits.max_memory_mb, "at most {} MB of memory"),
    ]
    told = [words.format(show(value)) for value, words in known if value is not None]
    told += [f"at most {count(limits.max_parameters)} parameters"] if limits.max_parameters else []
    told += [f"licences: {', '.join(limits.licenses)}"] if limits.licenses else []
    return "; ".join([*told, *(["works without a network"] if limits.offline else [])])
