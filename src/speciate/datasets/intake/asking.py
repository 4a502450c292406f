"""Asks the ingest's processes until one has time: that all are busy says nothing about the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from speciate.jobs.pool import Busy
from speciate.jobs.run import Run, Stopped

T = TypeVar("T")


def insist(ask: Callable[[], T], run: Run) -> T:
    """What `ask` answers or raises, once it was heard. Stopped where the run is to stop, whatever went wrong."""
    while True:
        try:
            return ask()
        except Busy:
            if run.stopping:
                raise Stopped from None
        except Exception:
            if run.stopping:  # then the processes were ended under it
                raise Stopped from None
            raise
