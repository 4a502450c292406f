"""How models behave: on parts of the data, between labels, by their confidence, and on single examples."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

from speciate.evaluation.pages.markup import (
    Child,
    Column,
    Markup,
    element,
    format_count,
    format_difference,
    format_interval,
    format_number,
    format_p_value,
    format_percent,
    paragraph,
    section,
    table,
)
from speciate.evaluation.pages.page_data import PageData, model_name
from speciate.evaluation.pages.svg_charts import Curve, Scale, axis, bar, reliability
from speciate.evaluation.reports.error_analysis import BOTH, NEITHER, ONLY_BASELINE, ONLY_CANDIDATE
from speciate.evaluation.reports.stored_answers import has_labels

_TALLY = {
    BOTH: "both right", ONLY_CANDIDATE: "only the candidate right", ONLY_BASELINE: "only the baseline right",
    NEITHER: "both wrong", "candidate_nearer": "the candidate nearer to the truth",
    "baseline_nearer": "the baseline nearer to the truth", "alike": "alike",
}  # fmt: skip

_LONGEST_HEADING = 12
_SURE = "In brackets: how sure a model says it is."


def slices(contents: PageData) -> Markup | None:
    found = contents.slices
    if not found["columns"]:
        return None
    alone = contents.candidate == contents.baseline
    every = [one for cut in found["columns"] for one in cut["slices"]]
    scale = Scale.of(end for one in every for end in (0.0, one["delta"], *(one["interval"] or ())))
    told = (
        f"{found['metric']} within each value of the columns that have few."
        if alone
        else f"{found['metric']} within each value of the columns that have few, as candidate minus baseline. Among "
        f"many slices some differ by chance: the last p is adjusted for all {len(every)} (Holm)."
    )
    return section(
        "Slices",
        paragraph(told),
        *(_slice_table(cut, scale, alone=alone) for cut in found["columns"]),
        name="slices",
    )


def _slice_table(cut: Mapping[str, Any], scale: Scale, *, alone: bool) -> Markup:
    column = "the true label" if cut["column"] == "truth" else cut["column"]
    if alone:
        columns = [Column("Value"), Column("Examples", True), Column("Model", True)]
        rows: list[list[Child]] = [
            [s["value"], format_count(s["n"]), format_number(s["candidate"])] for s in cut["slices"]
        ]
        return table(f"By {column}", columns, rows)
    columns = [
        Column("Value"), Column("Examples", True), Column("Baseline", True), Column("Candidate", True),
        Column("Difference", True), Column("95 % interval", True), Column(axis(scale, "difference, drawn")),
        Column("p", True), Column("p, Holm", True), Column("Smallest detectable", True),
    ]  # fmt: skip
    rows = [
        [
            s["value"],
            format_count(s["n"]),
            format_number(s["baseline"]),
            format_number(s["candidate"]),
            format_difference(s["delta"]),
            format_interval(s["interval"]),
            bar(s["delta"], s["interval"], scale, "candidate", zero=True),
            format_p_value(s["p_value"]),
            format_p_value(s["p_holm"]),
            format_number(s["minimum_detectable_effect"]),
        ]
        for s in cut["slices"]
    ]
    return table(f"By {column}", columns, rows)


def confusion(contents: PageData) -> Markup | None:
    if not contents.confusion:
        return None
    parts: list[Markup] = []
    for found in contents.confusion:
        role = contents.role(found["model"])
        parts += [
            element("h3", element("span", role, class_=role), f": {model_name(found['model'])}"),
            paragraph(f"{found['wrong']:,} of {found['answers']:,} answers are wrong."),
            element("div", _matrix(found), _pairs(found) if found["pairs"] else None, class_="charts"),
        ]
    return section("Confusion", *parts, name="confusion")


def _matrix(found: Mapping[str, Any]) -> Markup:
    """Truths down, answers across; each cell shaded by its share of its truth."""
    labels, counts = found["labels"], found["counts"]
    head, numbered = element("tr", element("th", "Truth \\ answer", scope="col"), *_headings(labels)), _is_wide(labels)
    body = [
        element(
            "tr",
            element("th", element("div", f"{i + 1}. {name}" if numbered else name, class_="words"), scope="row"),
            *(_count(counts[i], j, right=i == j) for j, _ in enumerate(labels)),
        )
        for i, name in enumerate(labels)
        if sum(counts[i])
    ]
    more = f"; (others) stands for {found['others']} labels that take part in fewer mistakes" if found["others"] else ""
    caption = f"Answers by true label, shaded by their share of it{more}"
    whole = element(
        "table", element("caption", caption), element("thead", head), element("tbody", *body), class_="matrix"
    )
    return element("div", whole, class_="wide", role="region", tabindex="0", aria_label=caption)


def _is_wide(labels: Sequence[str]) -> bool:
    return any(len(name) > _LONGEST_HEADING for name in labels)


def _headings(labels: Sequence[str]) -> list[Markup]:
    """The labels, or their numbers where they would make the table too wide to be seen at once."""
    if not _is_wide(labels):
        return [element("th", name, scope="col") for name in labels]
    return [
        element("th", element("span", name, class_="unseen"), element("span", place, aria_hidden="true"), scope="col")
        for place, name in enumerate(labels, 1)
    ]


def _count(row: Sequence[int], place: int, *, right: bool) -> Markup:
    part = row[place] / sum(row)
    colour = "--candidate" if right else "--bad"
    depth = 60 * (part if right else math.sqrt(part))  # mistakes are seldom, and what a reader looks for
    shade = f"background: color-mix(in srgb, var({colour}) {depth:.0f}%, transparent)" if row[place] else None
    return element("td", f"{row[place]:,}" if row[place] else "·", style=shade, class_="right" if right else None)


def _pairs(found: Mapping[str, Any]) -> Markup:
    columns = [Column("True label"), Column("Answered"), Column("Times", True), Column("Of that truth", True)]
    rows: list[list[Child]] = [
        [truth, said, format_count(n), format_percent(part)] for truth, said, n, part in found["pairs"]
    ]
    more = f"; {found['more_pairs']:,} further kinds are left out" if found["more_pairs"] else ""
    return table(f"The most frequent mistakes{more}", columns, rows)


def calibration(contents: PageData) -> Markup | None:
    known = [found for found in contents.calibration if found["n"]]
    if not known:
        return None
    curves = [
        Curve(contents.role(found["model"]), tuple((stated, right, n) for _, _, n, stated, right in found["bins"]))
        for found in known
    ]
    figure = element(
        "figure", reliability(curves),
        element("figcaption", "On the dashed line a model is as often right as it says; below it, it is too sure."),
    )  # fmt: skip
    tables = [_bins(found, contents.role(found["model"])) for found in known]
    return section("Calibration", element("div", figure, *tables, class_="charts"), name="calibration")


def _bins(found: Mapping[str, Any], role: str) -> Markup:
    columns = [Column("Confidence"), Column("Answers", True), Column("Mean confidence", True), Column("Right", True)]
    rows: list[list[Child]] = [
        [f"{low:.1f} to {high:.1f}", format_count(n), format_number(stated), format_number(right)]
        for low, high, n, stated, right in found["bins"]
    ]
    without = f"; {found['without']:,} answers came without a confidence" if found["without"] else ""
    error = format_number(found["error"])
    caption = f"{role.capitalize()}: {model_name(found['model'])}. Expected calibration error {error}{without}"
    return table(caption, columns, rows)


def mistakes(contents: PageData) -> Markup:
    worst = contents.worst
    title, name = "Worst examples", "worst"
    if not worst["examples"]:
        return section(title, paragraph(f"No answer of {model_name(contents.candidate)} is wrong."), name=name)
    told = f"{worst['wrong']:,} answers of {model_name(contents.candidate)} are not exactly right"
    shown = len(worst["examples"])
    told += f". Here are the {shown} worst, errors first." if worst["wrong"] > shown else "."
    sure = f" {_SURE}" if has_labels(contents.report.metric) else None
    return section(title, paragraph(told, sure), _cards(contents, worst["examples"], _answer_facts), name=name)


def disagreements(contents: PageData) -> Markup | None:
    found = contents.disagreements
    if found is None:
        return None
    tally = [(_TALLY[kind], n) for kind, n in found["tally"].items()]
    ways = [
        (f"Better: {model_name(contents.candidate)}", found["candidate_better"]),
        (f"Better: {model_name(contents.baseline)}", found["baseline_better"]),
        ("All models differ", contents.contested),
    ]
    return section(
        "Where models disagree",
        table(
            "Examples of both",
            [Column("Who is right"), Column("Examples", True)],
            [[n, format_count(c)] for n, c in tally],
        ),
        *(
            part
            for title, examples in ways
            if examples
            for part in (
                element("h3", title),
                _cards(contents, examples, _pair_facts if title != ways[2][0] else _all_facts),
            )
        ),
        name="disagreements",
    )


def _cards(contents: PageData, examples: Sequence[Mapping[str, Any]], tell: Any) -> Markup:
    cards = [element("li", _medium(contents, one), element("dl", *tell(contents, one))) for one in examples]
    return element("ol", *cards, class_="examples" if contents.pictures else "examples texts")


def _medium(contents: PageData, example: Mapping[str, Any]) -> Markup | None:
    data = contents.pictures.get(example["id"])
    if data is not None:
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        return element("img", src=source, alt=f"Example {example['id']}, true answer {_cell(example['truth'])}")
    preview = example.get("preview")
    return element("blockquote", preview) if preview else None


def _answer_facts(contents: PageData, example: Mapping[str, Any]) -> list[Markup]:
    sure = f" ({format_percent(example['confidence'])})" if example.get("confidence") is not None else ""
    told = f"{_cell(example['output'])}{sure}" if "output" in example else f"error: {example.get('error')}"
    return [_fact("Truth", _cell(example["truth"])), _fact("Answer", told), _fact("Id", example["id"])]


def _pair_facts(contents: PageData, example: Mapping[str, Any]) -> list[Markup]:
    return [
        _fact("Truth", _cell(example["truth"])),
        _fact("Candidate", _with_confidence(example, "candidate"), "candidate"),
        _fact("Baseline", _with_confidence(example, "baseline"), "baseline"),
        _fact("Id", example["id"]),
    ]


def _all_facts(contents: PageData, example: Mapping[str, Any]) -> list[Markup]:
    given = sorted(example["answers"].items(), key=lambda pair: contents.place(pair[0]))
    answers = "; ".join(f"{contents.place(model)}: {_cell(answer)}" for model, answer in given)
    return [_fact("Truth", _cell(example["truth"])), _fact("Answers", answers), _fact("Id", example["id"])]


def _with_confidence(example: Mapping[str, Any], who: str) -> str:
    confidence = example.get(f"{who}_confidence")
    return _cell(example[who]) + (f" ({format_percent(confidence)})" if confidence is not None else "")


def _fact(name: str, what: str, kind: str | None = None) -> Markup:
    return element("div", element("dt", name, class_=kind), element("dd", what))


def _cell(value: Any) -> str:
    """An answer or a truth: numbers, which truths hold as text, to a few digits, what is long cut."""
    try:
        return format_number(float(value), 4)
    except ValueError:
        text = str(value)
        return text if len(text) <= 200 else f"{text[:199]}…"
