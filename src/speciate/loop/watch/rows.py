"""Watches and what they did, as rows of the catalog. What a look decides is one transaction (`store_decisions`)."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from speciate.errors import Call, Code, SpeciateError
from speciate.loop.watch.definition import Watch
from speciate.loop.watch.facts import Decision, Memory
from speciate.workspace.database import Database, Row, Transaction

_COLUMNS = "w.definition, w.enabled, w.asked, w.created, w.changed, w.actor, s.memory, s.turn"
_JOINED = f"SELECT {_COLUMNS} FROM watches w JOIN watch_states s ON s.use_case = w.use_case"
_GET = f"{_JOINED} WHERE w.use_case = ?"
_ALL = f"{_JOINED} ORDER BY w.use_case"
_ENABLED = "SELECT 1 FROM watches WHERE enabled LIMIT 1"
_INSERT = """
INSERT INTO watches VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (use_case) DO UPDATE SET definition = excluded.definition, enabled = excluded.enabled,
    asked = coalesce(excluded.asked, watches.asked), changed = excluded.changed, actor = excluded.actor
"""
_INSERT_STATE = "INSERT INTO watch_states VALUES (?, ?, 0) ON CONFLICT DO NOTHING"
_ENABLE = "UPDATE watches SET enabled = ?, changed = ?, actor = ? WHERE use_case = ?"
_SWAP = """
UPDATE watch_states SET memory = given.memory, turn = watch_states.turn + 1
FROM (SELECT unnest(?::VARCHAR[]) AS use_case, unnest(?::VARCHAR[]) AS memory, unnest(?::BIGINT[]) AS turn) given
WHERE watch_states.use_case = given.use_case AND watch_states.turn = given.turn RETURNING watch_states.use_case
"""
_LAST_TICKS = """
SELECT use_case, number, state, because, fired FROM watch_ticks
WHERE use_case IN (SELECT unnest(?::VARCHAR[]))
QUALIFY row_number() OVER (PARTITION BY use_case ORDER BY number DESC) = 1
"""
_SAME_AGAIN = """
UPDATE watch_ticks SET last = ?, times = times + 1
FROM (SELECT use_case, max(number) AS newest FROM watch_ticks WHERE use_case IN (SELECT unnest(?::VARCHAR[]))
      GROUP BY use_case) run
WHERE watch_ticks.use_case = run.use_case AND watch_ticks.number = run.newest
"""
_INSERT_TICKS = """
INSERT INTO watch_ticks
SELECT unnest(?::VARCHAR[]), unnest(?::BIGINT[]), ?, ?, 1, unnest(?::VARCHAR[]), unnest(?::VARCHAR[]),
       unnest(?::VARCHAR[])
