"""Answers that take longer than one call: the pool continues, and the same call again gets them.

If a call cannot wait for its question, the pool keeps it for `PATIENCE_SECONDS`, and a repeated call waits for that
question instead of asking anew. Question and answer are in memory alone, until somebody takes the answer or
`_KEPT_SECONDS` have passed: so there is no file that a purge would have to reach. An answer that nobody takes is not
logged.

At least one process of the pool stays free for short questions: if no other one may be kept, a question ends with its
call.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from speciate.jobs.pool import Pool, ServiceAnswer

PATIENCE_SECONDS = 300.0
"""For one question that may outlive its call. Longer work needs a job: `evaluate_models`."""
_KEPT_SECONDS = 300.0
"""For an answer that nobody has fetched yet."""


class Finished(NamedTuple):
    answer: ServiceAnswer
    seconds: float
    """Seconds that the answer took, whoever waited."""


class Question(threading.Thread):
    """One question in the pool. `seat`: a place among the long questions, given back at the end; None: it must end in
    time."""

    def __init__(
        self,
        pool: Pool,
        service: str,
        payload: Mapping[str, Any],
        seconds: float,
        seat: threading.Semaphore | None,
        family: str = "",
    ) -> None:
        super().__init__(name="question", daemon=True)
        self._pool, self._service, self._payload, self._seconds, self._seat = pool, service, payload, seconds, seat
        self._family = family
        self._ended, self._taken = threading.Event(), threading.Event()
        self._finished: Finished | None = None
        self._error: Exception | None = None

    @property
    def may_outlive(self) -> bool:
        return self._seat is not None

    def run(self) -> None:
        began = time.perf_counter()
        try:
            answer = self._pool.ask(self._service, dict(self._payload), self._seconds, family=self._family)
            self._finished = Finished(answer, time.perf_counter() - began)
        except Exception as error:  # noqa: BLE001 - raised where somebody waits for it
            self._error = error
        finally:
            self._payload = {}
            if self._seat is not None:
                self._seat.release()
            self._ended.set()
        if self._seat is not None and not self._taken.wait(_KEPT_SECONDS):
            pending_questions(self._pool).discard(self)

    def wait(self, seconds: float) -> Finished | None:
        """The answer; None if it is not there after so many seconds. Raises what the pool raised."""
        if not self._ended.wait(seconds if self.may_outlive else None):
            return None
        self._taken.set()
        if self._error is not None:
            raise self._error
        return self._finished


class PendingQuestions:
    """The questions of one pool whose calls could not wait."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._left: dict[str, Question] = {}
        self._seats = threading.BoundedSemaphore(max(1, pool.size - 1))

    @property
    def left(self) -> tuple[Question, ...]:
        with self._lock:
            return tuple(self._left.values())

    def begin(self, service: str, payload: Mapping[str, Any], seconds: float, family: str = "") -> Question:
        """Ask; for `PATIENCE_SECONDS` if it may outlive its call, else for `seconds`. `family`: as of `Pool.ask`."""
        seat = self._seats if self._seats.acquire(blocking=False) else None
        question = Question(self._pool, service, payload, seconds if seat is None else PATIENCE_SECONDS, seat, family)
        question.start()
        return question

    def leave(self, question: Question, payload: Mapping[str, Any]) -> None:
        """Keep it for whoever asks the same again."""
        with self._lock:
            self._left[_key(payload)] = question

    def take(self, payload: Mapping[str, Any]) -> Question | None:
        """The kept question of the same payload, for this caller alone."""
        with self._lock:
            return self._left.pop(_key(payload), None) if self._left else None

    def discard(self, question: Question) -> None:
        with self._lock:
            self._left = {key: one for key, one in self._left.items() if one is not question}


def _key(payload: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()


_of_pool: WeakKeyDictionary[Pool, PendingQuestions] = WeakKeyDictionary()


def pending_questions(pool: Pool) -> PendingQuestions:
    return _of_pool.setdefault(pool, PendingQuestions(pool))
