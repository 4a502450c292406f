"""What a slot counts for the bake: a tally for each version under each alias, kept in a file of the slot's folder.

The file is written whole, once a second where something changed, and at the slot's end: a slot that is killed loses a
second of counts. Who reads it is another process. Thread-safe.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speciate.finite import NOT_FINITE
from speciate.jobs.folder import write_whole
from speciate.production.tally import Tally
from speciate.serving.deployment import Overloaded

_KEPT = 8
"""Tallies, of those that were counted last."""
_WRITE_SECONDS = 1.0


Key = tuple[str, int, str]
"""As Tally.key: alias, generation, model."""


class Outcome(NamedTuple):
    """Of one request."""

    seconds: float
    failed: bool
    not_finite: bool
    unusable: bool
    overloaded: bool = False
    """Too many waited, and nothing else was wrong: it says nothing of the version."""


OVERLOADED = Outcome(0.0, failed=False, not_finite=False, unusable=False, overloaded=True)
"""Of a request for which the queue had no room."""


def outcome_of(answers: Sequence[dict[str, Any] | BaseException], seconds: float, *, gave_up: bool = False) -> Outcome:
    """What became of a request whose inputs were answered so, in `seconds`.

    `gave_up`: its client was told before that there is no answer in time. An answer that came all the same came within
    the model's own time, so it waited too long before.
    """
    errors = [answer["error"] for answer in answers if isinstance(answer, dict) and answer["error"]]
    waited = [isinstance(answer, Overloaded | asyncio.CancelledError) for answer in answers]
    failed = any(
        isinstance(answer, BaseException) and not late for answer, late in zip(answers, waited, strict=True)
    )  # fmt: skip
    return Outcome(
        seconds,
        failed=failed,
        not_finite=NOT_FINITE in errors,
        unusable=any(error != NOT_FINITE for error in errors),
        overloaded=(gave_up or any(waited)) and not failed and not errors,
    )


class Tallies:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._found = {tally.key: tally for tally in read(path)}
        self._changed, self._written_at = False, 0.0

    def add(self, key: Key, at: float, outcome: Outcome) -> None:
        """Count one request."""
        with self._lock:
            self._of(key).add(at, **outcome._asdict())
            self._changed = True

    def time(self, key: Key, at: float, slow: bool) -> None:
        """Count one timed input."""
        with self._lock:
            self._of(key).slow.add(at, slow)
            self._changed = True

    def write(self, *, now: bool = False) -> None:
        """Where it is time, or `now`. Raises OSError, as a full disk does."""
        with self._lock:
            if not self._changed or not (now or time.monotonic() - self._written_at >= _WRITE_SECONDS):
                return
            text = json.dumps([tally.document() for tally in self._found.values()])
            self._changed, self._written_at = False, time.monotonic()
        write_whole(self._path, text, 0o600)

    def _of(self, key: Key) -> Tally:
        own = self._found.pop(key) if key in self._found else Tally(*key)
        self._found[key] = own  # to the end: what serves is not dropped
        for old in list(self._found)[:-_KEPT] if len(self._found) > _KEPT else ():
            del self._found[old]
        return own


def read(path: Path) -> list[Tally]:
    """What was counted last comes last; none where the file is not there, or is of another version of this package."""
    try:
        return [Tally.of(document) for document in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, KeyError):
        return []
