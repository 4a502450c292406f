"""The examples that a model got most wrong. Runs in a service process, over stored answers.

What it returns is foreign text (labels, previews, messages of models): the caller shows it as untrusted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speciate.evaluation.stored import (
    LOST,
    RECOVERY,
    Answer,
    Example,
    by_example,
    has_labels,
    read_answers,
    read_examples,
    said,
)
from speciate.vocabulary import Metric, find_metric
from speciate.workspace import integrity

_MOST_REASONS = 3
"""Of a scorer's failures that are told in its own words."""


def worst(payload: dict[str, Any]) -> dict[str, Any]:
    """`{folder, candidate, count, metric, inputs}` -> `{examples, wrong, failures}`: errors first, then sure mistakes.

    `failures`: of each model that gave errors how many, and the commonest.

    For numbers: the largest absolute errors. For answers with more in them than a label or a number: those of which the
    metric is worst by itself. Of repeated answers the worst counts.
    """
    metric, examples = find_metric(payload["metric"]), read_examples(payload)
    answers = [
        max(given, key=lambda answer: badness(answer, examples[answer["example"]], metric))
        for given in by_example(read_answers(payload, [payload["candidate"]])).values()
    ]
    judged = [(badness(answer, examples[answer["example"]], metric), answer) for answer in answers]
    wrong = sorted((pair for pair in judged if pair[0] > 0), key=lambda pair: -pair[0])
    return {
        "examples": [shown(answer, examples[answer["example"]]) for _, answer in wrong[: payload["count"]]],
        "wrong": len(wrong),
        "failures": failures(read_answers(payload)),
    }


def unscored(payload: dict[str, Any]) -> dict[str, Any]:
    """`{folder}` -> `{answers, failures, models, first}`: answers without a score, and the first of each reason."""
    table = integrity.read_table(Path(payload["folder"]) / "unscored.parquet", LOST, RECOVERY)
    rows = table.to_pylist()
    reasons = Counter((row["failure"], row["detail"]) for row in rows)
    first = {(row["failure"], row["detail"]): row for row in reversed(rows)}
    shown = ("model", "example", "failure", "detail")
    return {
        "answers": len(rows),
        "failures": dict(Counter(row["failure"] for row in rows)),
        "models": dict(Counter(row["model"] for row in rows)),
        "first": [
            {**{name: first[reason][name] for name in shown}, "count": count}
            for reason, count in list(reasons.items())[:_MOST_REASONS]
        ],
    }


def failures(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Of each model that failed on some example."""
    found: dict[str, Counter[str]] = {}
    for answer in answers:
        if answer["error"] is not None:
            found.setdefault(answer["model"], Counter())[answer["error"]] += 1
    return [
        {"model": model, "errors": errors.total(), "commonest": errors.most_common(1)[0][0]}
        for model, errors in sorted(found.items())
    ]


def badness(answer: Answer, example: Example, metric: Metric) -> float:
    """0 for a right answer; an error is worst of all."""
    is_number = "regression" in metric.families
    if answer["error"] is not None or (is_number and answer["number"] is None):
        return math.inf
    if is_number:
        return abs(float(example["truth"]) - float(answer["number"]))
    if not has_labels(metric.name) and (score := answer.get("score")) is not None:
        best = metric.high if metric.better == "higher" else metric.low or 0.0
        if best is not None:
            return abs(float(score) - best)
    return 0.0 if answer["output"] == example["truth"] else 1.0 + (answer["confidence"] or 0.0)


def mean_badness(answers: Sequence[Answer], example: Example, metric: Metric) -> float:
    """Of one model's answers to an example."""
    return sum(badness(answer, example, metric) for answer in answers) / len(answers)


def shown(answer: Answer, example: Example) -> dict[str, Any]:
    """What a reader wants to see of it, without what is not there."""
    found = {
        "id": answer["example"], "truth": example["truth"], "output": said(answer), "confidence": answer["confidence"],
        "error": answer["error"], "preview": example["preview"],
    }  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}
