"""The stored rows of an evaluation, as error analysis, slices and preference pairs read them.

Only named columns are read, so files may gain some. If answers were repeated, a model has several rows for an
example.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from speciate.modalities.media_answers import shorten_cell
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


class StoredRequest(BaseModel):
    """The payload of a service that reads stored rows. Each service needs some of it."""

    model_config = ConfigDict(frozen=True)
    folder: Path
    """Folder of the evaluation's files."""
    metric: str = ""
    baseline: str = ""
    candidate: str = ""
    inputs: tuple[str, ...] = ()
    """The dataset's input columns, from which an example without text gets a preview."""
    models: tuple[str, ...] = ()
    count: int = 0
    """Examples to return."""
    pairs: int = 0
    """Most frequent mistakes to return."""
    labels: int = 0
    """Labels in a confusion table."""
    column: str = ""
    """Column to slice by."""
    but: tuple[str, ...] = ()
    """Columns not to slice by."""


def read_examples(request: StoredRequest) -> dict[str, Example]:
    """The examples by id, in the order of the file. One without a text gets the cells of its input columns as
    preview."""
    table = integrity.read_table(request.folder / "examples.parquet", LOST, RECOVERY)
    inputs = [name for name in request.inputs if name in table.column_names]
    rows = table.select([*_OWN, *(name for name in inputs if name not in _OWN)]).to_pylist()
    return {
        row["example"]: row | {"truth": shorten_cell(row["truth"]), "preview": row["preview"] or _cells(row, inputs)}
        for row in rows
    }


def read_answers(folder: Path, models: Sequence[str] | None = None) -> list[Answer]:
    """The answers of these models, or of all; in the order of the file."""
    path = folder / "predictions.parquet"
    integrity.check(path, LOST, RECOVERY)
    known = set(pq.read_schema(path).names)
    chosen = [("model", "in", list(models))] if models is not None else None
    table: pa.Table = pq.read_table(path, columns=[name for name in _ANSWER if name in known], filters=chosen)
    rows: list[Answer] = table.to_pylist()
    return [row if row["output"] is None else {**row, "output": shorten_cell(row["output"])} for row in rows]


def by_example(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """The answers of one model, repeats among them."""
    found: dict[str, list[Answer]] = {}
    for answer in answers:
        found.setdefault(answer["example"], []).append(answer)
    return found


def has_labels(metric: str) -> bool:
    """Whether an answer under this metric is one label, which can be confused with another."""
    return bool(_ONE_LABEL & set(find_metric(metric).families))


def output_of(answer: Answer) -> str | float | None:
    """The answer itself; None for an error."""
    output: str | float | None = answer["number"] if answer["output"] is None else answer["output"]
    return output


def label_text(cell: str) -> str:
    """A label for display: at most 64 characters, none of them for control or direction."""
    text = "".join(c for c in cell if not unicodedata.category(c).startswith("C"))
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"


def _cells(row: Example, inputs: Sequence[str]) -> str | None:
    cells = ", ".join(f"{name}: {_short_number(row[name])}" for name in inputs if row[name] is not None)
    return cells[:_LONGEST_PREVIEW] or None


def _short_number(cell: str) -> str:
    """Numbers, which the file holds as text, to four digits; whole ones as they are, for they may be identifiers."""
    try:
        number = float(cell)
    except ValueError:
        return cell
    return f"{number:.15g}" if number.is_integer() else f"{number:.4g}"
