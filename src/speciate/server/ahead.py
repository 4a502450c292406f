"""What is likely to be asked for next is made ready while the caller thinks.

A first dataset else waits half a second for the process that looks at foreign columns, and for the imports of a run
that reads data; the first plan a sixth of one for the pace of this processor.
"""

from __future__ import annotations

import contextlib
import threading

from speciate.environment import cores
from speciate.server.tool_api import App
from speciate.training.planning.estimates import reference_seconds


def expect_data(app: App) -> None:
    """A dataset and then a training are likely to be asked for. Returns at once; does nothing without a second core."""
    if cores() > 1:
        app.engine.expect("data")
        with contextlib.suppress(RuntimeError):  # no more threads: it is made ready when it is asked for
            threading.Thread(target=_get_ready, args=(app,), name="get ready", daemon=True).start()


def _get_ready(app: App) -> None:
    app.pool.warm()
    reference_seconds()
