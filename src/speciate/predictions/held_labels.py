"""The label that a person gave last, before it is stored. Feedback is only ever added to the log, so a label waits for
a moment: until the next one, or some seconds. Until then it can be taken back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from speciate.errors import SpeciateError
from speciate.unix_sockets import Account

HOLD_SECONDS = 8.0
_log = logging.getLogger(__name__)


class HeldLabel(NamedTuple):
    account: Account
    """Who gave it."""
    use_case: str
    prediction: str
    label: Any
    drawn: str


class HeldLabels:
    """One label of each session that is not stored yet; `add` stores it. Thread-safe."""

    def __init__(self, add: Callable[[HeldLabel], object]) -> None:
        self._add, self._lock = add, threading.Lock()
        self._held: dict[str, tuple[HeldLabel, threading.Timer]] = {}
        self._refused: dict[str, str] = {}

    def hold(self, session: str, label: HeldLabel) -> None:
        """Store the one before it, and keep this one for a moment."""
        timer = threading.Timer(HOLD_SECONDS, self._over, [session, label])
        timer.daemon = True
        with self._lock:
            before = self._held.get(session)
            self._held[session] = label, timer
        timer.start()
        if before is not None:
            before[1].cancel()
            self._store(session, before[0])

    def waiting(self, session: str) -> HeldLabel | None:
        with self._lock:
            return self._held[session][0] if session in self._held else None

    def take_back(self, session: str) -> HeldLabel | None:
        """The one that waits, which is not stored any more."""
        with self._lock:
            label, timer = self._held.pop(session, (None, None))
        if timer is not None:
            timer.cancel()
        return label

    def add(self, session: str) -> None:
        """Store the one that waits."""
        if (label := self.take_back(session)) is not None:
            self._store(session, label)

    def refused(self, session: str) -> str | None:
        """Why a label of this session could not be stored; told once."""
        with self._lock:
            return self._refused.pop(session, None)

    def close(self) -> None:
        for session in list(self._held):
            self.add(session)

    def _over(self, session: str, label: HeldLabel) -> None:
        with self._lock:
            current = self._held.get(session)
            if current is None or current[0] is not label:
                return  # taken back, or stored already
            del self._held[session]
        self._store(session, label)

    def _store(self, session: str, label: HeldLabel) -> None:
        try:
            self._add(label)
        except (SpeciateError, OSError) as error:
            _log.warning("a label of %s was not stored: %s", label.prediction, error)
            with self._lock:
                self._refused[session] = f"The label of {label.prediction} was not stored: {error}"
