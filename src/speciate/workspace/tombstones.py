"""Numbers of deleted versions: they stay taken, so that `name@v3` never means something else than it did."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Literal

from speciate.workspace.database import Database, Transaction

Noun = Literal["dataset", "model"]
_GET = "SELECT value FROM meta WHERE key = ?"
_ALL = "SELECT key, value FROM meta WHERE starts_with(key, ?)"
_PUT = "INSERT OR REPLACE INTO meta VALUES (?, ?)"


def bury_versions(tx: Transaction, noun: Noun, name: str, versions: Iterable[int]) -> None:
    rows = tx.execute(_GET, [_key(noun, name)])
    before = json.loads(rows[0][0]) if rows else []
    tx.execute(_PUT, [_key(noun, name), json.dumps(sorted({*before, *versions}))])


def last_buried(tx: Transaction, noun: Noun, name: str) -> int:
    """The highest number that was deleted; 0 where none was."""
    rows = tx.execute(_GET, [_key(noun, name)])
    return max(json.loads(rows[0][0])) if rows else 0


def buried_versions(database: Database, noun: Noun) -> list[tuple[str, int]]:
    """Name and number of every deleted version."""
    prefix = _key(noun, "")
    rows = database.read(_ALL, [prefix])
    return [(key.removeprefix(prefix), number) for key, numbers in rows for number in json.loads(numbers)]


def _key(noun: Noun, name: str) -> str:
    return f"deleted:{noun}:{name}"
