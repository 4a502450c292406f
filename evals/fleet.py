"""What a fleet of watches costs: many use cases in one workspace for a month, on the real engine and catalog.

    python evals/fleet.py [USE_CASES [DAYS [LOOKS_A_DAY]]]

Real: workspace, writer, engine, keys, aliases, the watcher and what it gathers. Stand-ins: the jobs that compute, and
the log. One use case in fifty changes on a day of the month of its own; labels come within three days. Prints the CPU
seconds of all looks, of a look at which nothing happened, and of one by what happened; then what became of the changes.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from speciate import use_cases
from speciate.jobs.engine import Engine
from speciate.jobs.job import Job
from speciate.jobs.kinds import Kind, Kinds
from speciate.loop.watch import rows
from speciate.loop.watch.definition import DAY, Policy, Trigger, Watch
from speciate.loop.watch.facts import Learned, Memory, Start, key_of
from speciate.loop.watch.label_counts import LabelCounts
from speciate.loop.watch.rows import LabelRequest, Send
from speciate.loop.watch.seen import Gatherer
from speciate.loop.watch.watcher import Watcher
from speciate.promotion import aliases, bake
from speciate.settings import Settings
from speciate.use_cases import Definition, Objective
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

START = 1_800_057_600.0
_CHANGES_EACH = 50


class Clock:
    time = START

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
    use_case: str
    episode: int
    n: int = 0


def changes(use_case: str, days: int) -> float | None:
    """When what it is asked changes; None: not in this month."""
    drawn = int.from_bytes(hashlib.sha256(use_case.encode()).digest()[:8])
    return START + (drawn // _CHANGES_EACH % max(1, days - 16)) * DAY if drawn % _CHANGES_EACH == 0 else None


def kinds(days: int) -> Kinds:
    def monitor(tx: Transaction, spec: Window, job: Job, settings: Settings) -> Mapping[str, object]:
        alias, moment = aliases.read(tx, spec.use_case), changes(spec.use_case, days)
        alarm = alias is not None and moment is not None and alias.changed < moment <= spec.end - DAY
        return {
            "signals": [{"name": "inputs", "alarm": alarm, "onset": moment if alarm else None, "log_evidence": 9.0}]
        }

    def mine(tx: Transaction, spec: Step, job: Job, settings: Settings) -> Mapping[str, object]:
        for place in range(spec.n):
            name = f"pred-{spec.use_case}-{spec.episode}-{place}"
            drawn = "random" if place % 2 else "uncertain"
            tx.execute("INSERT INTO label_requests VALUES (?, ?, ?, ?, ?)",
                       [spec.use_case, spec.episode, name, drawn, tx.now])  # fmt: skip
        return {"asked": spec.n, "pool": 5 * spec.n}

    def relearn(tx: Transaction, spec: Step, job: Job, settings: Settings) -> Mapping[str, object]:
        alias = aliases.read(tx, spec.use_case)
        assert alias is not None
        after = f"{spec.use_case}-model@v{int(alias.model.rpartition('@v')[2]) + 1}"
        aliases.move(tx, use_case=spec.use_case, model=after, expected=alias.model, action="promote", actor="watch",
                     evidence={})  # fmt: skip
        survive(tx, spec.use_case)
        return Learned(verdict="promote", why="+30 points", model=after, promotion="applied").model_dump(mode="json")

    return Kinds(extra=[
        Kind(name="monitor", spec=Window, act=monitor), Kind(name="mine", spec=Step, act=mine),
        Kind(name="relearn", spec=Step, act=relearn),
    ])  # fmt: skip


def survive(tx: Transaction, use_case: str) -> None:
    alias = aliases.read(tx, use_case)
    assert alias is not None
    event = {"alias": "production", "model": alias.model, "generation": alias.generation}
    tx.event(f"use_case:{use_case}", bake.SURVIVED, event)


def send(workspace: Workspace, watch: Watch, memory: Memory, start: Start, now: float) -> Send:
    spec = Step(use_case=watch.use_case, episode=memory.episode, n=start.n).model_dump()
    return Send(key_of(watch.use_case, memory, start.step), start.step, spec)


class Labels:
    """All labels of an episode come within three days."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def counts(
        self, use_case: str, learned_until: float, requests: Mapping[str, LabelRequest], episode: int
    ) -> LabelCounts:
        came = [
            each for each in requests.values() if each.episode == episode and self._clock.time - each.asked > 3 * DAY
        ]
        return LabelCounts(of_episode=len(came), drawn=sum(each.drawn == "random" for each in came))


def define(tx: Transaction, use_case: str) -> None:
    objective = Objective(metric="accuracy", target=0.88)
    use_cases.define(tx, Definition(name=use_case, task="text-classification", objective=objective), policy="auto")
    aliases.move(tx, use_case=use_case, model=f"{use_case}-model@v1", expected=None, action="promote", actor="ada",
                 evidence={})  # fmt: skip
    survive(tx, use_case)
    watch = Watch(use_case=use_case, triggers=(Trigger(on="data_shift"), Trigger(on="quality_regression")),
                  policy=Policy(action="auto"))  # fmt: skip
    rows.define(tx, watch, enabled=True, by="ada", asked=False)


def month(folder: Path, count: int, days: int, looks: int) -> None:
    clock = Clock()
    workspace = Workspace(folder, clock=clock, settings=Settings(policy="auto"))
    engine = Engine(workspace, kinds=kinds(days))
    gatherer = Gatherer(workspace)
    gatherer.labels = Labels(clock)  # type: ignore[assignment]  # a stand-in for the log
    watcher = Watcher(workspace, engine, gatherer, send)
    names = [f"case-{number:04}" for number in range(count)]
    for name in names:
        workspace.database.transact(lambda tx, name=name: define(tx, name))  # type: ignore[misc]  # bound now
    began = time.process_time()
    quiet, busy = list[float](), list[float]()
    for look in range(days * looks):
        clock.time = START + look * DAY / looks
        before, seq = time.process_time(), workspace.database.last_seq
        found = watcher.look()
        spent = time.process_time() - before
        assert len(found) == count
        (quiet if workspace.database.last_seq == seq else busy).append(spent)
    total = time.process_time() - began
    [[jobs]] = workspace.database.read("SELECT count(*) FROM jobs")
    [[ticks]] = workspace.database.read("SELECT count(*) FROM watch_ticks")
    episodes = workspace.database.read("SELECT outcome, count(*) FROM episodes GROUP BY outcome ORDER BY ALL")
    expected = sum(changes(name, days) is not None for name in names)
    print(f"{count} use cases, {days} days, {looks} looks a day: {total:.1f} CPU s, {jobs} jobs, {ticks} rows of ticks")
    nothing, something = ([1000 * each for each in found] or [0.0] for found in (quiet, busy))
    print(f"a look at which nothing happened: {statistics.median(nothing):.1f} ms ({len(quiet)} of them)")
    print(
        f"one at which something did: {statistics.median(something):.0f} ms, at most {max(something):.0f} ({len(busy)})"
    )
    print(f"{expected} use cases changed; episodes: {dict(episodes)}", flush=True)
    workspace.close()


if __name__ == "__main__":
    given = [*map(int, sys.argv[1:]), *[1000, 30, 24][len(sys.argv) - 1 :]]
    for size in sorted({max(1, given[0] // 100), max(1, given[0] // 10), given[0]}):
        with tempfile.TemporaryDirectory() as name:
            month(Path(name) / "w", size, given[1], given[2])
