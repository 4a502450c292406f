"""What the bake came to for the version under an alias: provisional until it survived, or broke a limit and stayed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

from speciate.production.aliases import CANARY, Alias
from speciate.workspace.database import Database, Transaction

SURVIVED, CANARY_SURVIVED, BROKEN, TAKEN_BACK = (
    "promotion.survived", "canary.survived", "bake.broken", "bake.rolled_back",
)  # fmt: skip
State = Literal["provisional", "survived", "broken"]
_MOVES = ("alias.moved", "canary.set", "canary.ended", TAKEN_BACK)
_SAID = f"""
SELECT subject, type, stamp, data FROM events
WHERE type IN ('{SURVIVED}', '{CANARY_SURVIVED}', '{BROKEN}', '{TAKEN_BACK}', 'alias.moved', 'canary.set',
               'canary.ended') AND subject IN (SELECT unnest(?::VARCHAR[]))
ORDER BY seq
"""
_LAST_MOVES = """
SELECT use_case, arg_max(action, seq) FROM audit
WHERE action IN ('promote', 'rollback') AND use_case IN (SELECT unnest(?::VARCHAR[])) GROUP BY use_case
"""


class Said(NamedTuple):
    """An event about the bake of a use case, or a move of its aliases."""

    type: str
    at: float
    data: dict[str, Any]


class Trail(NamedTuple):
    """All that the state of a bake follows from."""

    said: Sequence[Said] = ()
    """Oldest first."""
    last_move: str | None = None
    """How production moved last: `promote` or `rollback`."""


def trails(reader: Database | Transaction, use_cases: Collection[str]) -> dict[str, Trail]:
    """Of each of these use cases. The events are scanned once, however many these are: they have no index."""
    read = reader.execute if isinstance(reader, Transaction) else reader.read
    said: defaultdict[str, list[Said]] = defaultdict(list)
    for subject, kind, at, data in read(_SAID, [[f"use_case:{name}" for name in use_cases]]):
        said[subject].append(Said(kind, at, json.loads(data)))
    moves: dict[str, str] = dict(read(_LAST_MOVES, [list(use_cases)]))
    return {name: Trail(said[f"use_case:{name}"], moves.get(name)) for name in use_cases}


def state(trail: Trail, alias: Alias) -> State:
    """As its events have it. What is back after it had survived is not tried again: going back is no new risk."""
    for each in reversed(trail.said):
        of_this_move = (each.data.get("alias"), str(each.data.get("generation"))) == (
            alias.alias, str(alias.generation),
        )  # fmt: skip
        if each.type in (survived(alias), BROKEN) and of_this_move:
            return "broken" if each.type == BROKEN else "survived"
    back = alias.alias != CANARY and trail.last_move == "rollback"
    ever = back and any(each.type == SURVIVED and each.data.get("model") == alias.model for each in trail.said)
    return "survived" if ever else "provisional"


def state_of(reader: Database | Transaction, alias: Alias) -> State:
    """`state` of one alias, with its trail as it is now."""
    return state(trails(reader, [alias.use_case])[alias.use_case], alias)


class TakenBack(NamedTuple):
    """What the bake did last, and why."""

    model: str
    alias: str
    at: float
    reasons: tuple[str, ...]


def last_taken_back(trail: Trail) -> TakenBack | None:
    """None where an alias of the use case moved since for another reason."""
    moves = (each for each in reversed(trail.said) if each.type in _MOVES)
    if (newest := next(moves, None)) is None or newest.type != TAKEN_BACK:
        return None
    told = newest.data
    return TakenBack(told["model"], told["alias"], newest.at, tuple(told["reasons"]))


def taken_back(reader: Database | Transaction, use_case: str) -> TakenBack | None:
    """`last_taken_back` of one use case, with its trail as it is now."""
    return last_taken_back(trails(reader, [use_case])[use_case])


def survived(alias: Alias) -> str:
    """The type of the event that says so."""
    return CANARY_SURVIVED if alias.alias == CANARY else SURVIVED
