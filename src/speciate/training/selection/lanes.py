"""A pool of threads for pieces of work that are done ahead of their turn, within what a training was granted.

    turns = [lanes.turn(work) for work in ...]      nothing is done yet
    turns[0].begin(), turns[1].begin()              done by whichever lane is free, in this order
    turns[0].result()                               waited for, or done here and now where there is no lane

With one thread there is none: each piece is done when its result is asked for, as if this file did not exist. So
results are asked for in one order, whatever the number of threads. Threads gain only where the work leaves Python:
LightGBM, LIBSVM, LIBLINEAR and sparse products do. Work in a lane that needs a piece of its own drops it where no
other lane has begun it, and does it itself: waiting, all lanes could wait for each other. A lane cannot be
interrupted: who stops leaves it behind. Filters of warnings are the process's: where two fits set them at once, one may
leave its own in force.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

from speciate.environment import OWN_BLAS, import_without_pandas, limit_new_thread

T = TypeVar("T")


class Turn(Generic[T]):
    """One piece of work, which is done once."""

    def __init__(self, work: Callable[[], T], pool: ThreadPoolExecutor | None) -> None:
        self._work, self._pool = work, pool
        self._future: Future[T] | None = None

    def begin(self) -> None:
        """To be done by a lane as soon as one is free, if there are any."""
        if self._pool is not None and self._future is None:
            self._future = self._pool.submit(self._work)

    def drop(self) -> bool:
        """Whether no lane has begun it; none will then."""
        return self._future is None or self._future.cancel()

    def result(self) -> T:
        """Raises what the work raises. To be asked for once, and not after it was dropped."""
        return self._work() if self._future is None else self._future.result()


_LANES = 2
"""A training's memory has room for a second fit (boosting on 300,000 x 40: 891 MB, 600 by one), not for one a core; and
a fit of millions of numbers takes the other cores itself."""


class Lanes:
    """`threads` 1: none. Nor where torch shares its BLAS with numpy: there each fit sets the threads of the process."""

    def __init__(self, threads: int) -> None:
        several = threads > 1 and OWN_BLAS
        if several:  # imported in a lane, it would import pandas, which another lane would meet half imported
            import_without_pandas("sklearn.base")
        self._pool = ThreadPoolExecutor(_LANES, "lane", limit_new_thread, (threads,)) if several else None

    def turn(self, work: Callable[[], T]) -> Turn[T]:
        return Turn(work, self._pool)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """What no lane has begun is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


NO_LANES = Lanes(1)
