"""All that a page shows of one evaluation, gathered from the report, the stored rows and the media.

What the templates show beside the report's own fields is a property of PageData.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import to_jsonable_python

from speciate import use_cases
from speciate.errors import SpeciateError
from speciate.evaluation.evaluate import EvaluateSpec
from speciate.evaluation.pages.formatting import format_answer, format_count, format_number
from speciate.evaluation.pages.svg_charts import Curve, Point, Scale, Svg, reliability, scatter
from speciate.evaluation.reports.describe_evaluation import Inspection, against_baseline
from speciate.evaluation.reports.error_analysis import BOTH, NEITHER, ONLY_BASELINE, ONLY_CANDIDATE
from speciate.evaluation.reports.report import (
    BreakEven,
    Comparison,
    Decision,
    Pareto,
    Report,
    Row,
    break_even,
    learning_split_words,
    pareto,
)
from speciate.evaluation.reports.stored_answers import has_labels
from speciate.jobs.pool import Pool
from speciate.use_cases import COLUMN, CONSTANT, NEAREST, Gate, UseCase, UseCaseLimits
from speciate.vocabulary import Metric, find_metric
from speciate.workspace.workspace import Workspace

_PAIRS, _LABELS, _EXAMPLES, _EACH_WAY = 10, 20, 24, 12
_FEWEST_FOR_CONTESTED = 3
_LONGEST_HEADING = 12
_SHOWN_ELSEWHERE = (
    "models", "dataset", "suite", "use_case", "metrics", "candidate", "pick", "order", "baseline", "seed",
)  # fmt: skip
"""What the report says itself, or no caller of the tool chooses."""


class PageData(NamedTuple):
    evaluation: str
    created: float
    """Seconds since 1970."""
    report: Report
    use_case: UseCase | None
    baseline: str
    candidate: str
    comparisons: tuple[Comparison, ...]
    pareto: Pareto
    break_even: BreakEven | None
    slices: Mapping[str, Any]
    confusion: Sequence[Mapping[str, Any]]
    calibration: Sequence[Mapping[str, Any]]
    worst: Mapping[str, Any]
    disagreements: Mapping[str, Any] | None
    """None where there is one model."""
    contested: Sequence[Mapping[str, Any]]
    thumbnails: Mapping[str, bytes]
    """PNGs by example; empty for examples that are shown as text."""
    options: Mapping[str, Any]
    """Options of the evaluation beside models, data and metrics."""

    def role(self, model: str) -> str:
        """`candidate`, `baseline` or `other`: also the class by which the page colours it."""
        return "candidate" if model == self.candidate else "baseline" if model == self.baseline else "other"

    def place(self, model: str) -> int:
        """Place of a model in the leaderboard, from 1 on: how charts name it."""
        return [row.model for row in self.report.leaderboard].index(model) + 1

    def places(self, models: Sequence[str]) -> list[int]:
        return [self.place(model) for model in models]

    def role_words(self, model: str) -> str:
        role = self.role(model)
        words = [] if role == "other" else [role]
        return ", ".join([*words, *(["dominated"] if model in self.pareto.dominated else [])])

    @property
    def main(self) -> Row:
        return self.report.row(self.candidate)

    @property
    def title(self) -> str:
        count = len(self.report.leaderboard)
        models = model_name(self.candidate) if count == 1 else f"{count} models"
        return f"{self.report.metric} of {models} on {self.report.dataset}"

    @property
    def use_case_name(self) -> str | None:
        name, version = self.report.use_case, self.report.use_case_version
        return f"{name}, version {version}" if name and version else name

    @property
    def examples_in_words(self) -> str:
        report = self.report
        groups = "" if report.clusters == report.n else f" in {report.clusters:,} groups"
        told = learning_split_words(report.judged_split)
        return f"{report.n:,} of {report.dataset}{groups}{f' ({told})' if told else ''}"

    @property
    def target_in_words(self) -> str | None:
        target = self.use_case.objective.target if self.use_case else None
        better = "more" if find_metric(self.report.metric).better == "higher" else "less"
        return None if target is None else f"{format_number(target)} or {better}"

    @property
    def further_reasons(self) -> list[str]:
        """Reasons of the decision that are no gate's."""
        decision = self.report.decision
        of_gates = {result.reason for result in decision.gates} if decision else set()
        return [reason for reason in decision.reasons if reason not in of_gates] if decision else []

    @property
    def other_decisions(self) -> list[Decision]:
        chosen = self.report.decision
        return [one for one in self.report.decisions if chosen and one.candidate != chosen.candidate]

    @property
    def devices(self) -> list[str]:
        return sorted({row.device for row in self.report.leaderboard if row.device})

    @property
    def interval_methods(self) -> list[str]:
        used = {value.method for row in self.report.leaderboard for value in row.metrics.values() if value.method}
        return [method.replace("_", " ") for method in sorted(used)]

    @property
    def other_metrics(self) -> list[str]:
        return [name for name in self.main.metrics if name != self.report.metric]

    @property
    def pair_metrics(self) -> list[Comparison]:
        """Candidate against baseline under the other metrics."""
        found = (self.report.compare(self.baseline, self.candidate, name) for name in self.other_metrics)
        return [one for one in found if one]

    @property
    def value_scale(self) -> Scale:
        return Scale.of(end for row in self.report.leaderboard for end in (row.value, *(row.interval or ())))

    @property
    def difference_scale(self) -> Scale:
        return Scale.of(end for one in self.comparisons for end in (0.0, one.delta, *(one.interval or ())))

    @property
    def slice_scale(self) -> Scale:
        every = [one for cut in self.slices["columns"] for one in cut["slices"]]
        return Scale.of(end for one in every for end in (0.0, one["delta"], *(one["interval"] or ())))

    @property
    def slice_count(self) -> int:
        return sum(len(cut["slices"]) for cut in self.slices["columns"])

    @property
    def cost_charts(self) -> list[tuple[str, Svg]]:
        """The metric over cost and over latency, each with its caption, if at least two models have them measured."""
        rows, up = self.report.leaderboard, self.report.metric
        measured = {
            "$ per 1,000 examples": [(row, row.usd_per_1k) for row in rows],
            "p95 latency, ms": [(row, row.p95_ms) for row in rows],
        }
        points = {across: self._points(costs) for across, costs in measured.items()}
        return [(f"{up} over {across}", scatter(some, across, up)) for across, some in points.items() if len(some) > 1]

    def _points(self, costs: Sequence[tuple[Row, float | None]]) -> list[Point]:
        return [
            Point(
                str(self.place(row.model)), cost, row.value, row.interval,
                self.role(row.model) + (" dominated" if row.model in self.pareto.dominated else ""),
            )
            for row, cost in costs if cost is not None and row.value is not None
        ]  # fmt: skip

    @property
    def calibrated(self) -> list[Mapping[str, Any]]:
        """Calibration of the models whose answers have a confidence."""
        return [found for found in self.calibration if found["n"]]

    @property
    def reliability_chart(self) -> Svg:
        return reliability(
            [
                Curve(self.role(found["model"]), tuple((stated, right, n) for _, _, n, stated, right in found["bins"]))
                for found in self.calibrated
            ]
        )

    @property
    def has_labels(self) -> bool:
        return has_labels(self.report.metric)

    def answers_by_place(self, answers: Mapping[str, Any]) -> str:
        """All models' answers to an example, in the order of the leaderboard."""
        given = sorted((self.place(model), answer) for model, answer in answers.items())
        return "; ".join(f"{place}: {format_answer(answer)}" for place, answer in given)


