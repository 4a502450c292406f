"""Where models differ: the main metric within each value of a column. Runs in a service process, over stored scores.

Only metrics with a score per example can be cut this way from stored rows; a corpus metric falls back to the first
mean metric of the evaluation. The comparisons of all slices share Holm's adjustment: among many slices some look bad
by chance.
"""

from __future__ import annotations

import math
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.errors import Code, SpeciateError, unknown
from speciate.evaluation.holm import holm
from speciate.evaluation.report import interval, number
from speciate.evaluation.statistics import Floats, clustered_mean, paired_difference, proportion

_FIXED = ("example", "group_key", "preview")
_MOST = 20


def by_column(payload: dict[str, Any]) -> dict[str, Any]:
    """`{folder, column, metric, baseline, candidate}` -> `{slices: [...], metric, left_out}`.

    A slice is `{value, n, baseline, candidate, delta, interval, p_value, p_holm}`; the largest 20 values are shown.
    The column `label` is the truth, unless the dataset has another of that name.
    """
    folder, column = Path(payload["folder"]), payload["column"]
    examples = pq.read_table(folder / "examples.parquet")
    if column == "label" and column not in examples.column_names:
        column = "truth"
    if column not in examples.column_names or column in _FIXED:
        known = [name for name in examples.column_names if name not in _FIXED]
        raise unknown("column", column, known, "Call describe_evaluation again with slice_by set to one of these.")
    scores = pq.read_table(folder / "scores.parquet")
    metric = _metric(scores, payload["metric"])
    place = {name: i for i, name in enumerate(examples["example"].to_pylist())}
    first = _column_of(scores, payload["baseline"], metric, place)
    second = _column_of(scores, payload["candidate"], metric, place)
    cells = np.array([str(cell) for cell in examples[column].to_pylist()])
    groups = np.unique(_groups(examples), return_inverse=True)[1].astype(np.int64)
    values, counts = np.unique(cells, return_counts=True)
    largest = [str(values[i]) for i in np.argsort(-counts, kind="stable")[:_MOST]]
    slices = [_slice(value, cells == value, first, second, groups) for value in largest]
    adjusted = holm([math.nan if s["p_value"] is None else s["p_value"] for s in slices])
    slices = [s | {"p_holm": number(p)} for s, p in zip(slices, adjusted, strict=True)]
    return {"slices": slices, "metric": metric, "left_out": max(0, len(values) - _MOST)}


def _metric(scores: pa.Table, wanted: str) -> str:
    stored = list(dict.fromkeys(scores["metric"].to_pylist()))
    if not stored:
        raise SpeciateError(
            Code.INVALID,
            "This evaluation has no metric with a score per example, so it cannot be cut into slices.",
            "Call evaluate_models again with one that has, such as accuracy, mae or dice: list_options(kind='metric').",
        )
    return wanted if wanted in stored else str(stored[0])


def _column_of(scores: pa.Table, model: str, metric: str, place: dict[str, int]) -> Floats:
    """One model's scores in the order of the examples; NaN where the metric does not count an example."""
    column = np.full(len(place), math.nan)
    for name, example, kind, value in zip(*(scores[c].to_pylist() for c in scores.column_names), strict=True):
        if name == model and kind == metric:
            column[place[example]] = value
    return column


def _groups(examples: pa.Table) -> list[str]:
    names, groups = examples["example"].to_pylist(), examples["group_key"].to_pylist()
    return [f"group {group}" if group else f"example {name}" for name, group in zip(names, groups, strict=True)]


def _slice(value: str, mask: Any, first: Floats, second: Floats, groups: Any) -> dict[str, Any]:
    difference = paired_difference(first[mask], second[mask], groups[mask])
    return {
        "value": _clean(value),
        "n": difference.n,
        "baseline": _mean(first[mask], groups[mask]),
        "candidate": _mean(second[mask], groups[mask]),
        "delta": number(difference.delta),
        "interval": interval(difference.low, difference.high),
        "p_value": number(difference.p_value),
        "minimum_detectable_effect": number(difference.minimum_detectable_effect),
    }


def _clean(cell: str) -> str:
    """As a label may be shown: at most 64 characters, none of them for control or direction."""
    return "".join(c for c in cell if not unicodedata.category(c).startswith("C"))[:64]


def _mean(values: Floats, groups: Any) -> float | None:
    zero_one = np.isin(values[~np.isnan(values)], (0.0, 1.0)).all()
    return number((proportion if zero_one else clustered_mean)(values, groups).value)
