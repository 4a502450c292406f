"""The answers of the system in use, as they stand in a column of the dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from speciate.datasets.loading.loader import Example
from speciate.evaluation.answers import Answer
from speciate.evaluation.predictors.contract import Asked, Sheet
from speciate.tasks.contract import Terms
from speciate.tasks.labels import as_label
from speciate.tasks.table import READOUTS
from speciate.vocabulary import Family

_LIKE_TRUTHS: tuple[Family, ...] = ("multi-label", "tokens", "transcription", "generation")
"""Families whose stored answers are written as truths are."""
_NOTHING = "the column holds no answer"


def hand_in(asked: Asked) -> Sheet:
    column, task = asked.contestant.column or "", asked.task
    return Sheet(asked.contestant, (from_column(asked.examples, column, task.family, task.dataset.modality),))


def from_column(examples: Sequence[Example], column: str, family: Family, modality: str | None = None) -> list[Answer]:
    """An empty cell is an error."""
    terms = Terms(modality=modality)
    return [_stored(example, example.columns.get(column), family, terms) for example in examples]


def _stored(example: Example, cell: Any, family: Family, terms: Terms) -> Answer:
    if cell is None or cell == "":
        return Answer(None, error=_NOTHING)
    if family in _LIKE_TRUTHS:
        try:
            posed = READOUTS[family].pose(example, cell, terms)
        except (ValueError, TypeError) as error:
            return Answer(None, error=f"{_NOTHING}: {error}"[:300])
        return Answer(posed.truth) if posed else Answer(None, error=_NOTHING)
    if family in ("classification", "ordinal", "anomaly"):
        known = as_label(cell)
        return Answer(known) if known else Answer(None, error=_NOTHING)
    try:
        return Answer(float(str(cell)) if family == "regression" else _told(cell))
    except ValueError:
        return Answer(None, error="the column holds no number" if family == "regression" else "no JSON")


def _told(cell: Any) -> Any:
    """What a stored answer says that is more than a label or a number: JSON as text, or what it is."""
    return json.loads(cell) if isinstance(cell, str) and cell[:1] in "[{" else cell
