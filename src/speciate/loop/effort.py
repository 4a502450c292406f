"""What a use case took beside time: minutes of computing, dollars paid for calls, calls of tools, answers of people.

Calls are counted by the name of the tool and of the use case, per hour, and nothing else of them is kept. They are
gathered in memory and written every few seconds, so that a call costs no commit of its own; a kill may lose the last
ones. What a call is about is the use case that it names, or that of the job that it names; others count for none.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from speciate.errors import SpeciateError
from speciate.workspace.database import Database, Transaction
from speciate.workspace.workspace import Workspace

_WRITE_SECONDS = 5.0
_HOUR = 3600
_USE_CASE_OF_JOB = "SELECT use_case FROM jobs WHERE id = ? AND use_case IS NOT NULL"
_IS_USE_CASE = "SELECT 1 FROM use_cases WHERE name = ? LIMIT 1"
_ADD = """
INSERT INTO tool_calls VALUES (?, ?, ?, ?)
ON CONFLICT (use_case, tool, hour) DO UPDATE SET calls = tool_calls.calls + excluded.calls
"""
_APPROVALS = """
WITH asked AS (SELECT unnest(?::BIGINT[]) AS place, unnest(?::VARCHAR[]) AS name, unnest(?::DOUBLE[]) AS until)
"""
_RUN_SECONDS = f"""{_APPROVALS}
SELECT place, sum(run_seconds) FROM asked JOIN jobs ON use_case = name AND executor = 'local' AND created <= until
GROUP BY place
"""
_USD = f"""{_APPROVALS}
SELECT place, sum(usd) FROM asked JOIN jobs ON use_case = name JOIN spending s ON s.job = jobs.id AND s.stamp <= until
GROUP BY place
"""
_CALLS = f"""
{_APPROVALS} SELECT place, sum(calls) FROM asked JOIN tool_calls ON use_case = name AND hour <= until GROUP BY place
"""
_PEOPLE = f"""{_APPROVALS}
SELECT place, count(*) FROM asked JOIN approvals
ON arguments ->> 'use_case' = name AND state IN ('approved', 'denied') AND decided_at <= until GROUP BY place
"""


class Effort(NamedTuple):
    compute_minutes: float
    """Minutes of all runs on this machine together, those of failed ones too."""
    usd: float
    """USD paid for calls of endpoints; what computing costs is not in it."""
    tool_calls: int
    """Calls of tools since calls are counted (schema 5)."""
    people_asked: int
    """Questions that a person answered."""


class _Call(NamedTuple):
    use_case: str | None
    job: str | None
    tool: str
    hour: int


class CallCounter:
    """Counts calls of tools; `close` it before the workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._waiting = Counter[_Call]()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def count(self, tool: str, arguments: Mapping[str, Any]) -> None:
        """Milliseconds at most, whatever the catalog does."""
        use_case = arguments.get("name") if tool == "define_use_case" else arguments.get("use_case")
        job = arguments.get("job")
        call = _Call(
            use_case if isinstance(use_case, str) else None, job if isinstance(job, str) else None, tool,
            int(self._workspace.clock.now() // _HOUR),
        )  # fmt: skip
        with self._lock:
            self._waiting[call] += 1
            if self._timer is None:
                self._timer = threading.Timer(_WRITE_SECONDS, self.write)
                self._timer.daemon = True
                self._timer.start()

    def write(self) -> None:
        """Write what was counted. What cannot be written now (a full disk) waits for the next time."""
        with self._lock:
            waiting, self._waiting, self._timer = self._waiting, Counter[_Call](), None
        if not waiting:
            return
        try:
            self._workspace.database.transact(lambda tx: _add(tx, waiting))
        except SpeciateError:
            with self._lock:
                self._waiting += waiting

    def close(self) -> None:
        with self._lock:
            if self._timer:
                self._timer.cancel()
        self.write()


def effort(database: Database, use_case: str, until: float) -> Effort:
    """What was spent on a use case up to a moment; calls up to the end of its hour."""
    return efforts(database, [(use_case, until)])[0]


def efforts(database: Database, asked: Sequence[tuple[str, float]]) -> list[Effort]:
    """`effort` of each (use case, moment; infinity: all there is). Every table is read once, however many are asked
    for."""
    places, names = list(range(len(asked))), [name for name, _ in asked]
    moments = [until for _, until in asked]

    def totals(sql: str, bounds: Sequence[float]) -> dict[int, Any]:
        return dict(database.read(sql, [places, names, bounds]))

    seconds, usd, people = (totals(sql, moments) for sql in (_RUN_SECONDS, _USD, _PEOPLE))
    calls = totals(_CALLS, [until if math.isinf(until) else until // _HOUR for until in moments])
    return [
        Effort(
            float(seconds.get(place, 0)) / 60, float(usd.get(place, 0)), int(calls.get(place, 0)),
            int(people.get(place, 0)),
        )
        for place in places
    ]  # fmt: skip


def _add(tx: Transaction, calls: Mapping[_Call, int]) -> None:
    summed = Counter[tuple[str, str, int]]()
    for call, times in calls.items():
        summed[_known_use_case(tx, call), call.tool, call.hour] += times
    for (use_case, tool, hour), times in summed.items():
        tx.execute(_ADD, [use_case, tool, hour, times])


def _known_use_case(tx: Transaction, call: _Call) -> str:
    """The use case; empty if there is none of that name: unknown names are not kept."""
    if call.use_case and tx.execute(_IS_USE_CASE, [call.use_case]):
        return call.use_case
    rows = tx.execute(_USE_CASE_OF_JOB, [call.job]) if call.job else []
    return str(rows[0][0]) if rows else ""
