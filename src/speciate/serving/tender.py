"""Has the logs looked after now and then, in a process of its own: neither a slot nor the daemon waits for it.

A slot does it for its own log, for it may live without a daemon; the daemon does it for all, also those whose slot is
gone. Who comes second finds the log locked, and does nothing.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from speciate.environment import clean_environment
from speciate.predictions.folder import LogFolder

LOOK_SECONDS = 60.0
_LEAST_SECONDS = 6 * 3600.0
"""What is too old goes within so long, also where nothing is to be sealed."""
_log = logging.getLogger(__name__)


class Tender:
    """`logs`: those that are looked after."""

    def __init__(self, root: Path, logs: Callable[[], Sequence[LogFolder]], seconds: float = LOOK_SECONDS) -> None:
        self._root, self._logs, self._seconds = root, logs, seconds
        self._ending = threading.Event()
        self._last = -_LEAST_SECONDS
        self._thread = threading.Thread(target=self._keep, name="tender", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """A process that is at it goes on: it may be killed at any time as well."""
        self._ending.set()

    def _keep(self) -> None:
        while not self._ending.wait(self._seconds):
            try:
                self.look()
            except OSError:
                _log.exception("the logs could not be looked after")

    def look(self) -> None:
        """One pass: a process for those logs where there is something to do, and now and then for all."""
        now = time.monotonic()
        everything = now - self._last >= _LEAST_SECONDS
        due = [log.use_case for log in self._logs() if log.path.exists() and (everything or log.closed_segments())]
        if everything:
            self._last = now
        if due:
            command = [sys.executable, "-P", "-m", "speciate.predictions.tending", str(self._root), *due]
            subprocess.run(command, env=clean_environment(), stdin=subprocess.DEVNULL, check=False)
