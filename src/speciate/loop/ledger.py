"""The ledger: what the events of a workspace say of how long models take, what they cost, and how they hold.

Reading is here; every figure is a pure function of its own file: `time_to_model`, `tenures`, `deliveries`, `survival`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

from speciate import usecases
from speciate.loop.deliveries import Deliveries, deliveries
from speciate.loop.effort import Effort, effort
from speciate.loop.survival import Span, curve, quantile
from speciate.loop.tenures import tenures
from speciate.loop.time_to_model import STAGES, TimeToModel, model_that_counts, time_to_model
from speciate.workspace.database import Database, Event
from speciate.workspace.workspace import Workspace

_LIFECYCLE = """
SELECT seq, stamp, subject, type, data FROM events
WHERE type IN ('use_case.created', 'dataset.created', 'model.created', 'decision.made', 'alias.moved',
               'production.answered', 'canary.answered', 'promotion.survived', 'bake.broken', 'bake.rolled_back',
               'slot.serving', 'approval.requested', 'approval.decided')
ORDER BY seq
"""
_JOBS = "SELECT id, kind, use_case FROM jobs WHERE use_case IS NOT NULL AND executor = 'local'"
_OF_JOBS = """
SELECT seq, stamp, subject, type, use_case FROM events JOIN jobs ON jobs.id = events.subject
JOIN (SELECT unnest(?::VARCHAR[]) AS name, unnest(?::DOUBLE[]) AS clock_stopped) clocks ON clocks.name = jobs.use_case
WHERE type IN ('job.queued', 'job.running', 'job.waiting', 'job.paused', 'job.succeeded', 'job.failed', 'job.cancelled',
               'job.dead') AND stamp <= clock_stopped AND executor = 'local'
