"""A year of a watch on the real engine and catalog: the world is made of hashes, and trainings take no time.

Real: workspace, writer, engine, keys, aliases, audit, watcher, gatherer. Stand-ins: the kinds that compute, the log.
`python -m tests.loop.watch.year FOLDER` goes on from wherever it is; a kill changes nothing of what comes.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from speciate import use_cases
from speciate.jobs.engine import Engine
from speciate.jobs.job import Job
from speciate.jobs.kinds import Kind, Kinds
from speciate.loop.watch import rows, watcher
from speciate.loop.watch.definition import DAY, Policy, Trigger, Watch
from speciate.loop.watch.facts import Learned, Memory, Start, key_of
from speciate.loop.watch.label_counts import LabelCounts
from speciate.loop.watch.rows import LabelRequest, Send
from speciate.loop.watch.seen import Gatherer
from speciate.loop.watch.watcher import Watcher
from speciate.promotion import aliases, bake
from speciate.settings import Settings
from speciate.use_cases import Definition, Objective
from speciate.workspace.database import Row, Transaction
from speciate.workspace.workspace import Workspace

USE_CASE = "triage"
START = 1_800_057_600.0
DAYS = 365
SHIFTS = (60, 200)
"""Days on which what is asked becomes another."""
DEFECT = 3
"""Number of the model that the bake takes back."""
TABLES = {
    "ticks": "SELECT * FROM watch_ticks ORDER BY number", "triggers": "SELECT * FROM watch_triggers ORDER BY ALL",
    "episodes": "SELECT * FROM episodes ORDER BY number", "memory": "SELECT use_case, memory FROM watch_states",
    "outbox": "SELECT * FROM watch_outbox", "requests": "SELECT * FROM label_requests ORDER BY ALL",
    "aliases": "SELECT use_case, alias, model, generation FROM aliases ORDER BY ALL",
    "audit": "SELECT seq, action, before, after, actor FROM audit ORDER BY seq",
    "jobs": "SELECT id, key, kind, spec, state, result FROM jobs ORDER BY id",
    "told": "SELECT type, data FROM events WHERE type LIKE 'watch.%' ORDER BY seq",
}  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.time = START

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class Window(BaseModel):
    use_case: str
    generation: int
    number: int
    begin: float
    end: float


class Step(BaseModel):
    episode: int
    n: int = 0
    labels: int = 0
    day: int


def _uniform(*parts: object) -> float:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8]) / 2**64


def _number(model: str) -> int:
    return int(model.rpartition("@v")[2])


def _day(moment: float) -> int:
    return int((moment - START) // DAY)


def _monitor(tx: Transaction, spec: Window, job: Job, settings: Settings) -> Mapping[str, object]:
    """An alarm two windows after a shift that the version in production has not seen; once in a while a false one."""
    alias = aliases.read(tx, USE_CASE)
    assert alias is not None
    shift = next((day for day in reversed(SHIFTS) if _day(alias.changed) < day <= _day(spec.end) - 10), None)
    alarm = shift is not None or _uniform("false", spec.generation, spec.number) < 0.01
    onset = START + shift * DAY if shift is not None else spec.begin
    return {"signals": [{"name": "inputs", "alarm": alarm, "onset": onset if alarm else None, "log_evidence": 7.0}]}


def _mine(tx: Transaction, spec: Step, job: Job, settings: Settings) -> Mapping[str, object]:
    for place in range(spec.n):
        drawn = "random" if place % 2 else "uncertain"
        name = f"pred-{spec.episode}-{spec.day}-{place}"
        tx.execute("INSERT INTO label_requests VALUES (?, ?, ?, ?, ?)", [USE_CASE, spec.episode, name, drawn, tx.now])
    return {"asked": spec.n, "pool": 5 * spec.n}


def _relearn(tx: Transaction, spec: Step, job: Job, settings: Settings) -> Mapping[str, object]:
    """Better where there was a shift to learn; now and then the comparison cannot tell."""
    alias = aliases.read(tx, USE_CASE)
    assert alias is not None
    learns = any(_day(alias.changed) < day <= spec.day for day in SHIFTS)
    if not learns:
        found = Learned(verdict="hold", why="nothing to gain: +0.1 points", smallest_gain=0.03, settled=True)
        return found.model_dump(mode="json")
    if _uniform("unclear", spec.episode, spec.day) < 0.4:
        return Learned(verdict="inconclusive", why="+4 points", needed_labels=60).model_dump(mode="json")
    after = f"triage-model@v{_number(alias.model) + 1}"
    aliases.move(tx, use_case=USE_CASE, model=after, expected=alias.model, action="promote", actor="watch", evidence={})
    return Learned(verdict="promote", why="+30 points", model=after, promotion="applied").model_dump(mode="json")


def _evaluate(tx: Transaction, spec: Step, job: Job, settings: Settings) -> Mapping[str, object]:
    return {}


def kinds() -> Kinds:
    inline: dict[str, tuple[type[BaseModel], Any]] = {
        "monitor": (Window, _monitor), "mine": (Step, _mine), "relearn": (Step, _relearn), "evaluate": (Step, _evaluate)
    }  # fmt: skip
    return Kinds(extra=[Kind(name=name, spec=spec, act=act) for name, (spec, act) in inline.items()])


def _send(workspace: Workspace, watch: Watch, memory: Memory, start: Start, now: float) -> Send:
    kind = {"mine": "mine", "check": "evaluate", "relearn": "relearn"}[start.step]
    spec = Step(episode=memory.episode, n=start.n, day=_day(now)).model_dump()
    return Send(key_of(watch.use_case, memory, start.step), kind, spec)


class Labels:
    """Labels come at five to ten a day, late in the year slowly."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def counts(
        self, use_case: str, learned_until: float, requests: Mapping[str, LabelRequest], episode: int
    ) -> LabelCounts:
        now = self._clock.time
        own = [each for each in requests.values() if each.episode == episode]
        came = [
            each
            for each in own
            if _uniform(each.prediction) * (60 if _day(now) > 280 else 12) < (now - each.asked) / DAY
        ]
        return LabelCounts(new=0, of_episode=len(came), drawn=sum(each.drawn == "random" for each in came))


