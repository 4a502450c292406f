"""What the jobs of `tasks.py` do in their worker; apart from it, so that a worker need not import the server."""

from __future__ import annotations

import time
from typing import Any

from speciate.errors import Code, SpeciateError
from speciate.jobs.run import Run, Stopped


def wait(run: Run) -> dict[str, Any]:
    """Sleep, looking up now and then."""
    end = time.monotonic() + run.payload["seconds"]
    while (left := end - time.monotonic()) > 0:
        if run.stopping:
            raise Stopped
        time.sleep(min(left, 0.05))
    return {"done": run.payload["label"]}


def fail(run: Run) -> dict[str, Any]:
    raise SpeciateError(Code.INVALID, "This job always fails.", "Call greet.")
