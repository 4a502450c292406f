"""What the catalog says of forgotten rows: their names and cells in specs, reports, errors and events.

A text counts only if no remaining row has it, so `good` is no trace and `Jane Roe` is one. What is found
is replaced in place, whole words only; whatever else a document says stays. The rest of the catalog's file is cleaned
by workspace/compaction.py: an updated cell stays readable in it until then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from speciate.datasets.columns import QUALITIES
from speciate.jobs.kinds import KINDS
from speciate.privacy.purge_evaluations import PURGED
from speciate.refs import SPLITS
from speciate.vocabulary import METRICS, TASKS
from speciate.workspace.database import Transaction

_SHORT = 4
"""A text of fewer characters is a trace only where it stands alone or in quotation marks."""
_CHUNK = 500
_DOCUMENTS = {
    "dataset_versions": ("rowid", ("operation", "report")),
    "jobs": ("id", ("spec", "result", "error", "reason")),
    "evaluations": ("id", ("report",)),
    "decisions": ("id", ("evidence",)),
    "approvals": ("id", ("arguments", "evidence")),
    "answers": ("key", ("answer",)),
    "events": ("seq", ("data",)),
    "watch_outbox": ("rowid", ("spec",)),
    "watch_triggers": ("rowid", ("cause", "evidence")),
    "watch_ticks": ("rowid", ("because",)),
    "episodes": ("rowid", ("because",)),
}
"""Table -> what tells its rows apart, and its columns that may quote a user's data."""
_SENTENCES = ("reason", "because", "cause")
"""Columns that hold a sentence, and no JSON."""
_NAMES = """
SELECT name FROM dataset_versions UNION SELECT name FROM model_versions UNION SELECT name FROM use_cases
"""


class TextRedactor:
    """Replaces texts. Pure."""

    def __init__(self, texts: Collection[str]) -> None:
        self._whole = frozenset(texts)
        long = sorted((text for text in texts if len(text) >= _SHORT), key=lambda text: (-len(text), text))
        short = sorted(text for text in texts if len(text) < _SHORT)
        patterns = [rf"(?<!\w){re.escape(text)}(?!\w)" for text in long]
        patterns += [rf"(?<=['\"]){re.escape(text)}(?=['\"])" for text in short]
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def text(self, text: str) -> str:
        if text in self._whole:
            return PURGED
        return self._pattern.sub(PURGED, text) if self._pattern else text

    def document(self, document: Any) -> Any:
        """The same shape with every string, keys among them, without the texts."""
        if isinstance(document, str):
            return self.text(document)
        if isinstance(document, dict):
            return {self.text(key): self.document(value) for key, value in document.items()}
        if isinstance(document, list):
            return [self.document(value) for value in document]
        return document


def redact_catalog(tx: Transaction, texts: Collection[str]) -> int:
    """Replace `texts` in every document of the catalog; how many rows changed. Names of things are no traces."""
    texts = set(texts) - _reserved_names(tx)
    changed = 0
    for table, (key, columns) in _DOCUMENTS.items() if texts else ():
        rows = tx.execute(f"SELECT {key}, {', '.join(columns)} FROM {table} ORDER BY {key}")
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            eraser = TextRedactor(_texts_in(texts, "\n".join(cell for row in chunk for cell in row[1:] if cell)))
            changed += sum(_redact_row(tx, table, key, columns, row, eraser) for row in chunk)
    return changed


def _redact_row(
    tx: Transaction, table: str, key: str, columns: Sequence[str], row: tuple[Any, ...], eraser: TextRedactor
) -> bool:
    after = [
        cell if cell is None else _redact_cell(cell, eraser, name) for name, cell in zip(columns, row[1:], strict=True)
    ]
    if after == list(row[1:]):
        return False
    assignments = ", ".join(f"{name} = ?" for name in columns)
    tx.execute(f"UPDATE {table} SET {assignments} WHERE {key} = ?", [*after, row[0]])
    return True


def _redact_cell(cell: str, eraser: TextRedactor, column: str) -> str:
    if column in _SENTENCES:
        return eraser.text(cell)
    before = json.loads(cell)
    after = eraser.document(before)
    return cell if after == before else json.dumps(after)


def _texts_in(texts: Collection[str], written: str) -> list[str]:
    """Those that may occur, as they are or as JSON escapes them: far fewer than there are, as a rule."""
    return [text for text in texts if text in written or json.dumps(text)[1:-1] in written]


def _reserved_names(tx: Transaction) -> set[str]:
    return {name for (name,) in tx.execute(_NAMES)} | {*KINDS, *SPLITS, *QUALITIES, *METRICS, *TASKS}
