"""The examples that a model got most wrong. Runs in a service process, over stored answers.

What it returns is foreign text (labels, previews, messages of models): the caller shows it as untrusted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def worst(payload: dict[str, Any]) -> dict[str, Any]:
    """`{folder, candidate, count, numeric}` -> `{examples: [...], wrong}`: errors first, then the surest wrong answers.

    For numbers: the largest absolute errors.
    """
    folder = Path(payload["folder"])
    examples = {row["example"]: row for row in pq.read_table(folder / "examples.parquet").to_pylist()}
    answers = pq.read_table(folder / "predictions.parquet", filters=[("model", "==", payload["candidate"])]).to_pylist()
    wrong = [answer for answer in answers if _badness(answer, examples, payload["numeric"]) > 0]
    wrong.sort(key=lambda answer: -_badness(answer, examples, payload["numeric"]))
    return {
        "examples": [_shown(answer, examples[answer["example"]]) for answer in wrong[: payload["count"]]],
        "wrong": len(wrong),
    }


def _badness(answer: dict[str, Any], examples: dict[str, Any], numeric: bool) -> float:
    """0 for a right answer; an error is worst of all."""
    if answer["error"] is not None:
        return float("inf")
    truth = examples[answer["example"]]["truth"]
    if numeric:
        return abs(float(truth) - float(answer["number"]))
    return 0.0 if answer["output"] == truth else 1.0 + (answer["confidence"] or 0.0)


def _shown(answer: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    output = answer["number"] if answer["output"] is None else answer["output"]
    shown = {
        "id": answer["example"], "truth": example["truth"], "output": output, "confidence": answer["confidence"],
        "error": answer["error"], "preview": example["preview"],
    }  # fmt: skip
    return {key: value for key, value in shown.items() if value is not None}
