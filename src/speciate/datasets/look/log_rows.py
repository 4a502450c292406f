"""The log of a use case as rows that SQL can ask: one for each answer, beside what was said of it.

Runs in a service process that may read that log alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.predictions import feedback, reading
from speciate.predictions.folder import LogFolder

NAMES = (
    "id", "at", "model", "input", "output", "confidence", "error", "ms", "given", "redacted", "left_out", "label",
    "label_source", "score", "right_by_feedback",
)  # fmt: skip


def write(log: dict[str, Any]) -> Path:
    """{path, since} -> a Parquet file in the working folder. `input` and what is no text of `output` is JSON."""
    folder, since = LogFolder(Path(log["path"])), float(log["since"])
    rows = reading.answers(folder, since=since) if folder.path.exists() else reading.table([], ".answers.parquet")
    given = feedback.latest(reading.feedback(folder, since=since)) if folder.path.exists() else {}
    outputs = [None if cell is None else json.loads(cell) for cell in rows["output"].to_pylist()]
    said = [given.get(each, {}) for each in rows["id"].to_pylist()]
    labels = [feedback.label(each) for each in said]
    verdicts = [feedback.judged(output, each) for output, each in zip(outputs, said, strict=True)]
    columns: dict[str, Any] = {
        name: rows[name]
        for name in ("id", "model", "input", "confidence", "error", "ms", "given", "redacted", "left_out")
    }
    columns["at"] = pa.array([round(1000 * at) for at in rows["at"].to_pylist()], pa.timestamp("ms"))
    columns["output"] = pa.array([_text(each) for each in outputs], pa.string())
    columns["label"] = pa.array([_text(each.label) if each else None for each in labels], pa.string())
    columns["label_source"] = pa.array([each.source if each else None for each in labels], pa.string())
    scores = [next((g.score for g in each.values() if g.score is not None), None) for each in said]
    columns["score"] = pa.array(scores, pa.float64())
    right = [bool(each.value) if each and each.measure == "right" else None for each in verdicts]
    columns["right_by_feedback"] = pa.array(right, pa.bool_())
    target = Path.cwd() / "log.parquet"
    pq.write_table(pa.table({name: columns[name] for name in NAMES}), target)
    return target


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
