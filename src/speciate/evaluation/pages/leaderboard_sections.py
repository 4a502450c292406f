"""The models side by side: values, differences, costs."""

from __future__ import annotations

from collections.abc import Sequence

from speciate.evaluation.pages.markup import (
    NO_NUMBER,
    Child,
    Column,
    Markup,
    element,
    format_count,
    format_difference,
    format_interval,
    format_number,
    format_p_value,
    format_usd,
    join_markup,
    paragraph,
    section,
    table,
)
from speciate.evaluation.pages.page_data import PageData, model_name
from speciate.evaluation.pages.svg_charts import Point, Scale, axis, bar, scatter
from speciate.evaluation.reports.report import Comparison, Row


def leaderboard(contents: PageData) -> Markup:
    report = contents.report
    scale = Scale.of(end for row in report.leaderboard for end in (row.value, *(row.interval or ())))
    columns = [
        Column("Model"), Column(report.metric, True), Column("95 % interval", True),
        Column(axis(scale, "value and interval, drawn")), Column("Counted", True), Column("Errors", True),
        Column("$ per 1,000", True), Column("p95 ms", True),
    ]  # fmt: skip
    rows: list[list[Child]] = [
        [
            ranked_name(contents, row.model), format_number(row.value), format_interval(row.interval),
            bar(row.value, row.interval, scale, contents.role(row.model)),
            format_count(row.n), f"{row.errors:,}", format_usd(row.usd_per_1k), format_number(row.p95_ms),
        ]
        for row in report.leaderboard
    ]  # fmt: skip
    caption = f"The best {report.metric} first ({report.better} is better)"
    return section(
        "Leaderboard",
        table(caption, columns, rows, [contents.role(row.model) for row in report.leaderboard]),
        element("p", f"{NO_NUMBER} stands for what was not measured or is not known.", class_="note"),
        _metrics(contents),
        _costs(contents),
        name="leaderboard",
    )


def comparisons(contents: PageData) -> Markup | None:
    if not contents.comparisons:
        return None
    metric, baseline = contents.report.metric, model_name(contents.baseline)
    pair = [
        each
        for name in contents.main.metrics
        if name != metric and (each := contents.report.compare(contents.baseline, contents.candidate, name))
    ]
    return section(
        "Paired comparisons",
        paragraph(
            f"Each model minus {baseline} on the same examples. An interval without zero is a difference beyond "
            "chance. The smallest detectable effect is the true difference that so many examples find four times in "
            "five: an interval that holds zero rules out only differences that are clearly larger."
        ),
        _compared(f"{metric}: every model against {baseline}", contents.comparisons, contents, by_model=True),
        _compared(f"Other metrics: {model_name(contents.candidate)} against {baseline}", pair, contents, by_model=False)
        if pair
        else None,
        name="comparisons",
    )


def pareto(contents: PageData) -> Markup | None:
    rows = contents.report.leaderboard
    if len(rows) < 2:
        return None
    up = contents.report.metric
    charts = [
        _chart(contents, [(row, row.usd_per_1k) for row in rows], "$ per 1,000 examples", up),
        _chart(contents, [(row, row.p95_ms) for row in rows], "p95 latency, ms", up),
    ]
    drawn = [chart for chart in charts if chart is not None]
    return section(
        "Quality, cost and latency",
        element("div", *drawn, class_="charts")
        if drawn
        else paragraph("Fewer than two models have a measured cost or latency, so nothing can be weighed."),
        paragraph(
            "Numbers are places in the leaderboard, lines are 95 % intervals. A model is dominated, and drawn hollow, "
            "where another one costs no more, answers no later and is surely better: the paired interval of their "
            "difference excludes zero. What is not measured cannot be dominated."
        ),
        _dominated(contents),
        name="pareto",
    )


def ranked_name(contents: PageData, model: str) -> Markup:
    """A model with its place in the leaderboard and its role."""
    role = contents.role(model)
    told = [] if role == "other" else [role]
    told += ["dominated"] if model in contents.pareto.dominated else []
    under = element("span", ", ".join(told), class_=f"role {role}") if told else None
    return join_markup(f"{contents.place(model)}. ", element("bdi", model_name(model)), under)


