"""A deployment: serves one version and follows what the daemon wants without dropping a request.

It loads and tries the next version beside the one that serves. Only then one assignment sends requests to the new one.
The old version answers the requests that it has; then its process is ended. A version that fails its trial never gets a
request: the old one serves on, and a deployment that starts again begins with the last version that served.

A canary is loaded and tried in the same way after production, and answers its share of the requests (`routing`). If it
is promoted, it serves at once with the process that it has.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from speciate.faults import fault
from speciate.serving import routing
from speciate.serving.deployment_folder import DeploymentFolder, Refused, State, Target, Wanted
from speciate.serving.hourly_tallies import HourlyTallies, RequestRecord
from speciate.serving.items import Item, ItemPrediction
from speciate.serving.replica import (
    Batching,
    Full,
    Listener,
    Process,
    Replica,
    Retired,
    TrialFailed,
    TrialResult,
    try_version,
    warmup_examples,
)
from speciate.serving.request_metrics import OVERLOADED, CounterFile, Metrics, Outcome
from speciate.serving.routing import CANARY, PRODUCTION
from speciate.workspace.clock import Clock

_LOOK_SECONDS = 0.1
_RETRY_SECONDS = 15.0
"""Seconds before a version is tried again where nothing else serves."""
_log = logging.getLogger(__name__)

Launch = Callable[[Target], Process]


class NoVersionServes(Exception):
    """No version serves yet; the text says why."""


class SubmittedRequest(NamedTuple):
    target: Target
    answers: list[Future[ItemPrediction]]
    role: str = PRODUCTION
    """The alias under which the version was asked."""


class Deployment:
    """`launch` starts the process of a version, which is then loaded here. `listen` lets clients in, at the latest:
    when the state says that the first version serves, other replicas may end."""

    def __init__(
        self, folder: DeploymentFolder, wanted: Wanted, launch: Launch, metrics: Metrics, clock: Clock,
        listen: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        self.folder, self.wanted, self._launch, self._metrics, self._clock = folder, wanted, launch, metrics, clock
        self._listen = listen
        self.current: Replica | None = None
        self.canary: Replica | None = None
        self._writer = StateWriter(folder, clock)
        self._answered: set[tuple[str, str]] = set()
        self._loading: Process | None = None
        self._loads_canary = self._superseded = self._ending = False
        self._change = threading.Condition()
        self._threads, self._retiring = list[threading.Thread](), list[threading.Thread]()

    # Asking

    def chosen(self, key: str) -> Replica | None:
        """Who answers a request of this key now: the canary, or what serves."""
        canary = self.canary
        return canary if canary and routing.is_for_canary(key, canary.target.model, self.wanted) else self.current

    def submit(
        self, items: Sequence[Item], seconds: float, key: str = "", listener: Listener | None = None
    ) -> SubmittedRequest:
        """Hand inputs to the version that answers requests of this key now. Raises Full or NoVersionServes.
        `listener`: of the only item."""
        deadline = time.monotonic() + seconds
        while True:
            chosen = self.chosen(key)
            if chosen is None:
                raise NoVersionServes(self.why_empty())
            role = CANARY if chosen is self.canary else PRODUCTION
            try:
                return SubmittedRequest(chosen.target, chosen.submit(items, deadline, listener), role)
            except Full:
                self.count(SubmittedRequest(chosen.target, [], role), OVERLOADED)
                raise
            except Retired:  # a swap, just now: there is another
                continue

    def answered(self, model: str, role: str = PRODUCTION) -> None:
        """Note the first answer of each version: in production it stops the clock of time to model."""
        if (model, role) not in self._answered:
            self._answered.add((model, role))
            self._writer.note(f"{role}.answered", model=model)

    def count(self, submitted: SubmittedRequest, outcome: Outcome) -> None:
        """What became of a request, for the bake."""
        self._metrics.overloaded(submitted.target.model, outcome.overloaded)
        self._writer.count(
            submitted.role, routing.current_target(submitted.target, submitted.role, self.wanted), outcome
        )

    @property
    def state(self) -> State:
        return self._writer.state

    def why_empty(self) -> str:
        return routing.empty_reason(self.state, self.wanted.use_case)

    # Life

    def start(self, **known: Any) -> None:
        """Begin to follow. `known`: what the state says beside versions (pid, port)."""
        before = self.folder.state()
        self._writer.tell(
            **known, loading=self._model_wanted(), refused=before.refused, canary=None,
            canary_refused=before.canary_refused,
        )  # fmt: skip
        for name, does in (("follow", self._follow), ("watch", self._watch)):
            self._threads.append(threading.Thread(target=does, name=name, daemon=True))
            self._threads[-1].start()

    def end(self, seconds: float) -> None:
        """Take no more requests, answer those in flight, and end every process."""
        with self._change:
            self._ending = True
            self._give_up_loading()
            self._change.notify_all()
        for thread in self._threads:
            thread.join()
        for serving in (self.current, self.canary):
            if serving:
                serving.retire(seconds)
        for retiring in self._retiring:
            retiring.join()
        self._writer.tell(pid=0, serving=None, since=None, loading=None, canary=None)
        self._writer.write_counters(now=True)

    # What is wanted

    def _watch(self) -> None:
        """Reads what the daemon wants; what is being loaded and is wanted no more is given up at once. The first look
        reads it again: it may be another than when this process began."""
        stamp: tuple[int, int] | None = None
        while not self._ending:
            time.sleep(_LOOK_SECONDS)
            self._writer.write_counters()
            if (now := self.folder.wanted_stamp()) == stamp:
                continue
            stamp, wanted = now, self.folder.wanted()
            if wanted is None:
                continue
            with self._change:
                if self._loading and routing.is_unwanted(
                    self._loading.target.model, wanted, before=self.wanted, as_canary=self._loads_canary
                ):
                    self._give_up_loading()
                self.wanted = wanted
                self._change.notify_all()

    def _give_up_loading(self) -> None:
        if self._loading:
            self._superseded = True
            self._loading.interrupt()

    def _follow(self) -> None:
        if (good := self.folder.good()) and good.model != self._model_wanted() and self._is_refused():
            self._serve(good)  # what is wanted was refused before: until something else is wanted, as before
        retry_at = 0.0
        while not self._ending:
            wanted = self.wanted
            target = wanted.target
            if self._behind(target, retry_at):
                assert target
                self._serve(target)
                if self.current is None and self._is_refused():
                    if (good := self.folder.good()) and good.model != target.model:
                        self._serve(good)
                    retry_at = time.monotonic() + _RETRY_SECONDS
                continue
            if self._update_canary():
                continue
            with self._change:
                if self.wanted is wanted and not self._ending:  # or whoever changed it has woken nobody
                    self._change.wait(_LOOK_SECONDS if self._behind(target, retry_at) else 1.0)

    def _behind(self, target: Target | None, retry_at: float) -> bool:
        """Whether another version should serve than does, and may be tried."""
        if target is None or self._ending:
            return False
        if self.current and self.current.target.model == target.model:
            if self._writer.state.refused:
                self._writer.tell(refused=None)  # back to what serves: nothing is refused any more
            return False
        if self._is_refused():
            return self.current is None and time.monotonic() >= retry_at
        return True

    def _update_canary(self) -> bool:
        """Load the canary that is wanted, end the one that is not. Whether something was to be loaded."""
        wanted, canary = self.wanted.canary, self.canary
        if canary and (wanted is None or canary.target.model != wanted.model):
            self.canary = None
            self._metrics.canary(canary.target.model, 0)
            self._writer.tell(canary=None)
            self._retire_later(canary)
        if wanted is None:
            if self._writer.state.canary_refused:
                self._writer.tell(canary_refused=None)
            return False
        if self.canary:
            self._metrics.canary(wanted.model, self.wanted.percent)
            return False
        refused = self._writer.state.canary_refused
        if self.current is None or self._ending or (refused and refused.key == wanted.key):
            return False
        self._serve_canary(wanted)
        return True

    def _is_refused(self) -> bool:
        refused, target = self._writer.state.refused, self.wanted.target
        return bool(refused and target and (refused.generation, refused.model) == target.key)

    def _model_wanted(self) -> str | None:
        return self.wanted.target.model if self.wanted.target else None

    # Serving

    def _serve(self, target: Target) -> None:
        """Load, try, switch; or say why not. The canary was loaded and tried before."""
        canary = self.canary
        if canary and canary.target.model == target.model:
            self.canary = None
            self._metrics.canary(target.model, 0)
            self._writer.tell(canary=None, canary_refused=None)
            self._switch(target, canary, TrialResult(0.0, 0, None), 0.0)
            return
        began = time.monotonic()
        if loaded := self._load(target, canary=False):
            self._switch(target, loaded[0], loaded[1], time.monotonic() - began)

    def _serve_canary(self, target: Target) -> None:
        began = time.monotonic()
        if loaded := self._load(target, canary=True):
            self.canary = loaded[0]
            self._writer.note("slot.canary", model=target.model, seconds=round(time.monotonic() - began, 3))
            self._metrics.canary(target.model, self.wanted.percent)
            self._writer.tell(canary=target.model, loading=None, canary_refused=None)

    def _load(self, target: Target, *, canary: bool) -> tuple[Replica, TrialResult] | None:
        """The version, loaded and tried; None where it was refused, or is wanted no more."""
        self._writer.tell(loading=target.model)
        try:
            process, trial = self._load_and_try(target, canary=canary)
        except TrialFailed as unfit:
            if unfit.detail:
                _log.warning("%s, tried on an example: %s", target.model, unfit.detail)
            self._refuse(target, str(unfit), canary=canary)
            return None
        except Exception as error:  # noqa: BLE001 - whatever it is, the version that serves continues
            _log.exception("%s could not be started", target.model)
            self._refuse(target, f"its process could not be started: {type(error).__name__}", canary=canary)
            return None
        with self._change:
            late = self._model_wanted() != target.model and not self._is_refused()
            if canary:
                late = routing.canary_of(self.wanted) != target.model
            if self._superseded or self._ending or late:
                process.end()  # by the time that it was ready it was wanted no more
                self._superseded = False
                self._writer.tell(loading=None)
                return None
        options = self.wanted.options
        replica = Replica(
            process,
            lambda: self._launch(target),
            options.load_seconds,
            Batching(options.max_batch, options.max_wait_ms / 1000),
            options.queue,
            lambda inputs, took: self._heard(target, inputs, took),
            lambda inputs, took: self._metrics.batch(target.model, inputs, took),
        )
        return replica, trial

    def _switch(self, target: Target, replica: Replica, trial: TrialResult, seconds: float) -> None:
        old = self.current
        fault("promotion_before_switch")
        self.current = replica
        if old is None:
            with contextlib.suppress(OSError):  # it ends just now
                self._listen()
        with contextlib.suppress(OSError):
            self.folder.keep_good(target)
        self._writer.note(
            "slot.serving", model=target.model, before=old.target.model if old else None,
            seconds=round(seconds, 3), examples=trial.examples, median_ms=trial.median_ms and round(trial.median_ms, 3),
        )  # fmt: skip
        refused = self._writer.state.refused if self._is_refused() else None
        self._writer.tell(serving=target.model, since=self._clock.now(), loading=None, refused=refused)
        fault("promotion_switched")
        self._metrics.serving(target.model, old.target.model if old else None, seconds)
        if old:
            self._retire_later(old)

    def _retire_later(self, old: Replica) -> None:
        seconds = self.wanted.options.drain_seconds
        retiring = threading.Thread(target=self._retire, args=(old, seconds), name="retire")
        self._retiring = [*(thread for thread in self._retiring if thread.is_alive()), retiring]
        retiring.start()

    def _retire(self, old: Replica, seconds: float) -> None:
        if not old.retire(seconds):
            self._writer.note("slot.abandoned", model=old.target.model, seconds=seconds)

    def _load_and_try(self, target: Target, *, canary: bool) -> tuple[Process, TrialResult]:
        """A process with the version loaded and tried."""
        process = self._launch(target)
        with self._change:
            self._loading, self._loads_canary = process, canary
        try:
            return process, try_version(
                process, warmup_examples(self.folder.path, target), self.wanted.options.load_seconds
            )
        except BaseException:
            process.end()
            raise
        finally:
            with self._change:
                self._loading = None

    def _refuse(self, target: Target, why: str, *, canary: bool) -> None:
        with self._change:
            superseded, self._superseded = self._superseded, False
            if superseded or self._ending:
                self._writer.tell(loading=None)
                return
        refused = Refused(generation=target.generation, model=target.model, why=why, at=self._clock.now())
        before = self._writer.state.canary_refused if canary else self._writer.state.refused
        if before is None or (before.key, before.why) != (refused.key, refused.why):
            going_on = self.current.target.model if self.current else None
            alias = CANARY if canary else PRODUCTION
            self._writer.note("slot.refused", model=target.model, why=why, serving=going_on, alias=alias)
        self._metrics.refused(target.model)
        if canary:
            self._writer.tell(loading=None, canary_refused=refused)
            return
        self._writer.tell(loading=None, refused=refused if self._model_wanted() == target.model else before)

    def _heard(self, target: Target, inputs: int, seconds: float) -> None:
        if inputs:
            self._metrics.batch(target.model, inputs, seconds)
            if inputs == 1:
                role = CANARY if self.canary and self.canary.target.model == target.model else PRODUCTION
                self._writer.time(role, routing.current_target(target, role, self.wanted), seconds)
        else:
            self._writer.note("slot.process_restarted", model=target.model, seconds=round(seconds, 3))
            self._metrics.restarted(target.model)


class StateWriter:
    """Writes the deployment's state, journal and request counters. If the disk is full, it writes less and the
    deployment answers all the same."""

    def __init__(self, folder: DeploymentFolder, clock: Clock) -> None:
        self._folder, self._clock = folder, clock
        self.state = State()
        self._counters = CounterFile(folder.counters)
        self._hours = HourlyTallies(folder.hours)

    def note(self, kind: str, **data: Any) -> None:
        """A line of the journal."""
        try:
            self._folder.note(kind, self._clock.now(), **data)
        except OSError:
            _log.exception("%s could not be noted", kind)

    def tell(self, **changes: Any) -> None:
        """The state with these changes."""
        state = self.state.model_copy(update=changes)
        try:
            self._folder.tell(state)
        except OSError:
            _log.exception("the state could not be written")
        self.state = state

    def count(self, alias: str, target: Target, outcome: Outcome) -> None:
        """What became of a request."""
        key, now = (alias, target.generation, target.model), self._clock.now()
        self._counters.add(key, now, outcome)
        self._hours.add(key, now, RequestRecord(*outcome))

    def time(self, alias: str, target: Target, seconds: float) -> None:
        """What the version took for one input alone."""
        if target.slowest_ms is not None:
            slow = 1000 * seconds > target.slowest_ms
            key, now = (alias, target.generation, target.model), self._clock.now()
            self._counters.time(key, now, slow)
            self._hours.time(key, now, slow)

    def write_counters(self, *, now: bool = False) -> None:
        """Writes the counters that changed, where it is time or `now`."""
        try:
            self._counters.write(now=now)
            self._hours.write(now=now)
        except OSError:
            _log.exception("the tallies could not be written")