class Year:
    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.workspace = Workspace(folder, clock=self.clock, settings=Settings(policy="auto"))
        self.database = self.workspace.database
        self.engine = Engine(self.workspace, kinds=kinds())
        gatherer = Gatherer(self.workspace)
        gatherer.labels = Labels(self.clock)  # type: ignore[assignment]  # a stand-in for the log
        self.watcher = Watcher(self.workspace, self.engine, gatherer, _send)
        self.database.transact(self._begin)
        ((last,),) = self.database.read("SELECT coalesce(max(last), ?) FROM watch_ticks", [START - DAY])
        self.day = _day(last)

    def _begin(self, tx: Transaction) -> None:
        if rows.get(tx, USE_CASE) is not None:
            return
        objective = Objective(metric="accuracy", target=0.88)
        use_cases.define(tx, Definition(name=USE_CASE, task="text-classification", objective=objective), policy="auto")
        aliases.move(
            tx, use_case=USE_CASE, model="triage-model@v1", expected=None, action="promote", actor="ada", evidence={}
        )
        self._survive(tx)
        triggers = (Trigger(on="data_shift"), Trigger(on="schedule", cron="0 3 1 * *"))
        policy = Policy(action="auto", budget_minutes=90, labels=300)
        rows.define(tx, Watch(use_case=USE_CASE, triggers=triggers, policy=policy), enabled=True, by="ada", asked=False)

    def _survive(self, tx: Transaction) -> None:
        alias = aliases.read(tx, USE_CASE)
        assert alias is not None
        event = {"alias": "production", "model": alias.model, "generation": alias.generation}
        tx.event(f"use_case:{USE_CASE}", bake.SURVIVED, event)

    def _bake(self, tx: Transaction) -> None:
        """Two days after a move: the version survived, or the bake takes it back."""
        alias = aliases.read(tx, USE_CASE)
        assert alias is not None
        if bake.current_bake_state(tx, alias) != "provisional" or self.clock.time - alias.changed < 2 * DAY:
            return
        if _number(alias.model) == DEFECT:
            aliases.move(
                tx, use_case=USE_CASE, model=f"triage-model@v{DEFECT - 1}", expected=alias.model, action="rollback",
                actor=bake.ACTOR, evidence={},
            )  # fmt: skip
            return
        self._survive(tx)

    def live(self) -> None:
        self.clock.time = START + self.day * DAY  # the next daemon begins seconds later, not a day
        self.watcher._send()
        while self.day < DAYS - 1:
            self.clock.time = START + (self.day + 1) * DAY
            self.database.transact(self._bake)
            self.watcher.look()
            self.day += 1

    def tables(self) -> dict[str, list[Row]]:
        return {name: self.database.read(sql) for name, sql in TABLES.items()}

    def close(self) -> None:
        self.workspace.close()


class _KillAt:
    def __init__(self, point: str, times: int) -> None:
        self._point, self._left = point, times

    def __call__(self, point: str) -> None:
        self._left -= point == self._point
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def in_a_process(folder: Path, after: float | None = None, at: tuple[str, int] | None = None) -> int:
    """The rest of the year in a process of its own; how it ended. `after`: the kernel ends it after so many seconds of
    CPU, wherever it is. `at`: it ends when it comes to this fault point so many times."""
    child = os.fork()
    if child == 0:
        if at:
            watcher.fault = _KillAt(*at)  # type: ignore[assignment]
        if after:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_PROF, after)
        Year(folder).live()
        os._exit(0)  # as abrupt as the rest: nothing is closed
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    year = Year(Path(sys.argv[1]))
    year.live()
    for tick in year.tables()["ticks"]:
        print(f"{_day(tick[2]):4} to {_day(tick[3]):4}  {tick[4]:4} x  {tick[5]:9} {tick[6]} {json.loads(tick[7])}")
    for found in year.tables()["episodes"]:
        print(found)
    year.close()
