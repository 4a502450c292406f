"""Looks at every watch now and then, in the daemon: reads, calls `decide`, writes what it decides, submits its jobs.

A thread like housekeeping's. Between two looks nothing is kept but caches: after a kill the next daemon goes on from
the rows. Jobs are submitted after the transaction that decided on them, by keys, and again until that is known.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from speciate import use_cases
from speciate.errors import Code, SpeciateError
from speciate.faults import fault
from speciate.jobs.engine import Engine, JobRequest
from speciate.loop.watch import news, rows
from speciate.loop.watch.decide import decide
from speciate.loop.watch.definition import DAY, WINDOW_SECONDS, TriggerKind, Watch, next_time
from speciate.loop.watch.facts import Decision, EndedJob, Memory, Start, StepName, WatchFacts, monitor_key
from speciate.loop.watch.rows import Decided, Send, Standing
from speciate.loop.watch.seen import Gatherer, Surroundings, find_modality
from speciate.loop.watch.steps import send_of
from speciate.promotion import aliases
from speciate.workspace.workspace import Workspace

LOOK_SECONDS = 60.0
_TOGETHER = 50
"""Decisions that are stored in one transaction."""
_PRIORITY = -10
_MONITORED: tuple[TriggerKind, ...] = ("data_shift", "quality_regression", "limit_breach")
_BY_LABELS: tuple[TriggerKind, ...] = ("new_labels", "label_disagreement")
"""Triggers that fire without an event of the catalog."""
_log = logging.getLogger(__name__)


class Gathers(Protocol):
    """What `Gatherer` does; a test may see another world."""

    def around(self, standing: Sequence[Standing], now: float) -> Surroundings: ...

    def seen(self, standing: Standing, around: Surroundings, now: float) -> WatchFacts: ...

    def label_news(self, standing: Standing) -> tuple[int, float | None, int]: ...


Sender = Callable[[Workspace, Watch, Memory, Start, float], Send]
"""What a step asks of a job, by what is in the catalog at that moment."""


class _Rest(NamedTuple):
    """A watch to which nothing happens: what its last look saw and decided, and when it must look again."""

    turn: int
    changed: float
    """When the watch was defined, paused or resumed last."""
    around: Surroundings
    """Facts that the decision rests on."""
    labels: object
    """What there was of labels, where they can wake it."""
    until: float
    """A schedule, or the end of a window."""
    decision: Decision


class Watcher:
    """`start` it once; `look` is one pass, for tests."""

    def __init__(
        self, workspace: Workspace, engine: Engine, gatherer: Gathers | None = None, sender: Sender = send_of,
        *, refreshes: bool = False,
    ) -> None:  # fmt: skip
        """`refreshes`: whether the index of published models is asked for anew each week, which needs a network."""
        self._refreshes, self._told_month, self._refreshed = refreshes, "", ""
        self._workspace, self._engine = workspace, engine
        self._gatherer, self._sender = gatherer or Gatherer(workspace), sender
        self._rests: dict[str, _Rest] = {}
        self._standing: tuple[int, list[Standing]] | None = None
        """Enabled watches, with the number of the newest event by then; None: read them again."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._keep, name="watches", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()

    @property
    def idle(self) -> bool:
        """Whether no watch is enabled: then nobody needs the daemon for them."""
        return not rows.any_enabled(self._workspace.database)

    def look(self) -> dict[str, Decision]:
        """One pass over all enabled watches; what was decided, by use case."""
        self._send()
        database, now = self._workspace.database, self._workspace.clock.now()
        standing = self._enabled()
        if not standing:
            return {}
        self._monitor(standing, now)
        self._tell_news(standing, now)
        around = self._gatherer.around(standing, now)
        found: dict[str, Decision] = {}
        same = [each.watch.use_case for each in standing if self._is_at_rest(each, around, now)]
        if same:
            database.transact(lambda tx: rows.same_again(tx, same, now))
            found |= {name: self._rests[name].decision for name in same}
        decided = list[Decided]()
        for each in standing:
            if each.watch.use_case in found:
                continue
            try:
                decided.append(self._decide(each, around, now))
            except Exception:  # noqa: BLE001 - of one watch: the others are looked at all the same
                _log.exception("the watch of %s could not be looked at", each.watch.use_case)
                continue
            if decided[-1].decision.memory.state == "learning" and each.watch.use_case not in around.learning:
                around = around._replace(learning=(*around.learning, each.watch.use_case))
        for begin in range(0, len(decided), _TOGETHER):
            found |= self._store(decided[begin : begin + _TOGETHER], around, now)
        self._send()
        return found

    def _enabled(self) -> list[Standing]:
        """Read again where something happened: who defines, pauses or resumes a watch notes an event."""
        seq = self._workspace.database.last_seq
        if self._standing is None or self._standing[0] != seq:
            self._standing = seq, [each for each in rows.everyone(self._workspace.database) if each.enabled]
        return self._standing[1]

    def _decide(self, standing: Standing, around: Surroundings, now: float) -> Decided:
        workspace = self._workspace
        watch = standing.watch.model_copy(
            update={"policy": standing.watch.policy.capped(workspace.settings.watch)}
        )  # fmt: skip
        seen = self._gatherer.seen(standing, around, now)
        decision = decide(watch, standing.memory, seen, now)
        try:
            send = [self._sender(workspace, watch, decision.memory, start, now) for start in decision.start]
        except SpeciateError as error:  # what it needs is gone: the episode ends with the reason
            failed = {start.step: EndedJob("", None, error.message) for start in decision.start}
            ended = decide(watch, decision.memory, _with_jobs(seen, failed), now)
            decision, send = _both(decision, ended), []
        return Decided(standing, decision, send)

    def _store(self, decided: Sequence[Decided], around: Surroundings, now: float) -> dict[str, Decision]:
        """Store decisions; returns those that were stored, by use case. Where somebody else changed a watch meanwhile,
        the next look sees it."""
        fault("watch_decided")
        stored = self._workspace.database.transact(lambda tx: rows.store_decisions(tx, decided, now))
        fault("watch_stored")
        self._standing = None
        found: dict[str, Decision] = {}
        for each, is_stored in zip(decided, stored, strict=True):
            if is_stored:
                found[each.standing.watch.use_case] = each.decision
                self._rest(each.standing, each.decision, around, now)
        return found

    def _rest(self, standing: Standing, decision: Decision, around: Surroundings, now: float) -> None:
        """Remember what an idle look found, where only an event or the time can change it: the cost of looks follows
        what happens, not how many watches there are."""
        watch, name = standing.watch, standing.watch.use_case
        self._rests.pop(name, None)
        idle = decision.memory.state == "idle" and not decision.fired
        if not idle or decision.memory != standing.memory:
            return  # a look that changed something may find something else the next time
        wakes = [moment for each in watch.triggers if each.on == "schedule" and (moment := next_time(each, now))]
        wakes += [decision.memory.moved + (decision.memory.window + 2) * WINDOW_SECONDS]
        wakes += [until for until in decision.memory.tried.values() if until > now]
        wakes += [now + DAY] if watch.has("new_base_model") else []
        labels = self._gatherer.label_news(standing) if _is_by_labels(watch) else None
        self._rests[name] = _Rest(standing.turn + 1, standing.changed, around, labels, min(wakes), decision)

    def _is_at_rest(self, standing: Standing, around: Surroundings, now: float) -> bool:
        name = standing.watch.use_case
        rest = self._rests.get(name)
        if rest is None or (rest.turn, rest.changed) != (standing.turn, standing.changed) or now >= rest.until:
            return False
        if rest.around is not around:
            if rest.around.about(name) != around.about(name):
                return False
            self._rests[name] = rest._replace(around=around)
        return not _is_by_labels(standing.watch) or rest.labels == self._gatherer.label_news(standing)

    def _send(self) -> None:
        """Submit what was decided on and is not known to be submitted: the same key is the same job."""
        database = self._workspace.database
        waiting = rows.waiting(database)
        if not waiting:
            return
        asked = [JobRequest(job.kind, job.spec, job.key, priority=_PRIORITY) for job in waiting]
        sent = list[str]()
        for job, outcome in zip(waiting, self._engine.submit_all(asked), strict=True):
            if not isinstance(outcome, SpeciateError):
                fault("watch_submitted")
                sent.append(job.key)
            elif outcome.code is Code.UNAVAILABLE:  # a full disk, say: the next look may succeed
                _log.warning("%s waits: %s", job.key, outcome.message)
            else:
                _note_refused(self._workspace, job, outcome)
        if sent:
            database.transact(lambda tx: rows.sent(tx, sent))

    def _monitor(self, standing: Sequence[Standing], now: float) -> None:
        """Begin the monitoring job of each week that is over, one by one: each is compared with all before it."""
        if "monitor" not in self._engine.kinds.names():
            return
        due = list[JobRequest]()
        for each in standing:
            memory, use_case = each.memory, each.watch.use_case
            if memory.model is None or not any(each.watch.has(kind) for kind in _MONITORED):
                continue
            number = memory.window + 1
            begin = memory.moved + number * WINDOW_SECONDS
            if now < begin + WINDOW_SECONDS:
                continue
            spec = {
                "use_case": use_case, "generation": memory.generation, "number": number, "begin": begin,
                "end": begin + WINDOW_SECONDS,
            }  # fmt: skip
            key = monitor_key(use_case, memory.generation, number)
            due.append(JobRequest("monitor", spec, key, priority=_PRIORITY))
        for asked, outcome in zip(due, self._engine.submit_all(due), strict=True):
            if isinstance(outcome, SpeciateError):
                _log.warning("%s could not begin: %s", asked.key, outcome.message)

    def _tell_news(self, standing: Sequence[Standing], now: float) -> None:
        """Once a week a refresh, once a month a digest, for those that ask for new base models."""
        asking = [each.watch.use_case for each in standing if each.watch.has("new_base_model")]
        if not asking:
            return
        database = self._workspace.database
        key = news.refresh_key(now)
        if self._refreshes and self._refreshed != key and "refresh" in self._engine.kinds.names():
            try:
                self._engine.submit("refresh", {}, key=key, priority=_PRIORITY)
                self._refreshed = key
            except SpeciateError as error:
                _log.warning("the index of published models could not be refreshed: %s", error.message)
        month, begin, end = news.month_before(now)
        if self._told_month == month:
            return
        self._told_month = month
        models = news.published(database, begin, end)
        definitions, production = use_cases.in_force(database), {e.use_case: e for e in aliases.everywhere(database)}
        for name in news.untold(database, asking, month) if models else ():
            if name in definitions and name in production:
                modality = find_modality(database, production[name].model)
                found = news.digest(month, models, definitions[name], modality or "")
                database.transact(lambda tx, name=name, found=found: news.tell(tx, name, found))  # type: ignore[misc]  # bound now

    def _keep(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:  # noqa: BLE001 - a full disk, say: the next pass may succeed, and a thread that ended makes none
                _log.exception("the watches could not be looked at")


def _is_by_labels(watch: Watch) -> bool:
    return any(watch.has(kind) for kind in _BY_LABELS)


def _note_refused(workspace: Workspace, job: Send, error: SpeciateError) -> None:
    workspace.database.transact(lambda tx: rows.refused(tx, job.key, error.message))


def _with_jobs(seen: WatchFacts, jobs: Mapping[StepName, EndedJob]) -> WatchFacts:
    return replace(seen, jobs={str(step): job for step, job in jobs.items()})


def _both(begun: Decision, ended: Decision) -> Decision:
    """One look that began an episode and ended it."""
    return replace(ended, taken=begun.taken, fired=begun.fired, told=(*begun.told, *ended.told))
