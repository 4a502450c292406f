"""What `predict` answers in the daemon, where no deployment runs: counted for the bake as a deployment counts.

One file beside the log of answers, written like a deployment's (request_metrics.py).
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from weakref import WeakKeyDictionary

from speciate.predictions.log_files import log_folder
from speciate.promotion.aliases import Alias
from speciate.promotion.request_counters import RequestCounters
from speciate.serving.request_metrics import CounterFile, Outcome, read_counters
from speciate.workspace.workspace import Workspace

_NAME = "requests.json"
_log = logging.getLogger(__name__)


class _Counted:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, CounterFile] = {}

    def of(self, workspace: Workspace, use_case: str) -> CounterFile:
        with self._lock:
            if use_case not in self._files:
                log_folder(workspace.folders, use_case).create()
                self._files[use_case] = CounterFile(_path(workspace, use_case))
            return self._files[use_case]

    def known(self, use_case: str) -> CounterFile | None:
        return self._files.get(use_case)


_counted: WeakKeyDictionary[Workspace, _Counted] = WeakKeyDictionary()


def count(workspace: Workspace, alias: Alias, outcome: Outcome) -> None:
    """One request of what the alias names. A disk that takes nothing more loses counts, and no answer."""
    file = _counted.setdefault(workspace, _Counted()).of(workspace, alias.use_case)
    file.add((alias.alias, alias.generation, alias.model), workspace.clock.now(), outcome)
    _write(file)


def counters(workspace: Workspace, use_case: str) -> list[RequestCounters]:
    """The counters as they are known by now; what was counted since the last writing is written first."""
    if (found := _counted.get(workspace)) is not None and (file := found.known(use_case)) is not None:
        _write(file, now=True)
    return read_counters(_path(workspace, use_case))


def _write(file: CounterFile, *, now: bool = False) -> None:
    try:
        file.write(now=now)
    except OSError as error:
        _log.warning("requests could not be counted: %s", error)


def _path(workspace: Workspace, use_case: str) -> Path:
    return log_folder(workspace.folders, use_case).path / _NAME
