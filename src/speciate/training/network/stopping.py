"""A request to stop that arrives in the middle of a step waits for its end: half a step is no state to keep."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from speciate.jobs.run import Run, Stopped


class StopRequest:
    """While entered, SIGTERM is noted instead of raising `Stopped` wherever the program happens to be.

    Whoever enters it looks at `made` between steps, saves and raises `Stopped`. One that nobody has looked at raises
    when it is left.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._signalled = run, False

    @property
    def made(self) -> bool:
        return self._signalled or self._run.stopping

    def check(self) -> None:
        if self.made:
            raise Stopped

    def __enter__(self) -> StopRequest:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._main:
            signal.signal(signal.SIGTERM, self._before)
        if self._signalled and error is None:
            raise Stopped

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
