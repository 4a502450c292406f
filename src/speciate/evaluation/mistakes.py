"""The examples that a model got most wrong. Runs in a service process, over stored answers.

What it returns is foreign text (labels, previews, messages of models): the caller shows it as untrusted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from speciate.vocabulary import Metric, find_metric


def worst(payload: dict[str, Any]) -> dict[str, Any]:
    """`{folder, candidate, count, metric}` -> `{examples: [...], wrong}`: errors first, then the surest wrong answers.

    For numbers: the largest absolute errors. For answers with more in them than a label or a number: those of which the
    metric is worst by itself.
    """
    folder, metric = Path(payload["folder"]), find_metric(payload["metric"])
    examples = {row["example"]: row for row in pq.read_table(folder / "examples.parquet").to_pylist()}
    answers = pq.read_table(folder / "predictions.parquet", filters=[("model", "==", payload["candidate"])]).to_pylist()
    badness = {answer["example"]: _badness(answer, examples[answer["example"]], metric) for answer in answers}
    wrong = [answer for answer in answers if badness[answer["example"]] > 0]
    wrong.sort(key=lambda answer: -badness[answer["example"]])
    return {
        "examples": [_shown(answer, examples[answer["example"]]) for answer in wrong[: payload["count"]]],
        "wrong": len(wrong),
    }


def _badness(answer: dict[str, Any], example: dict[str, Any], metric: Metric) -> float:
    """0 for a right answer; an error is worst of all."""
    if answer["error"] is not None:
        return float("inf")
    if "regression" in metric.families:
        return abs(float(example["truth"]) - float(answer["number"]))
    if not {"classification", "anomaly"} & set(metric.families) and (score := answer.get("score")) is not None:
        best = metric.high if metric.better == "higher" else metric.low
        return abs(float(score) - (best or 0.0))
    return 0.0 if answer["output"] == example["truth"] else 1.0 + (answer["confidence"] or 0.0)


def _shown(answer: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    output = answer["number"] if answer["output"] is None else answer["output"]
    shown = {
        "id": answer["example"], "truth": example["truth"], "output": output, "confidence": answer["confidence"],
        "error": answer["error"], "preview": example["preview"],
    }  # fmt: skip
    return {key: value for key, value in shown.items() if value is not None}