def gather(workspace: Workspace, pool: Pool, evaluation: str, baseline: str | None = None) -> PageData:
    """Raises NOT_FOUND for an evaluation or a baseline that is not there."""
    found = Inspection(workspace, pool, evaluation, baseline)
    report, models = found.report, found.pair
    worst = found.ask("error_analysis:worst_examples", count=_EXAMPLES)
    differ = found.ask("error_analysis:disagreements", count=_EACH_WAY) if len(models) > 1 else None
    contested = (
        found.ask("error_analysis:contested_examples", count=_EACH_WAY)["examples"]
        if len(report.leaderboard) >= _FEWEST_FOR_CONTESTED
        else []
    )
    shown = [
        *worst["examples"],
        *contested,
        *(differ["candidate_better"] + differ["baseline_better"] if differ else []),
    ]
    return PageData(
        evaluation,
        found.created,
        report,
        _use_case(workspace, report),
        found.baseline,
        found.candidate,
        against_baseline(report, found.baseline),
        pareto(report),
        break_even(report, found.baseline, found.candidate),
        found.ask("slice_metrics:slices_by_columns", but=_answer_columns(report)),
        found.ask("error_analysis:confusion", models=models, pairs=_PAIRS, labels=_LABELS)["models"],
        found.ask("error_analysis:calibration", models=models)["models"],
        worst,
        differ,
        contested,
        found.thumbnails([one["id"] for one in shown]) if found.has_thumbnails else {},
        non_default_options(found.spec),
    )


def model_name(model: str) -> str:
    """A model in a sentence."""
    return {CONSTANT: "the constant answer", NEAREST: "the nearest neighbour"}.get(model, model)


def model_explained(model: str) -> str:
    """What a name that is no version stands for."""
    told = {CONSTANT: "always the most frequent label", NEAREST: "the label of the most similar training example"}
    return told.get(model, model)


