"""What was asked, and what the gates say to it."""

from __future__ import annotations

import json
import time

from speciate.evaluation.pages.markup import (
    NO_NUMBER,
    Child,
    Column,
    Markup,
    bullet_list,
    definition_list,
    element,
    format_count,
    format_interval,
    format_number,
    paragraph,
    section,
    table,
)
from speciate.evaluation.pages.page_data import PageData, model_name
from speciate.evaluation.reports.report import Decision
from speciate.use_cases import Gate, UseCase
from speciate.vocabulary import Metric, find_metric

_WORDS = {
    "promote": "Promote: every gate passes.",
    "hold": "Hold: at least one gate fails.",
    "inconclusive": "Inconclusive: no gate fails, but these examples cannot tell whether all pass.",
}


def request_section(contents: PageData) -> Markup:
    report, use_case = contents.report, contents.use_case
    metric = find_metric(report.metric)
    target = use_case.objective.target if use_case else None
    pair = contents.candidate != contents.baseline
    groups = "" if report.clusters == report.n else f" in {report.clusters:,} independent groups"
    return section(
        "What was asked",
        definition_list(
            [
                ("Use case", _use_case_name(report.use_case, report.use_case_version)),
                ("Task", use_case.task if use_case else None),
                ("Examples", f"{report.n:,} of {report.dataset}{groups}"),
                ("Metric", f"{metric.name}: {metric.what}; {metric.better} is better"),
                ("Target", f"{format_number(target)} or {_beyond(metric.better)}" if target is not None else None),
                ("Limits", _limits(use_case) if use_case else None),
                ("Candidate", element("span", model_name(contents.candidate), class_="candidate")),
                ("Baseline", element("span", model_name(contents.baseline), class_="baseline") if pair else None),
                ("Made", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(contents.created))),
            ]
        ),
        paragraph(use_case.description) if use_case and use_case.description else None,
        name="asked",
    )


def verdict(contents: PageData) -> Markup:
    report = contents.report
    if report.decision is None:
        why = report.no_decision or "no use case was named"
        return section("Verdict", paragraph(f"There is no verdict: {why}."), name="verdict")
    decision = report.decision
    return section(
        "Verdict",
        paragraph(badge(decision.verdict), f" on {decision.candidate}, against {model_name(decision.baseline)}. "),
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
    return [bullet_list(list(rest))] if rest else []


def _others(decisions: tuple[Decision, ...], chosen: Decision) -> Markup | None:
    others = [decision for decision in decisions if decision.candidate != chosen.candidate]
    if not others:
        return None
    rows: list[list[Child]] = [
        [one.candidate, element("span", one.verdict, class_=one.verdict), format_interval(one.interval), one.reasons[0]]
        for one in others
    ]
    columns = [Column("Model"), Column("Verdict"), Column("Gain over the baseline", True), Column("First reason")]
    return table("Verdicts on the other models", columns, rows)


def describe_gate(gate: Gate) -> str:
    """`better accuracy`, `at_most p95_latency_ms 50`, `no_slice_worse by site`."""
    value = "" if gate.value is None else format_number(gate.value)
    column = f"by {gate.column}" if gate.column else ""
    return " ".join(part for part in (gate.rule, gate.metric or "", value, column) if part)


def _use_case_name(name: str | None, version: int | None) -> str | None:
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
    told = [words.format(format_number(value)) for value, words in known if value is not None]
    told += [f"at most {format_count(limits.max_parameters)} parameters"] if limits.max_parameters else []
    told += [f"licences: {', '.join(limits.licenses)}"] if limits.licenses else []
    return "; ".join([*told, *(["works without a network"] if limits.offline else [])])


def notes(contents: PageData) -> Markup | None:
    return section("Notes", bullet_list(list(contents.report.notes)), name="notes") if contents.report.notes else None


def method(contents: PageData) -> Markup:
    report = contents.report
    devices = sorted({row.device for row in report.leaderboard if row.device})
    even = contents.break_even
    return section(
        "How it was measured",
        definition_list(
            [
                ("Examples", f"{report.n:,}, the same for every model"),
                ("Independent groups", f"{report.clusters:,}: intervals count these, not examples"),
                ("Device", "; ".join(devices) or "no latency or cost was measured"),
                ("Intervals", ", ".join(_methods(contents)) or NO_NUMBER),
                (
                    "Break-even",
                    f"the training of {even.candidate} (${format_number(even.training_usd)}) is paid for after "
                    f"{even.examples:,} examples, each 1,000 of which cost ${format_number(even.saved_usd_per_1k)} less"
                    if even
                    else None,
                ),
            ]
        ),
        paragraph(
            "An error counts as the worst answer. Latency is that of one example at a time on a warm model; what a "
            "model of your own costs is its processor time at a price per core-hour. p is of one difference alone; "
            "Holm's p is adjusted for all that stand beside it."
        ),
        _metrics(contents),
        name="method",
    )


def repeat(contents: PageData) -> Markup:
    read = {"evaluation": contents.evaluation, "baseline": contents.baseline, "page": True}
    return section(
        "How to repeat it",
        paragraph("Models of your own answer the same again; costs and latencies vary, and what others serve."),
        element("pre", f"speciate call evaluate_models --args '{_json(repeat_arguments(contents))}'"),
        paragraph("This page:"),
        element("pre", f"speciate call describe_evaluation --args '{_json(read)}'"),
        name="repeat",
    )


def repeat_arguments(contents: PageData) -> dict[str, object]:
    """The arguments of `evaluate_models` that ask the same: the baseline first unless the use case brings it."""
    report = contents.report
    middle = [row.model for row in report.leaderboard if row.model not in (report.baseline, report.candidate)]
    ends = [report.candidate] if report.candidate != report.baseline else []
    first = [] if report.use_case and (middle or ends) else [report.baseline]
    arguments: dict[str, object] = {"models": [*first, *middle, *ends], "dataset": report.dataset}
    if report.use_case:
        arguments["use_case"] = report.use_case
    metrics = [name for name in contents.main.metrics if find_metric(name).families]
    return arguments | {"metrics": metrics} | dict(contents.options)  # which bring the others along


def signature(metric: Metric) -> str:
    """What tells two metrics of one name apart: `accuracy|mean|higher|0..1`."""
    low, high = ("" if end is None else f"{end:g}" for end in (metric.low, metric.high))
    return f"{metric.name}|{metric.shape}|{metric.better}|{low}..{high}"


def _metrics(contents: PageData) -> Markup:
    rows: list[list[Child]] = [
        [name, find_metric(name).what, element("code", signature(find_metric(name))), value.method.replace("_", " ")]
        for name, value in contents.main.metrics.items()
    ]
    columns = [Column("Metric"), Column("What it is"), Column("Signature"), Column("Interval")]
    return table("Metrics", columns, rows)


def _methods(contents: PageData) -> list[str]:
    used = {value.method for row in contents.report.leaderboard for value in row.metrics.values() if value.method}
    return [method.replace("_", " ") for method in sorted(used)]


def _json(arguments: dict[str, object]) -> str:
    """As an argument in single quotes of a shell."""
    return json.dumps(arguments, ensure_ascii=False).replace("'", "'\\''")
