"""Answers that take longer than one call: the pool goes on, and the same call again gets them.

A question that its call cannot wait for is left to the pool, which has `PATIENCE_SECONDS` for it. Whoever repeats the
call waits for that one instead of beginning again. Question and answer are held in memory alone, until somebody takes
the answer or `_KEPT_SECONDS` have passed: there is no file that a purge would have to reach, and the daemon leaves
after one. An answer that nobody takes was given to nobody, and is not logged.

One process of the pool at least stays free for what ends in time: where no other one may be kept, a question is ended
with its call.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from speciate.jobs.pool import Pool

PATIENCE_SECONDS = 300.0
"""For one question that may outlive its call. What takes longer is no question but a job: `evaluate_models`."""
_KEPT_SECONDS = 300.0
"""For an answer that nobody has taken yet."""


class Finished(NamedTuple):
    answer: dict[str, Any]
    seconds: float
    """That it took, whoever waited."""


class Question(threading.Thread):
    """One question in the pool. `seat`: what it gives back when it is answered; None where it must end in time."""

    def __init__(
        self, pool: Pool, service: str, payload: Mapping[str, Any], seconds: float, seat: threading.Semaphore | None
    ) -> None:
        super().__init__(name="question", daemon=True)
        self._pool, self._service, self._payload, self._seconds, self._seat = pool, service, payload, seconds, seat
        self._ended, self._taken = threading.Event(), threading.Event()
        self._finished: Finished | None = None
        self._error: Exception | None = None

    @property
    def may_outlive(self) -> bool:
        return self._seat is not None

    def run(self) -> None:
        began = time.perf_counter()
        try:
            answer = self._pool.ask(self._service, dict(self._payload), self._seconds)
            self._finished = Finished(answer, time.perf_counter() - began)
        except Exception as error:  # noqa: BLE001 - raised where somebody waits for it
            self._error = error
        finally:
            self._payload = {}
            if self._seat is not None:
                self._seat.release()
            self._ended.set()
        if self._seat is not None and not self._taken.wait(_KEPT_SECONDS):
            of(self._pool).forget(self)

    def wait(self, seconds: float) -> Finished | None:
        """The answer; None where it is not there after so many seconds. Raises what the pool raised."""
        if not self._ended.wait(seconds if self.may_outlive else None):
            return None
        self._taken.set()
        if self._error is not None:
            raise self._error
        return self._finished


class Unfinished:
    """The questions of one pool that were left to it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._left: dict[str, Question] = {}
        self._seats = threading.BoundedSemaphore(max(1, pool.size - 1))

    @property
    def left(self) -> tuple[Question, ...]:
        with self._lock:
            return tuple(self._left.values())

    def begin(self, service: str, payload: Mapping[str, Any], seconds: float) -> Question:
        """Ask; with `PATIENCE_SECONDS` where it may outlive its call, which has so many `seconds`."""
        seat = self._seats if self._seats.acquire(blocking=False) else None
        question = Question(self._pool, service, payload, seconds if seat is None else PATIENCE_SECONDS, seat)
        question.start()
        return question

    def leave(self, question: Question, payload: Mapping[str, Any]) -> None:
        """To whoever asks the same again."""
        with self._lock:
            self._left[_key(payload)] = question

    def take(self, payload: Mapping[str, Any]) -> Question | None:
        """What was left of the same question, for this caller alone."""
        with self._lock:
            return self._left.pop(_key(payload), None) if self._left else None

    def forget(self, question: Question) -> None:
        with self._lock:
            self._left = {key: one for key, one in self._left.items() if one is not question}


def _key(payload: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()


_of_pool: WeakKeyDictionary[Pool, Unfinished] = WeakKeyDictionary()


def of(pool: Pool) -> Unfinished:
    return _of_pool.setdefault(pool, Unfinished(pool))