def _compared(caption: str, found: Sequence[Comparison], contents: PageData, *, by_model: bool) -> Markup:
    scale = Scale.of(end for one in found for end in (0.0, one.delta, *(one.interval or ())))
    drawn = [Column(axis(scale, "difference and interval, drawn"))] if by_model else []
    columns = [
        Column("Model" if by_model else "Metric"), Column("Difference", True), Column("95 % interval", True), *drawn,
        Column("p", True), *([Column("p, Holm", True)] if by_model else []), Column("Smallest detectable", True),
        Column("Wins, ties, losses", True), Column("Method"),
    ]  # fmt: skip
    rows: list[list[Child]] = []
    for one in found:
        role = contents.role(one.candidate)
        picture = [bar(one.delta, one.interval, scale, role, zero=True)] if by_model else []
        rows.append(
            [
                ranked_name(contents, one.candidate) if by_model else one.metric,
                format_difference(one.delta),
                format_interval(one.interval),
                *picture,
                format_p_value(one.p_value),
                *([format_p_value(one.p_holm)] if by_model else []),
                format_number(one.minimum_detectable_effect),
                _tally(one),
                one.method.replace("_", " "),
            ]
        )
    return table(caption, columns, rows, [contents.role(one.candidate) for one in found] if by_model else ())


def _tally(one: Comparison) -> str:
    return (
        NO_NUMBER
        if one.wins is None
        else f"{format_count(one.wins)}, {format_count(one.ties)}, {format_count(one.losses)}"
    )


def _metrics(contents: PageData) -> Markup | None:
    """Every metric of every model, where there is more than the main one."""
    rows = contents.report.leaderboard
    names = [name for name in contents.main.metrics if name != contents.report.metric]
    if not names:
        return None
    columns = [Column("Model"), *(Column(name, True) for name in names)]
    cells: list[list[Child]] = [
        [ranked_name(contents, row.model), *(_cell(row, name) for name in names)] for row in rows
    ]
    return table("The other metrics, each with its 95 % interval", columns, cells)


def _cell(row: Row, metric: str) -> str:
    value = row.metrics.get(metric)
    if value is None or value.value is None:
        return NO_NUMBER
    return (
        f"{format_number(value.value)} ({format_interval(value.interval)})"
        if value.interval
        else format_number(value.value)
    )


def _chart(contents: PageData, costs: Sequence[tuple[Row, float | None]], across: str, up: str) -> Markup | None:
    points = [
        Point(
            str(contents.place(row.model)), cost, row.value, row.interval,
            contents.role(row.model) + (" dominated" if row.model in contents.pareto.dominated else ""),
        )
        for row, cost in costs if cost is not None and row.value is not None
    ]  # fmt: skip
    if len(points) < 2:
        return None
    return element("figure", scatter(points, across, up), element("figcaption", f"{up} over {across}"))


def _dominated(contents: PageData) -> Markup:
    rows: list[list[Child]] = [
        [ranked_name(contents, model), ", ".join(str(contents.place(other)) for other in others)]
        for model, others in contents.pareto.dominated.items()
    ]
    if not rows:
        return paragraph("No model is dominated.")
    return table("Dominated models, and the places of those that dominate them", [Column("Model"), Column("By")], rows)


def _costs(contents: PageData) -> Markup:
    """What else decides on a model. What no model has is no column."""
    rows = contents.report.leaderboard
    columns = [
        Column("Model"), Column("p50 ms", True), Column("p95 ms, 95 % interval", True),
        *([Column("First token, ms", True)] if _stream(rows) else []),
        Column("Parameters", True), Column("Memory MB", True), Column("Licence"), Column("Weights owned"),
        Column("Offline"), Column("Pinned"), *([Column("Answers each", True)] if _repeat(rows) else []),
        Column("Seen in training", True),
    ]  # fmt: skip
    cells: list[list[Child]] = [
        [
            ranked_name(contents, row.model), format_number(row.p50_ms), format_interval(row.p95_interval),
            *([format_number(row.ttft_ms)] if _stream(rows) else []),
            format_count(row.parameters), format_number(row.memory_mb), row.control.license or "unknown",
            _yes(row.control.weights_owned), _yes(row.control.offline), _yes(row.control.pinned),
            *([format_count(row.repeats)] if _repeat(rows) else []), _seen(row),
        ]
        for row in rows
    ]  # fmt: skip
    return table("Latency, size and control", columns, cells)


def _stream(rows: Sequence[Row]) -> bool:
    return any(row.ttft_ms is not None for row in rows)


def _repeat(rows: Sequence[Row]) -> bool:
    return any(row.repeats > 1 for row in rows)


def _seen(row: Row) -> str:
    near = f", {row.nearly_seen:,} nearly" if row.nearly_seen else ""
    return "unknown" if row.seen is None else f"{row.seen:,}{near}"


def _yes(there: bool) -> str:
    return "yes" if there else "no"
