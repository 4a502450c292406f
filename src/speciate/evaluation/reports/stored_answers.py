"""The stored rows of an evaluation, as error analysis, slices and preference pairs read them.

Columns that are not asked for are not read, so files may gain some. Where answers were repeated, a model has several
rows for an example.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.vocabulary import Family, find_metric
from speciate.workspace import integrity

LOST = "With it, rows of this evaluation are lost; its report and its decision stand."
RECOVERY = (
    "Restore the file from a backup of the workspace, or call evaluate_models again for another evaluation; "
    "`speciate verify --all` names everything that is damaged."
)

_OWN = ("example", "group_key", "truth", "preview")
_ANSWER = ("model", "example", "output", "number", "confidence", "error", "score")
_ONE_LABEL: set[Family] = {"classification", "ordinal", "anomaly"}
_LONGEST_LABEL, _LONGEST_PREVIEW = 64, 300

Answer = Mapping[str, Any]
Example = Mapping[str, Any]


def read_examples(payload: Mapping[str, Any]) -> dict[str, Example]:
    """By id, in the order of the file; of `payload` `{folder, inputs}`.

    An example without a text to show gets the cells of its input columns as one.
    """
    table = integrity.read_table(Path(payload["folder"]) / "examples.parquet", LOST, RECOVERY)
    inputs = [name for name in payload.get("inputs", ()) if name in table.column_names]
    rows = table.select([*_OWN, *(name for name in inputs if name not in _OWN)]).to_pylist()
    return {row["example"]: row | {"preview": row["preview"] or _cells(row, inputs)} for row in rows}


def read_answers(payload: Mapping[str, Any], models: Sequence[str] | None = None) -> list[Answer]:
    """Of these models, or of all; in the order of the file."""
    path = Path(payload["folder"]) / "predictions.parquet"
    integrity.check(path, LOST, RECOVERY)
    known = set(pq.read_schema(path).names)
    chosen = [("model", "in", list(models))] if models is not None else None
    table: pa.Table = pq.read_table(path, columns=[name for name in _ANSWER if name in known], filters=chosen)
    rows: list[Answer] = table.to_pylist()
    return rows


def by_example(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """The answers of one model; of repeated ones each."""
    found: dict[str, list[Answer]] = {}
    for answer in answers:
        found.setdefault(answer["example"], []).append(answer)
    return found


def has_labels(metric: str) -> bool:
    """Whether an answer under this metric is one label, which can be confused with another."""
    return bool(_ONE_LABEL & set(find_metric(metric).families))


def output_of(answer: Answer) -> str | float | None:
    """The answer itself; None where there is none."""
    output: str | float | None = answer["number"] if answer["output"] is None else answer["output"]
    return output


def label_text(cell: str) -> str:
    """As a label may be shown: at most 64 characters, none of them for control or direction."""
    shown = "".join(c for c in cell if not unicodedata.category(c).startswith("C"))
    return shown if len(shown) <= _LONGEST_LABEL else f"{shown[: _LONGEST_LABEL - 1]}…"


def _cells(row: Example, inputs: Sequence[str]) -> str | None:
    told = ", ".join(f"{name}: {_short_number(row[name])}" for name in inputs if row[name] is not None)
    return told[:_LONGEST_PREVIEW] or None


def _short_number(cell: str) -> str:
    """Numbers, which the file holds as text, to four digits."""
    try:
        return f"{float(cell):.4g}"
    except ValueError:
        return cell
