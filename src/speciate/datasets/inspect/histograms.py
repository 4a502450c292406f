"""How the columns of a version are spread: bins of numbers and the most frequent words, each with the range or value
that picks its rows.

`column_histograms` runs in a service process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from speciate.datasets import version_rows
from speciate.datasets.versions import Manifest
from speciate.workspace.workspace import Folders

BINS = 24
_MOST_COLUMNS, _MOST_WORDS = 16, 12
_FEW = 40
"""So many different words are a kind; more are free text, which has no bars."""


class HistogramRequest(BaseModel):
    model_config = ConfigDict(frozen=True)
    root: Path
    manifest: Manifest


class Bar(TypedDict):
    """`value` of words, `low` and `high` of numbers: from low up to high, the last bin with its end."""

    count: int
    value: NotRequired[str]
    low: NotRequired[float]
    high: NotRequired[float]


class Histogram(TypedDict):
    column: str
    bars: list[Bar]
    missing: int
    others: int
    """Rows whose word is not among the bars."""


class Histograms(TypedDict):
    columns: list[Histogram]
    left_out: int


def column_histograms(payload: Mapping[str, object]) -> Histograms:
    """The service, of usable rows. `payload`: a HistogramRequest."""
    request = HistogramRequest.model_validate(payload)
    folders, manifest = Folders(request.root), request.manifest
    wanted = [name for name in manifest.columns if name not in ("split", "label")]
    rows = version_rows.read(folders, manifest, ["quality", "split", "label", *wanted[: 4 * _MOST_COLUMNS]])
    rows = rows.filter(pc.equal(rows["quality"], "ok"))
    found = [each for name in ("label", "split", *wanted[: 4 * _MOST_COLUMNS]) if (each := _histogram(rows, name))]
    shown = found[:_MOST_COLUMNS]
    return {"columns": shown, "left_out": len(found) - len(shown)}


def _histogram(rows: pa.Table, name: str) -> Histogram | None:
    """None for a column without bars: free text, nested cells, nothing at all."""
    column = rows[name]
    kind, missing = column.type, column.null_count
    if missing == len(column) or pa.types.is_nested(kind):
        return None
    if pa.types.is_boolean(kind):
        return _of_words(name, column.cast(pa.string()), missing)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        bars = _bins(column.drop_null().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
        return {"column": name, "bars": bars, "missing": missing, "others": 0} if bars else None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        return _of_words(name, column.cast(pa.string()), missing)
    return None


def _bins(values: Any) -> list[Bar]:
    values = values[np.isfinite(values)]
    if not len(values):
        return []
    low, high = float(values.min()), float(values.max())
    if low == high:
        return [{"count": len(values), "low": low, "high": high}]
    counts, edges = np.histogram(values, BINS, (low, high))
    return [
        {"count": int(count), "low": float(a), "high": float(b)}
        for count, a, b in zip(counts, edges[:-1], edges[1:], strict=True)
    ]


def _of_words(name: str, column: pa.ChunkedArray, missing: int) -> Histogram | None:
    tallied = pc.value_counts(column.drop_null())
    if len(tallied) > _FEW and name != "label":
        return None
    pairs = sorted(
        ((each["counts"].as_py(), each["values"].as_py()) for each in tallied), key=lambda pair: (-pair[0], pair[1])
    )
    bars: list[Bar] = [{"count": count, "value": value} for count, value in pairs[:_MOST_WORDS]]
    return {
        "column": name, "bars": bars, "missing": missing, "others": math.floor(sum(n for n, _ in pairs[_MOST_WORDS:])),
    }  # fmt: skip
