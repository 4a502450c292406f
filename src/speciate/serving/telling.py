"""What a slot says of itself: its state, what happened, and what its requests came to. A full disk stops none of its
answers: it says less then."""

from __future__ import annotations

import logging
from typing import Any

from speciate.clock import Clock
from speciate.serving.folder import SlotFolder, State, Target
from speciate.serving.tallies import Outcome, Tallies

_log = logging.getLogger(__name__)


class Telling:
    def __init__(self, folder: SlotFolder, clock: Clock) -> None:
        self._folder, self._clock = folder, clock
        self.state = State()
        self._tallies = Tallies(folder.tallies)

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
        self._tallies.add((alias, target.generation, target.model), self._clock.now(), outcome)

    def time(self, alias: str, target: Target, seconds: float) -> None:
        """What the version took for one input alone."""
        if target.slowest_ms is not None:
            slow = 1000 * seconds > target.slowest_ms
            self._tallies.time((alias, target.generation, target.model), self._clock.now(), slow)

    def write_tallies(self, *, now: bool = False) -> None:
        """Those that changed, where it is time or `now`."""
        try:
            self._tallies.write(now=now)
        except OSError:
            _log.exception("the tallies could not be written")