"""
_INSERT_TRIGGER = "INSERT INTO watch_triggers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_INSERT_OUTBOX = "INSERT INTO watch_outbox VALUES (?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING"
_BEGIN = "INSERT INTO episodes VALUES (?, ?, ?, NULL, ?, NULL, NULL, NULL, NULL) ON CONFLICT DO NOTHING"
_CAUSES = "UPDATE episodes SET causes = ? WHERE use_case = ? AND number = ?"
_END = """
UPDATE episodes SET ended = ?, outcome = ?, because = ?, model = ?, smallest_gain = ? WHERE use_case = ? AND number = ?
"""
_TICKS = """
SELECT first, last, times, state, because, fired FROM watch_ticks
WHERE use_case = ? AND last >= ? ORDER BY number DESC LIMIT ?
"""
_EPISODES = """
SELECT number, begun, ended, causes, outcome, because, model, smallest_gain FROM episodes
WHERE use_case = ? ORDER BY number DESC LIMIT ?
"""
_EPISODE = """
SELECT number, begun, ended, causes, outcome, because, model, smallest_gain FROM episodes
WHERE use_case = ? AND number = ?
"""
_TRIGGERS = """
SELECT kind, stamp, cause, evidence, gain, minutes, labels FROM watch_triggers
WHERE use_case = ? AND episode = ? ORDER BY stamp, kind
"""
_REQUESTED = "SELECT prediction, drawn, episode, asked FROM label_requests WHERE use_case = ?"


class Standing(NamedTuple):
    """A watch as it stands."""

    watch: Watch
    enabled: bool
    asked: float | None
    """When somebody last called for an episode now."""
    created: float
    changed: float
    by: str
    memory: Memory
    turn: int
    """Number of changes of the memory, by which compare-and-swap tells whether somebody else changed it."""


class Tick(NamedTuple):
    """A run of equal looks."""

    first: float
    last: float
    times: int
    state: str
    because: str
    fired: tuple[str, ...]


class Episode(NamedTuple):
    number: int
    begun: float
    ended: float | None
    causes: tuple[str, ...]
    outcome: str | None
    because: str | None
    model: str | None
    smallest_gain: float | None


class Recorded(NamedTuple):
    """A trigger of an episode."""

    kind: str
    at: float
    cause: str
    evidence: Mapping[str, Any]
    gain: float | None
    minutes: float
    labels: int


class Send(NamedTuple):
    """A job to submit by its key."""

    key: str
    kind: str
    spec: Mapping[str, Any]


class LabelRequest(NamedTuple):
    prediction: str
    drawn: str
    episode: int
    asked: float


# Definitions


def define(tx: Transaction, watch: Watch, *, enabled: bool, by: str, asked: bool) -> Standing:
    """Store a watch, or its change. Its memory stays."""
    now = tx.now
    moment = now if asked else None
    tx.execute(_INSERT, [watch.use_case, watch.model_dump_json(), enabled, moment, now, now, by])
    ((newest,),) = tx.execute("SELECT coalesce(max(seq), 0) FROM events")
    memory = Memory(learned_until=now, scheduled=now, since=now, provider=newest)
    tx.execute(_INSERT_STATE, [watch.use_case, memory.model_dump_json()])
    tx.event(f"use_case:{watch.use_case}", "watch.defined", {"enabled": enabled, "by": by})
    return _standing(tx.execute(_GET, [watch.use_case])[0])


def enable(tx: Transaction, use_case: str, enabled: bool, by: str) -> Standing:
    """Raises NOT_FOUND where there is no such watch."""
    find(tx, use_case)
    tx.execute(_ENABLE, [enabled, tx.now, by, use_case])
    tx.event(f"use_case:{use_case}", "watch.resumed" if enabled else "watch.paused", {"by": by})
    return find(tx, use_case)


def find(reader: Database | Transaction, use_case: str) -> Standing:
    """Raises NOT_FOUND where there is no such watch."""
    if (found := get(reader, use_case)) is None:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"Nothing watches {use_case!r}.",
            next=[Call("watch_use_case", {"use_case": use_case, "triggers": [{"on": "data_shift"}]})],
        )
    return found


def get(reader: Database | Transaction, use_case: str) -> Standing | None:
    rows = reader.read(_GET, [use_case])
    return _standing(rows[0]) if rows else None


def everyone(reader: Database | Transaction) -> list[Standing]:
    return [_standing(row) for row in reader.read(_ALL)]


def any_enabled(database: Database) -> bool:
    return database.read_one(_ENABLED) is not None


# Looks


class Decided(NamedTuple):
    """What a look at one watch came to."""

    standing: Standing
    """The watch as it was looked at."""
    decision: Decision
    send: Sequence[Send]


def store_decisions(tx: Transaction, decided: Sequence[Decided], now: float) -> list[bool]:
    """State, tick, triggers and what is to be started, together. False where somebody else was quicker: then nothing of
    this watch is written. A statement for all where all have something to write."""
    names = [each.standing.watch.use_case for each in decided]
    memories = [each.decision.memory.model_dump_json() for each in decided]
    swapped = tx.execute(_SWAP, [names, memories, [each.standing.turn for each in decided]])
    stored = {name for (name,) in swapped}
    own = [each for each in decided if each.standing.watch.use_case in stored]
    _store_ticks(tx, {each.standing.watch.use_case: each.decision for each in own}, now)
    for each in own:
        _store_rest(tx, each, now)
    return [name in stored for name in names]


def _store_rest(tx: Transaction, decided: Decided, now: float) -> None:
    standing, decision, send = decided
    use_case, memory = standing.watch.use_case, decision.memory
    if decision.taken:
        causes = json.dumps(list(dict.fromkeys(each.kind for each in decision.taken)))
        if memory.episode > standing.memory.episode:
            tx.execute(_BEGIN, [use_case, memory.episode, now, causes])
        else:
            tx.execute(_CAUSES, [json.dumps(list(memory.causes)), use_case, memory.episode])
        for each in decision.taken:
            evidence = json.dumps(dict(each.evidence), sort_keys=True)
            row = [use_case, memory.episode, each.kind, each.fingerprint, now, each.text, evidence, each.gain]
            tx.execute(_INSERT_TRIGGER, [*row, each.minutes, each.labels])
    for job in send:
        tx.execute(_INSERT_OUTBOX, [job.key, use_case, job.kind, json.dumps(dict(job.spec), sort_keys=True)])
    if decision.ended is not None:
        end = decision.ended
        row = [now, end.outcome, end.because, end.model, end.smallest_gain, use_case, memory.episode]
        tx.execute(_END, row)
    for told in decision.told:
        tx.event(f"use_case:{use_case}", told.type, {"episode": memory.episode, "text": told.text})


def _store_ticks(tx: Transaction, decisions: Mapping[str, Decision], now: float) -> None:
    """Equal looks one after another are one row."""
    newest = {name: tuple(row) for name, *row in tx.execute(_LAST_TICKS, [list(decisions)])} if decisions else {}
    again, fresh = list[str](), list[tuple[str, int, str, str, str]]()
    for name, decision in decisions.items():
        kinds = json.dumps(sorted({each.kind for each in decision.fired}))
        said = (str(decision.memory.state), decision.because, kinds)
        number, *last = newest.get(name, (0,))
        if tuple(last) == said:
            again.append(name)
        else:
            fresh.append((name, number + 1, *said))
    if again:
        same_again(tx, again, now)
    if fresh:
        names, numbers, states, reasons, kinds_fired = (list(column) for column in zip(*fresh, strict=True))
        tx.execute(_INSERT_TICKS, [names, numbers, now, now, states, reasons, kinds_fired])


def same_again(tx: Transaction, use_cases: Sequence[str], now: float) -> None:
    """Looks that found what the look before found, of many watches at once."""
    tx.execute(_SAME_AGAIN, [now, list(use_cases)])


def waiting(database: Database) -> list[Send]:
    """Jobs that were decided on and are not known to be submitted."""
    rows = database.read("SELECT key, kind, spec FROM watch_outbox WHERE problem IS NULL ORDER BY key")
    return [Send(key, kind, json.loads(spec)) for key, kind, spec in rows]


def sent(tx: Transaction, keys: Sequence[str]) -> None:
    tx.execute("DELETE FROM watch_outbox WHERE key IN (SELECT unnest(?::VARCHAR[]))", [list(keys)])


def refused(tx: Transaction, key: str, problem: str) -> None:
    """The job cannot be: its episode ends by the next look."""
    tx.execute("UPDATE watch_outbox SET problem = ? WHERE key = ?", [problem, key])


# Reading


def ticks(database: Database, use_case: str, *, since: float = 0.0, limit: int = 20) -> list[Tick]:
    """Newest first."""
    rows = database.read(_TICKS, [use_case, since, limit])
    return [_tick(row) for row in rows]


def _tick(row: Row) -> Tick:
    first, last, times, state, because, fired = row
    return Tick(first, last, times, state, because, tuple(json.loads(fired)))


def last_ticks(database: Database) -> dict[str, str]:
    """Use case -> why its watch did what it did last."""
    return dict(database.read("SELECT use_case, arg_max(because, number) FROM watch_ticks GROUP BY use_case"))


def episodes(database: Database, use_case: str, limit: int = 5) -> list[Episode]:
    """Newest first."""
    return [_episode(row) for row in database.read(_EPISODES, [use_case, limit])]


def episode(database: Database, use_case: str, number: int) -> Episode:
    """Raises NOT_FOUND."""
    rows = database.read(_EPISODE, [use_case, number])
    if not rows:
        raise SpeciateError(Code.NOT_FOUND, f"The watch of {use_case!r} has no episode {number}.")
    return _episode(rows[0])


def triggers(database: Database, use_case: str, number: int) -> list[Recorded]:
    rows = database.read(_TRIGGERS, [use_case, number])
    return [Recorded(row[0], row[1], row[2], json.loads(row[3]), *row[4:]) for row in rows]


def requests(reader: Database | Transaction, use_case: str) -> list[LabelRequest]:
    return [LabelRequest(*row) for row in reader.read(_REQUESTED, [use_case])]


def _episode(row: Row) -> Episode:
    number, begun, ended, causes, *rest = row
    return Episode(number, begun, ended, tuple(json.loads(causes)), *rest)


@functools.lru_cache(maxsize=4096)
def _standing(row: Row) -> Standing:
    """The watch in a row. Cached, as few rows of a fleet change between two looks."""
    definition, enabled, asked, created, changed, by, memory, turn = row
    return Standing(
        Watch.model_validate_json(definition), enabled, asked, created, changed, by,
        Memory.model_validate_json(memory), turn,
    )  # fmt: skip
