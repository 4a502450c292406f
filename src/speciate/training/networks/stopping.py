"""Why a training ends before its last step: a request to stop, which waits for the step's end, or divergence."""

from __future__ import annotations

import math
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from speciate.errors import CallAgain, Code, SpeciateError
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


_DECAY = 0.9
"""Share of the running mean that each step leaves in place: it covers about the last ten steps."""
_SETTLED = 10
"""Steps before the running mean says anything."""
_TIMES = 10.0
_LONG_STEPS = 50
"""Steps above `_TIMES` the best running mean, and above the first one, before it is given up."""


class Diverged(SpeciateError):
    """The loss is no number, or stays far above what it had reached. The weights are those of the last good step."""

    def __init__(self, step: int, learning_rate: float, what: str) -> None:
        lower = float(f"{learning_rate / 10:.2g}")
        super().__init__(
            Code.INVALID,
            f"The training diverged at step {step}: {what}, with a learning rate of {learning_rate:.3g}.",
            "Where a lower rate does not help, look for values that are no numbers or far out with describe_dataset.",
            next=[CallAgain("train_model", {"hyperparameters": {"learning_rate": lower}})],
        )
        self.args = (step, learning_rate, what)  # so that it pickles


class LossWatch:
    """Sees every step's loss. `suspicious`: it is above the bound now, so this is no state to keep."""

    def __init__(self) -> None:
        self._seen = self._above = 0
        self._mean = self._first = 0.0
        self._best = math.inf

    @property
    def suspicious(self) -> bool:
        return self._above > 0

    def see(self, loss: float) -> str | None:
        """What is wrong, in words, or None."""
        self._seen += 1
        rate = max(1 - _DECAY, 1 / self._seen)  # a plain mean at first
        self._mean += rate * (loss - self._mean)
        if self._seen == _SETTLED:
            self._first = self._mean
        if self._seen < _SETTLED:
            return None
        self._best = min(self._best, self._mean)
        bound = max(_TIMES * self._best, self._first)
        self._above = self._above + 1 if self._mean > bound > 0 else 0
        if self._above < _LONG_STEPS:
            return None
        return f"for {_LONG_STEPS} steps the loss was about {self._mean:.3g}, after {self._best:.3g} before"

    def state(self) -> list[Any]:
        return [self._seen, self._above, self._mean, self._first, self._best]

    def restore(self, state: list[Any]) -> None:
        self._seen, self._above, self._mean, self._first, self._best = state
