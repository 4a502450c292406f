"""A version that serves: its process, the inputs that wait for it, and the thread that hands them over in batches.

A process that dies under a batch is started again, and the inputs of that batch are asked one by one: so that which
ended it spoils only itself, and all others are answered, later. Thread-safe.

Whose fault a missing answer is: an input whose time passed in the queue was never the model's (Overloaded). One that
was handed over has from then on as long as a request may take, however long it waited: only a model that needs more
than that is too slow (TimeoutError), and its process is ended. A busy queue ends none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from speciate.errors import Code, SpeciateError
from speciate.serving.batching import Batching, pause
from speciate.serving.folder import Target
from speciate.serving.runner import Died, Slow
from speciate.serving.trial import Asked

_RESTART_SECONDS = 1.0, 30.0
"""Between two attempts to start a process that died: at first, and at most."""
_log = logging.getLogger(__name__)

Item = dict[str, Any]


class Process(Asked, Protocol):
    """As Runner."""

    def interrupt(self) -> None: ...

    def end(self) -> None: ...


class Full(Exception):
    """Too many inputs wait."""


class Overloaded(Exception):
    """The input's time passed while it waited for its turn: the model never saw it."""


class Retired(Exception):
    """This version serves no more; another does."""


class _Waiting(NamedTuple):
    item: Item
    since: float
    deadline: float
    future: Future[Item]
    """Pending while it waits, so that who asked may cancel it; running once the model has it."""

    @property
    def seconds(self) -> float:
        """That the model may take for it."""
        return max(0.001, self.deadline - self.since)


class Deployment:
    """`process`: loaded. `restart`: another one of the same version, loaded; raises what loading raises.
    `told`: hears of each batch (inputs, seconds) and of each death of the process (0, seconds that the restart took).
    """

    def __init__(
        self,
        process: Process,
        restart: Callable[[], Process],
        batching: Batching,
        queue: int,
        told: Callable[[int, float], None],
    ) -> None:
        self._process, self._restart, self._told = process, restart, told
        self._batching, self._most = batching, queue
        self._change = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._answering, self._last = 0, batching.most
        self._retired = self._abandoned = False
        self._thread = threading.Thread(target=self._work, name=f"serve {process.target.model}", daemon=True)
        self._thread.start()

    @property
    def target(self) -> Target:
        return self._process.target

    @property
    def open(self) -> int:
        """Inputs that wait or are being answered."""
        return len(self._waiting) + self._answering

    def submit(self, items: Sequence[Item], deadline: float) -> list[Future[Item]]:
        """A prediction for each, later. In the future may be Overloaded, where `deadline` (monotonic) passes before
        its turn comes, or TimeoutError, where the model had it for as long as there was from now to `deadline`: so that
        may be known only after it. A future that is cancelled before its turn is asked of nobody.

        All of them or none: raises Full or Retired.
        """
        now = time.monotonic()
        asked = [_Waiting(item, now, deadline, Future()) for item in items]
        with self._change:
            if self._retired:
                raise Retired
            self._drop_late()  # who gave up while the model was busy takes nobody's room
            if len(self._waiting) + len(asked) > self._most and self._waiting:
                raise Full
            self._waiting.extend(asked)
            self._change.notify_all()
        return [one.future for one in asked]

    def retire(self, seconds: float) -> bool:
        """Take nothing more, answer what is open, and free the process. Whether all was answered in time."""
        with self._change:
            self._retired = True
            self._change.notify_all()
        self._thread.join(seconds)
        drained = not self._thread.is_alive()
        if not drained:
            self._abandoned = True
            self._process.interrupt()
            self._thread.join()
        self._process.end()
        return drained

    # The thread

    def _work(self) -> None:
        while batch := self._next():
            try:
                self._answer(batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait hear of it and the thread lives
                _log.exception("a batch failed")
                _fail(batch, error)
            with self._change:
                self._answering = 0

    def _next(self) -> list[_Waiting]:
        """The next batch; empty once this version is retired and all is answered."""
        with self._change:
            while True:
                self._drop_late()
                if not self._waiting:
                    if self._retired:
                        return []
                    self._change.wait()
                    continue
                age = time.monotonic() - self._waiting[0].since
                waiting = len(self._waiting)
                rest = 0.0 if self._retired else pause(waiting, age, self._batching, self._last)
                if rest > 0:
                    self._change.wait(rest)
                    continue
                count = min(self._batching.most, len(self._waiting))
                next_ones = [self._waiting.popleft() for _ in range(count)]
                batch = [one for one in next_ones if one.future.set_running_or_notify_cancel()]
                if not batch:
                    continue  # nobody waits for these any more
                self._answering = self._last = len(batch)
                return batch

    def _drop_late(self) -> None:
        now = time.monotonic()
        while self._waiting and (self._waiting[0].deadline <= now or self._abandoned):
            late = self._waiting.popleft().future
            if late.set_running_or_notify_cancel():
                late.set_exception(Overloaded())

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        began = time.monotonic()
        try:
            answers = self._process.answer([one.item for one in batch], max(one.seconds for one in batch))
        except (Died, Slow) as error:
            self._recover(batch, error)
            return
        except SpeciateError as error:
            _fail(batch, error)
            return
        self._told(len(batch), time.monotonic() - began)
        for one, answer in zip(batch, answers, strict=True):
            _settle(one, answer)

    def _recover(self, batch: Sequence[_Waiting], error: Exception) -> None:
        if self._abandoned:
            _fail(batch, TimeoutError())
            return
        _log.warning("the process of %s ended under %d inputs: %r", self.target.model, len(batch), error)
        if len(batch) == 1:
            _settle(batch[0], TimeoutError() if isinstance(error, Slow) else _ended_it())
        self._start_again()
        if len(batch) > 1:
            for one in batch:
                if one.deadline > time.monotonic() and not self._abandoned:
                    self._answer([one])
                else:
                    _settle(one, TimeoutError())

    def _start_again(self) -> None:
        """Until it succeeds, or this version is retired and nobody waits any more."""
        began, (gap, longest) = time.monotonic(), _RESTART_SECONDS
        self._process.end()
        while True:
            try:
                self._process = self._restart()
            except Exception:  # noqa: BLE001 - the next attempt may succeed
                _log.exception("%s could not be started again", self.target.model)
                with self._change:
                    self._drop_late()
                    if self._abandoned or (self._retired and not self._waiting):
                        return
                    self._change.wait(gap)
                gap = min(2 * gap, longest)
            else:
                self._told(0, time.monotonic() - began)
                return


def _settle(one: _Waiting, answer: Item | Exception) -> None:
    """Of one that was handed over."""
    if isinstance(answer, Exception):
        one.future.set_exception(answer)
    else:
        one.future.set_result(answer)


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for one in batch:
        if not one.future.done():
            _settle(one, error)


def _ended_it() -> SpeciateError:
    return SpeciateError(
        Code.UNAVAILABLE,
        "The model's process ended on this input: it needed too much memory, or it crashed.",
        "Send a smaller input.",
    )