ORDER BY seq
"""
_LEARNED_FROM = "SELECT card ->> 'dataset' FROM model_versions WHERE name = ? AND version::VARCHAR = ?"
_EXPORTS = """
SELECT name || '@v' || version, card ->> '$.parents[0]' FROM model_versions
WHERE card ->> 'method' = 'export' AND card ->> '$.parents[0]' IS NOT NULL
"""
_SHARED = ("dataset:", "model:", "approval:")
"""What these events are about may belong to any use case."""


class History(NamedTuple):
    """The events that matter, sorted by the use case that they may be about."""

    by_use_case: Mapping[str, Sequence[Event]]
    """Each with what is shared; in order of `seq`."""
    jobs: Mapping[str, Mapping[str, str]]
    """Use case -> id -> kind, of those that ran or may run."""
    exports: Mapping[str, str]
    """Version -> the one that it was exported from."""


class Line(NamedTuple):
    """One use case."""

    use_case: str
    time_to_model: TimeToModel
    until_model: Effort
    """Up to the first answer; up to now while there is none."""
    in_all: Effort


class Typical(NamedTuple):
    """Time to model over all use cases, unfinished ones counted as longer than they are (loop/survival.py)."""

    median_seconds: float | None
    p90_seconds: float | None


class Ledger(NamedTuple):
    at: float
    lines: list[Line]
    counts: dict[str, int]
    """{done, provisional, open}."""
    baked: Typical
    """Only versions that survived their bake are finished."""
    answered: Typical
    """As if all that are provisional were to survive: no more than what it may come to."""
    deliveries: Deliveries


def ledger(workspace: Workspace) -> Ledger:
    """As of now."""
    now = workspace.clock.now()
    history = history_of(workspace, now)
    lines = []
    for name in usecases.names(workspace.database):
        clock = clock_of(workspace, history, name, now)
        until = now if clock.answered is None else clock.answered
        spent = [effort(workspace.database, name, moment) for moment in (until, now)]
        lines.append(Line(name, clock, *spent))
    clocks = [line.time_to_model for line in lines]
    states = [clock.state for clock in clocks]
    return Ledger(
        now,
        lines,
        {state: states.count(state) for state in ("done", "provisional", "open")},
        typical(clocks, "done"),
        typical(clocks, "done", "provisional"),
        delivered(history, now),
    )


def document(found: Ledger) -> dict[str, Any]:
    """As JSON has it."""
    return {
        "at": found.at,
        "stages": list(STAGES),
        "counts": found.counts,
        "baked": found.baked._asdict(),
        "answered": found.answered._asdict(),
        "deliveries": found.deliveries._asdict(),
        "lines": [
            {"use_case": line.use_case} | {name: getattr(line, name)._asdict() for name in Line._fields[1:]}
            for line in found.lines
        ],
    }


def typical(clocks: Sequence[TimeToModel], *finished: str) -> Typical:
    steps = curve(Span(clock.seconds, clock.state in finished) for clock in clocks)
    return Typical(quantile(steps, 0.5), quantile(steps, 0.9))


def history_of(workspace: Workspace, now: float) -> History:
    """What happened until `now`; of jobs only what happened while the clock of their use case went."""
    database = workspace.database
    jobs = defaultdict[str, dict[str, str]](dict)
    for job, kind, use_case in database.read(_JOBS):
        jobs[use_case][job] = kind
    own, shared = _lifecycle(database)
    stops = {name: _stop_of(events, now) for name, events in own.items()}
    by_use_case = {name: [*events, *_about(shared, jobs[name], events)] for name, events in own.items()}
    for seq, stamp, subject, kind, use_case in database.read(_OF_JOBS, [list(stops), list(stops.values())]):
        by_use_case[use_case].append(Event(seq, stamp, subject, kind, {}))
    for events in by_use_case.values():
        events.sort(key=lambda event: event.seq)
    return History(by_use_case, jobs, dict(database.read(_EXPORTS)))


def _lifecycle(database: Database) -> tuple[dict[str, list[Event]], list[Event]]:
    """Those of each use case, and those of what may belong to any."""
    own, shared = defaultdict[str, list[Event]](list), list[Event]()
    for seq, stamp, subject, kind, data in database.read(_LIFECYCLE):
        event = Event(seq, stamp, subject, kind, json.loads(data))
        if subject.startswith(_SHARED):
            shared.append(event)
        else:
            own[subject.removeprefix("use_case:")].append(event)
    return own, shared


def _stop_of(own: Sequence[Event], now: float) -> float:
    """When the clock stopped; `now` where it goes."""
    answered = model_that_counts(tenures(own, now)).answered
    return now if answered is None else answered


def _about(shared: Sequence[Event], jobs: Container[str], own: Sequence[Event]) -> list[Event]:
    """Of new models only those that the use case trained or let serve: there may be thousands."""
    served = {event.data.get("after") for event in own if event.type == "alias.moved"}
    return [
        event
        for event in shared
        if event.type != "model.created" or event.data.get("job") in jobs or event.data.get("model") in served
    ]


def clock_of(workspace: Workspace, history: History, use_case: str, now: float) -> TimeToModel:
    events, jobs = history.by_use_case.get(use_case, ()), history.jobs.get(use_case, {})
    served = tenures((event for event in events if event.subject == f"use_case:{use_case}"), now)
    model = model_that_counts(served).model
    return time_to_model(use_case, events, now, _dataset_of(workspace, model) if model else None, jobs)


def delivered(history: History, now: float) -> Deliveries:
    served = {
        name: tenures((event for event in events if event.subject == f"use_case:{name}"), now)
        for name, events in history.by_use_case.items()
    }
    return deliveries(served, now, history.exports)


def _dataset_of(workspace: Workspace, model: str) -> str | None:
    """The version that a model was trained on, without its split; None where nothing was trained here."""
    name, _, version = model.partition("@v")
    row = workspace.database.read_one(_LEARNED_FROM, [name, version])
    return str(row[0]).partition(":")[0] if row and row[0] else None
