"""What an evaluation keeps by example: answers, scores, and what slices are cut by.

`examples.parquet` has id, group, reference, a preview of text and the user's columns; `predictions.parquet` a row per
model, example and repeat, errors among them; `scores.parquet` a row per model, example and mean metric, repeats
averaged. Where a scorer failed on some answers, `unscored.parquet` has a row for each with the reason.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa

from speciate.datasets.loading.loader import Example
from speciate.evaluation import answer_cache
from speciate.evaluation.compare_models import ModelEntry
from speciate.evaluation.metrics import alone, averaged
from speciate.evaluation.predictors.answering import ModelAnswers
from speciate.evaluation.scorers.scoring import Unscored
from speciate.vocabulary import Metric, find_metric

EXAMPLES, PREDICTIONS, SCORES = "examples.parquet", "predictions.parquet", "scores.parquet"
UNSCORED = "unscored.parquet"
_PREVIEW = 300


def write(
    outputs: Path,
    metrics: Sequence[str],
    examples: Sequence[Example],
    references: Sequence[Any],
    all_answers: Sequence[ModelAnswers],
    entries: Sequence[ModelEntry],
    unscored: Sequence[Unscored],
) -> None:
    """All files; `metrics` by name, the main one first."""
    predictions = _prediction_rows(find_metric(metrics[0]), examples, all_answers, entries)
    tables = {
        EXAMPLES: _examples_table(examples, references),
        PREDICTIONS: pa.Table.from_pylist(predictions, _PREDICTION_SCHEMA),
        SCORES: pa.Table.from_pylist(_score_rows(metrics, examples, entries), _SCORE_SCHEMA),
    }
    if unscored:
        tables[UNSCORED] = pa.Table.from_pylist([each._asdict() for each in unscored], _UNSCORED_SCHEMA)
    for name, table in tables.items():
        answer_cache.write_table(table, outputs / name)


_PREDICTION_SCHEMA = pa.schema(
    [
        ("model", pa.string()), ("example", pa.string()), ("repeat", pa.int64()), ("output", pa.string()),
        ("number", pa.float64()),
        ("confidence", pa.float64()), ("probabilities", pa.string()), ("error", pa.string()),
        ("score", pa.float64()),  # the main metric of this example by itself
    ]
)  # fmt: skip
_SCORE_SCHEMA = pa.schema(
    [("model", pa.string()), ("example", pa.string()), ("metric", pa.string()), ("value", pa.float64())]
)
_UNSCORED_SCHEMA = pa.schema(
    [
        ("model", pa.string()), ("example", pa.string()), ("repeat", pa.int64()), ("failure", pa.string()),
        ("detail", pa.string()),
    ]
)  # fmt: skip


class _PredictionRow(TypedDict):
    model: str
    example: str
    repeat: int
    output: str | None
    number: float | None
    confidence: float | None
    probabilities: str | None
    error: str | None
    score: float | None


class _ScoreRow(TypedDict):
    model: str
    example: str
    metric: str
    value: float


def _prediction_rows(
    main: Metric,
    examples: Sequence[Example],
    all_answers: Sequence[ModelAnswers],
    entries: Sequence[ModelEntry],
) -> list[_PredictionRow]:
    return [
        {
            "model": model_answers.evaluated_model.name,
            "example": example.id,
            "repeat": repeat,
            "output": _output_text(answer.output),
            "number": answer.output if isinstance(answer.output, float | int) else None,
            "confidence": answer.confidence,
            "probabilities": json.dumps(answer.probabilities) if answer.probabilities else None,
            "error": answer.error,
            "score": None if math.isnan(score) else float(score),
        }
        for model_answers, entry in zip(all_answers, entries, strict=True)
        for repeat, (answers, metric_answers) in enumerate(zip(model_answers.repeats, entry.repeats, strict=True))
        for example, answer, score in zip(examples, answers, alone(main, metric_answers), strict=True)
    ]


def _output_text(output: Any) -> str | None:
    """A label as it is, structured output as JSON."""
    if output is None or isinstance(output, float | int):
        return None
    return output if isinstance(output, str) else json.dumps(output)


def _score_rows(metrics: Sequence[str], examples: Sequence[Example], entries: Sequence[ModelEntry]) -> list[_ScoreRow]:
    means = [metric for name in metrics if (metric := find_metric(name)).shape == "mean"]
    return [
        {"model": entry.evaluated_model.name, "example": example.id, "metric": metric.name, "value": float(value)}
        for entry in entries
        for metric in means
        for example, value in zip(examples, averaged(metric, entry.repeats), strict=True)
        if not math.isnan(value)
    ]


def _examples_table(examples: Sequence[Example], references: Sequence[Any]) -> pa.Table:
    """Columns of the user stay under their own names where their cells are short text, numbers or Booleans."""
    own: dict[str, list[Any]] = {
        "example": [example.id for example in examples],
        "group_key": [example.group for example in examples],
        "truth": [answer if isinstance(answer, str) else json.dumps(answer) for answer in references],
        "preview": [example.media[:_PREVIEW] if isinstance(example.media, str) else None for example in examples],
    }
    names = sorted({name for example in examples for name in example.columns} - own.keys())
    for name in names:
        cells = [example.columns.get(name) for example in examples]
        if all(cell is None or isinstance(cell, str | int | float | bool) for cell in cells):
            own[name] = [None if cell is None else str(cell)[:_PREVIEW] for cell in cells]
    return pa.table({name: pa.array(cells, pa.string()) for name, cells in own.items()})
