"""How it was measured, and how to do it again."""

from __future__ import annotations

import json

from speciate.evaluation.pages.contents import Contents
from speciate.evaluation.pages.markup import Child, Column, Markup, element, facts, listed, paragraph, section, table
from speciate.evaluation.pages.numbers import NONE, show
from speciate.vocabulary import Metric, find_metric


def notes(contents: Contents) -> Markup | None:
    return section("Notes", listed(list(contents.report.notes)), name="notes") if contents.report.notes else None


def method(contents: Contents) -> Markup:
    report = contents.report
    devices = sorted({row.device for row in report.leaderboard if row.device})
    even = contents.break_even
    return section(
        "How it was measured",
        facts(
            [
                ("Examples", f"{report.n:,}, the same for every model"),
                ("Independent groups", f"{report.clusters:,}: intervals count these, not examples"),
                ("Device", "; ".join(devices) or "no latency or cost was measured"),
                ("Intervals", ", ".join(_methods(contents)) or NONE),
                (
                    "Break-even",
                    f"the training of {even.candidate} (${show(even.training_usd)}) is paid for after "
                    f"{even.examples:,} examples, each 1,000 of which cost ${show(even.saved_usd_per_1k)} less"
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


def repeat(contents: Contents) -> Markup:
    read = {"evaluation": contents.evaluation, "baseline": contents.baseline, "page": True}
    return section(
        "How to repeat it",
        paragraph("Models of your own answer the same again; costs and latencies vary, and what others serve."),
        element("pre", f"speciate call evaluate_models --args '{_json(again(contents))}'"),
        paragraph("This page:"),
        element("pre", f"speciate call describe_evaluation --args '{_json(read)}'"),
        name="repeat",
    )


def again(contents: Contents) -> dict[str, object]:
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


def _metrics(contents: Contents) -> Markup:
    rows: list[list[Child]] = [
        [name, find_metric(name).what, element("code", signature(find_metric(name))), value.method.replace("_", " ")]
        for name, value in contents.main.metrics.items()
    ]
    columns = [Column("Metric"), Column("What it is"), Column("Signature"), Column("Interval")]
    return table("Metrics", columns, rows)


def _methods(contents: Contents) -> list[str]:
    used = {value.method for row in contents.report.leaderboard for value in row.metrics.values() if value.method}
    return [method.replace("_", " ") for method in sorted(used)]


def _json(arguments: dict[str, object]) -> str:
    """As an argument in single quotes of a shell."""
    return json.dumps(arguments, ensure_ascii=False).replace("'", "'\\''")
