"""What the catalog says of forgotten rows: their names and cells in specs, reports, errors and events.

A text counts only if no remaining row has it, so `good` is no trace and `Jane Roe` is one. What is found is replaced in
place, whole words only; whatever else a document says stays. A question to a person that quoted it is void: they would
answer another one than was asked. The rest of the catalog's file is cleaned by workspace/compaction.py: an updated cell
stays readable in it until then.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from speciate.datasets.columns import QUALITIES
from speciate.governance import approvals
from speciate.jobs.kinds import KINDS
from speciate.privacy.redaction import TextRedactor
from speciate.refs import SPLITS
from speciate.vocabulary import METRICS, TASKS
from speciate.workspace.database import Transaction

_CHUNK = 500
DOCUMENTS = {
    "use_cases": ("rowid", ("spec",)),
    "dataset_versions": ("rowid", ("operation", "report")),
    "jobs": ("id", ("spec", "result", "error", "reason")),
    "evaluations": ("id", ("report",)),
    "decisions": ("id", ("evidence",)),
    "approvals": ("id", ("arguments", "evidence")),
    "answers": ("key", ("answer",)),
    "events": ("seq", ("data",)),
    "watch_outbox": ("rowid", ("spec", "problem")),
    "watch_triggers": ("rowid", ("cause", "evidence")),
    "watch_ticks": ("rowid", ("because",)),
    "episodes": ("rowid", ("because",)),
}
"""Table -> what tells its rows apart, and its columns that may quote a user's data. Of a use case that is its
description: the rest are names, numbers and labels by which it works."""
_SENTENCES = ("reason", "because", "cause", "problem")
"""Columns that hold a sentence, and no JSON."""
_NAMES = """
SELECT name FROM dataset_versions UNION SELECT name FROM model_versions UNION SELECT name FROM use_cases
"""
_RESERVED = frozenset((*KINDS, *SPLITS, *QUALITIES, *METRICS, *TASKS))


def redact_catalog(tx: Transaction, texts: Collection[str]) -> int:
    """Replace `texts` in every document of the catalog; how many rows changed. Names of things are no traces."""
    names = {name for (name,) in tx.execute(_NAMES)}
    texts = set(texts) - names - _RESERVED
    changed = 0
    for table, (key, columns) in DOCUMENTS.items() if texts else ():
        rows = tx.execute(f"SELECT {key}, {', '.join(columns)} FROM {table} ORDER BY {key}")
        keys = set[str]()
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            written = "\n".join(cell for row in chunk for cell in row[1:] if cell)
            eraser = TextRedactor(_texts_in(texts, written), _texts_in(names, written))
            keys |= {row[0] for row in chunk if _redact_row(tx, table, key, columns, row, eraser)}
        if table == "approvals":
            approvals.withdraw_changed(tx, keys)
        changed += len(keys)
    return changed


def _redact_row(
    tx: Transaction, table: str, key: str, columns: Sequence[str], row: tuple[Any, ...], eraser: TextRedactor
) -> bool:
    after = [
        cell if cell is None else _redact_cell(cell, eraser, table, name)
        for name, cell in zip(columns, row[1:], strict=True)
    ]
    if after == list(row[1:]):
        return False
    assignments = ", ".join(f"{name} = ?" for name in columns)
    tx.execute(f"UPDATE {table} SET {assignments} WHERE {key} = ?", [*after, row[0]])
    return True


def _redact_cell(cell: str, eraser: TextRedactor, table: str, column: str) -> str:
    if table == "use_cases":
        spec = json.loads(cell)
        after = eraser.text(before := spec.get("description") or "")
        return cell if after == before else json.dumps(spec | {"description": after})
    return eraser.text(cell) if column in _SENTENCES else eraser.json(cell)


def _texts_in(texts: Collection[str], written: str) -> list[str]:
    """Texts that may occur in `written`, as they are or as JSON escapes them: far fewer than there are, as a rule."""
    return [text for text in texts if text in written or json.dumps(text)[1:-1] in written]
