"""A slot: it serves one version, and follows what the daemon wants without letting go of a request.

The next version is loaded and tried beside the one that serves; only then requests go to it, by one assignment. What
was asked of the old one is still answered by it, then its process is ended. A version that does not pass its trial
never gets a request: the old one goes on, and a slot that is started again begins with the last one that served.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from speciate.clock import Clock
from speciate.serving.batching import Batching
from speciate.serving.deployment import Deployment, Item, Process, Retired
from speciate.serving.folder import Refused, SlotFolder, State, Target, Wanted
from speciate.serving.metrics import Metrics
from speciate.serving.trial import Tried, Unfit, attempt

_LOOK_SECONDS = 0.1
_RETRY_SECONDS = 15.0
"""Before a version is tried again where nothing else serves."""
_log = logging.getLogger(__name__)

Launch = Callable[[Target], Process]


class Empty(Exception):
    """No version serves yet; the text says why."""


class Submitted(NamedTuple):
    target: Target
    answers: list[Future[Item]]


class Slot:
    """`launch` starts the process of a version, which is then loaded here."""

    def __init__(self, folder: SlotFolder, wanted: Wanted, launch: Launch, metrics: Metrics, clock: Clock) -> None:
        self.folder, self.wanted, self._launch, self._metrics, self._clock = folder, wanted, launch, metrics, clock
        self.current: Deployment | None = None
        self._state = State()
        self._answered: set[str] = set()
        self._loading: Process | None = None
        self._superseded = self._ending = False
        self._change = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._retiring: list[threading.Thread] = []

    # Asking

    def submit(self, items: Sequence[Item], seconds: float) -> Submitted:
        """Hand inputs to the version that serves now. Raises Full, or Empty where none does."""
        deadline = time.monotonic() + seconds
        while True:
            current = self.current
            if current is None:
                raise Empty(self.why_empty())
            with contextlib.suppress(Retired):  # a swap, just now: there is another
                return Submitted(current.target, current.submit(items, deadline))

    def answered(self, model: str) -> None:
        """Note the first answer of each version: it stops the clock of time to model."""
        if model not in self._answered:
            self._answered.add(model)
            self._note("production.answered", model=model)

    @property
    def state(self) -> State:
        return self._state

    def why_empty(self) -> str:
        state = self._state
        if state.loading:
            return f"{state.loading} is being loaded."
        if state.refused:
            return f"{state.refused.model} was not let serve: {state.refused.why}."
        return f"No model is in production for {self.wanted.use_case}."

    # Life

    def start(self, **known: Any) -> None:
        """Begin to follow. `known`: what the state says beside versions (pid, port)."""
        before = self.folder.state()
        self._tell(**known, refused=before.refused)
        follower = threading.Thread(target=self._follow, name="follow", daemon=True)
        watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._threads = [follower, watcher]
        for thread in self._threads:
            thread.start()

    def end(self, seconds: float) -> None:
        """Take no more requests, answer those in flight, and end every process."""
        with self._change:
            self._ending = True
            self._give_up_loading()
            self._change.notify_all()
        for thread in self._threads:
            thread.join()
        if current := self.current:
            current.retire(seconds)
        for retiring in self._retiring:
            retiring.join()
        self._tell(pid=0, serving=None, since=None, loading=None)

    # What is wanted

    def _watch(self) -> None:
        """Reads what the daemon wants; what is being loaded and is wanted no more is given up at once."""
        stamp = self.folder.wanted_stamp()
        while not self._ending:
            time.sleep(_LOOK_SECONDS)
            if (now := self.folder.wanted_stamp()) == stamp:
                continue
            stamp, wanted = now, self.folder.wanted()
            if wanted is None:
                continue
            with self._change:
                if self._loading and wanted.target and self._loading.target.model != wanted.target.model:
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
            target = self.wanted.target
            if self._behind(target, retry_at):
                assert target
                self._serve(target)
                if self.current is None and self._is_refused():
                    if (good := self.folder.good()) and good.model != target.model:
                        self._serve(good)
                    retry_at = time.monotonic() + _RETRY_SECONDS
                continue
            with self._change:
                self._change.wait(_LOOK_SECONDS if self._behind(self.wanted.target, retry_at) else 1.0)

    def _behind(self, target: Target | None, retry_at: float) -> bool:
        """Whether another version should serve than does, and may be tried."""
        if target is None or self._ending:
            return False
        if self.current and self.current.target.model == target.model:
            if self._state.refused:
                self._tell(refused=None)  # back to what serves: nothing is refused any more
            return False
        if self._is_refused():
            return self.current is None and time.monotonic() >= retry_at
        return True

    def _is_refused(self) -> bool:
        refused, target = self._state.refused, self.wanted.target
        return bool(refused and target and (refused.generation, refused.model) == target.key)

    def _model_wanted(self) -> str | None:
        return self.wanted.target.model if self.wanted.target else None

    # Serving

    def _serve(self, target: Target) -> None:
        """Load, try, switch; or say why not."""
        self._tell(loading=target.model)
        began = time.monotonic()
        try:
            process, tried = self._prepared(target)
        except Unfit as unfit:
            self._refuse(target, str(unfit))
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the version that serves goes on
            _log.exception("%s could not be started", target.model)
            self._refuse(target, f"its process could not be started: {type(error).__name__}")
            return
        with self._change:
            if self._superseded or self._ending or (self._model_wanted() != target.model and not self._is_refused()):
                process.end()  # by the time that it was ready it was wanted no more
                self._superseded = False
                self._tell(loading=None)
                return
        self._switch(target, process, tried, time.monotonic() - began)

    def _switch(self, target: Target, process: Process, tried: Tried, seconds: float) -> None:
        options, old = self.wanted.options, self.current
        self.current = Deployment(
            process,
            lambda: self._loaded_again(target),
            Batching(options.max_batch, options.max_wait_ms / 1000),
            options.queue,
            lambda inputs, took: self._heard(target, inputs, took),
        )
        with contextlib.suppress(OSError):
            self.folder.keep_good(target)
        self._note(
            "slot.serving", model=target.model, before=old.target.model if old else None,
            seconds=round(seconds, 3), examples=tried.examples, median_ms=tried.median_ms and round(tried.median_ms, 3),
        )  # fmt: skip
        refused = self._state.refused if self._is_refused() else None
        self._tell(serving=target.model, since=self._clock.now(), loading=None, refused=refused)
        self._metrics.serving(target.model, old.target.model if old else None, seconds)
        if old:
            retiring = threading.Thread(target=self._retire, args=(old, options.drain_seconds), name="retire")
            self._retiring = [*(thread for thread in self._retiring if thread.is_alive()), retiring]
            retiring.start()

    def _retire(self, old: Deployment, seconds: float) -> None:
        if not old.retire(seconds):
            self._note("slot.abandoned", model=old.target.model, seconds=seconds)

    def _prepared(self, target: Target) -> tuple[Process, Tried]:
        """A process with the version loaded and tried."""
        process = self._launch(target)
        with self._change:
            self._loading = process
        try:
            return process, attempt(process, self._examples(target), self.wanted.options.load_seconds)
        except BaseException:
            process.end()
            raise
        finally:
            with self._change:
                self._loading = None

    def _loaded_again(self, target: Target) -> Process:
        """A process for a version that serves already and lost its own: it was tried before."""
        process = self._launch(target)
        try:
            process.load(self.wanted.options.load_seconds)
        except BaseException:
            process.end()
            raise
        return process

    def _examples(self, target: Target) -> list[Item]:
        if target.warmup is None:
            return []
        try:
            items: list[Item] = json.loads((self.folder.path / target.warmup).read_bytes())
        except (OSError, ValueError):
            return []
        return items

    def _refuse(self, target: Target, why: str) -> None:
        with self._change:
            superseded, self._superseded = self._superseded, False
            if superseded or self._ending:
                self._tell(loading=None)
                return
        refused = Refused(generation=target.generation, model=target.model, why=why, at=self._clock.now())
        before = self._state.refused
        if before is None or (before.key, before.why) != (refused.key, refused.why):
            going_on = self.current.target.model if self.current else None
            self._note("slot.refused", model=target.model, why=why, serving=going_on)
        self._metrics.refused(target.model)
        self._tell(loading=None, refused=refused if self._model_wanted() == target.model else before)

    def _heard(self, target: Target, inputs: int, seconds: float) -> None:
        if inputs:
            self._metrics.batch(target.model, inputs, seconds)
        else:
            self._note("slot.process_restarted", model=target.model, seconds=round(seconds, 3))
            self._metrics.restarted(target.model)

    def _note(self, kind: str, **data: Any) -> None:
        try:
            self.folder.note(kind, self._clock.now(), **data)
        except OSError:
            _log.exception("%s could not be noted", kind)

    def _tell(self, **changes: Any) -> None:
        state = self._state.model_copy(update=changes)
        try:
            self.folder.tell(state)
        except OSError:
            _log.exception("the state could not be written")  # a full disk: requests are answered all the same
        self._state = state