def _answer_columns(report: Report) -> list[str]:
    """Columns that hold a model's answers: slices by what a model says mislead."""
    return [row.model.removeprefix(COLUMN) for row in report.leaderboard if row.model.startswith(COLUMN)]


def non_default_options(spec: Mapping[str, Any]) -> Mapping[str, object]:
    """Options of the evaluation whose values are not the defaults."""
    fields = {name: field for name, field in EvaluateSpec.model_fields.items() if not field.is_required()}
    defaults = {
        name: to_jsonable_python(field.get_default(call_default_factory=True)) for name, field in fields.items()
    }
    return {name: value for name, value in spec.items() if name not in _SHOWN_ELSEWHERE and value != defaults.get(name)}


def _use_case(workspace: Workspace, report: Report) -> UseCase | None:
    """The version that was evaluated; None if it is gone."""
    if report.use_case is None:
        return None
    try:
        return use_cases.get(workspace.database, report.use_case, report.use_case_version)
    except SpeciateError:
        return None


def describe_gate(gate: Gate) -> str:
    """`better accuracy`, `at_most p95_latency_ms 50`, `no_slice_worse by site`."""
    value = "" if gate.value is None else format_number(gate.value)
    column = f"by {gate.column}" if gate.column else ""
    unknown = f"if unknown: {gate.if_unknown}" if gate.if_unknown else ""
    return " ".join(part for part in (gate.rule, gate.metric or "", value, column, unknown) if part)


def describe_limits(limits: UseCaseLimits) -> str:
    known = [
        (limits.p95_latency_ms, "p95 latency at most {} ms"),
        (limits.usd_per_1k, "at most ${} per 1,000 examples"),
        (limits.max_memory_mb, "at most {} MB of memory"),
    ]
    parts = [words.format(format_number(value)) for value, words in known if value is not None]
    parts += [f"at most {format_count(limits.max_parameters)} parameters"] if limits.max_parameters else []
    parts += [f"licences: {', '.join(limits.licenses)}"] if limits.licenses else []
    return "; ".join([*parts, *(["works without a network"] if limits.offline else [])])


def repeat_arguments(data: PageData) -> dict[str, object]:
    """Arguments of `evaluate_models` for the same evaluation: the baseline first unless the use case names it."""
    report = data.report
    middle = [row.model for row in report.leaderboard if row.model not in (report.baseline, report.candidate)]
    ends = [report.candidate] if report.candidate != report.baseline else []
    first = [] if report.use_case and (middle or ends) else [report.baseline]
    arguments: dict[str, object] = {"models": [*first, *middle, *ends], "dataset": report.dataset}
    if report.use_case:
        arguments["use_case"] = report.use_case
    metrics = [name for name in data.main.metrics if find_metric(name).families]
    return arguments | {"metrics": metrics} | dict(data.options)  # the options bring the other metrics along


def signature(metric: Metric) -> str:
    """Tells two metrics of one name apart: `accuracy|mean|higher|0..1`."""
    low, high = ("" if end is None else f"{end:g}" for end in (metric.low, metric.high))
    return f"{metric.name}|{metric.shape}|{metric.better}|{low}..{high}"


def has_long_label(labels: Sequence[str]) -> bool:
    """Whether headings of the labels would make a table too wide to be seen at once."""
    return any(len(name) > _LONGEST_HEADING for name in labels)


def cell_shade(share: float, right: bool) -> str:
    """The style of a cell of a confusion matrix. Mistakes are rare, so theirs is darker than proportional."""
    depth = 60 * (share if right else math.sqrt(share))
    return f"background: color-mix(in srgb, var({'--candidate' if right else '--bad'}) {depth:.0f}%, transparent)"


def shaded_matrix(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Confusion matrix with the share of its row in each cell, as a step for its shade."""
    rows = []
    for place, (label, counts) in enumerate(zip(found["labels"], found["counts"], strict=True)):
        total = sum(counts) or 1
        cells = [
            {"count": count, "answer": answer, "right": at == place, "shade": shade_step(count / total, at == place)}
            for at, (answer, count) in enumerate(zip(found["labels"], counts, strict=True))
        ]
        rows.append({"label": label, "cells": cells, "total": sum(counts)})
    return {**found, "rows": rows}


def shade_step(share: float, right: bool) -> int:
    """The same in steps, 0 to 3, for pages whose policy allows no style of an element."""
    return math.ceil(3 * (share if right else share**0.5)) if share else 0


AGREEMENT_WORDS = {
    BOTH: "both right", ONLY_CANDIDATE: "only the candidate right", ONLY_BASELINE: "only the baseline right",
    NEITHER: "both wrong", "candidate_nearer": "the candidate nearer to the reference",
    "baseline_nearer": "the baseline nearer to the reference", "alike": "alike",
}  # fmt: skip
