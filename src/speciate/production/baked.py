"""What the bake came to for the version under an alias: provisional until it survived, or broke a limit and stayed."""

from __future__ import annotations

import json
from typing import Literal, NamedTuple

from speciate.production.aliases import CANARY, Alias
from speciate.workspace.database import Database, Transaction

SURVIVED, CANARY_SURVIVED, BROKEN, TAKEN_BACK = (
    "promotion.survived", "canary.survived", "bake.broken", "bake.rolled_back",
)  # fmt: skip
State = Literal["provisional", "survived", "broken"]
_SAID = """
SELECT type FROM events
WHERE subject = ? AND type IN (?, ?) AND data ->> 'alias' = ? AND data ->> 'generation' = ? ORDER BY seq DESC LIMIT 1
"""
_EVER_SURVIVED = f"""
SELECT 1 FROM events WHERE subject = ? AND type = '{SURVIVED}' AND data ->> 'model' = ? LIMIT 1
"""
_NEWEST_MOVE = """
SELECT type, stamp, data FROM events
WHERE subject = ? AND type IN ('alias.moved', 'canary.set', 'canary.ended', 'bake.rolled_back')
ORDER BY seq DESC LIMIT 1
"""
_LAST_MOVE = """
SELECT action FROM audit WHERE use_case = ? AND action IN ('promote', 'rollback') ORDER BY seq DESC LIMIT 1
"""


def state_of(reader: Database | Transaction, alias: Alias) -> State:
    """As its events have it. What is back after it had survived is not tried again: going back is no new risk."""
    read = reader.execute if isinstance(reader, Transaction) else reader.read
    subject = f"use_case:{alias.use_case}"
    said = read(_SAID, [subject, survived(alias), BROKEN, alias.alias, str(alias.generation)])
    if said:
        return "broken" if said == [(BROKEN,)] else "survived"
    back = alias.alias != CANARY and read(_LAST_MOVE, [alias.use_case]) == [("rollback",)]
    return "survived" if back and read(_EVER_SURVIVED, [subject, alias.model]) else "provisional"


class TakenBack(NamedTuple):
    """What the bake did last, and why."""

    model: str
    alias: str
    at: float
    reasons: tuple[str, ...]


def taken_back(reader: Database | Transaction, use_case: str) -> TakenBack | None:
    """None where an alias of the use case moved since for another reason."""
    read = reader.execute if isinstance(reader, Transaction) else reader.read
    rows = read(_NEWEST_MOVE, [f"use_case:{use_case}"])
    if not rows or rows[0][0] != TAKEN_BACK:
        return None
    told = json.loads(rows[0][2])
    return TakenBack(told["model"], told["alias"], rows[0][1], tuple(told["reasons"]))


def survived(alias: Alias) -> str:
    """The type of the event that says so."""
    return CANARY_SURVIVED if alias.alias == CANARY else SURVIVED
