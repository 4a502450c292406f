"""One DuckDB in memory for questions about sealed files: to make another for each question costs 30 ms of a core."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import duckdb

from speciate.environment import cores

_lock = threading.Lock()
_instances: dict[int, duckdb.DuckDBPyConnection] = {}
"""By process: what was forked has none of the threads of its parent's."""


@contextlib.contextmanager
def cursor() -> Iterator[duckdb.DuckDBPyConnection]:
    """A cursor for one question. Whoever asks makes no tables in it: all of this process share what it holds."""
    with _lock:
        if (pid := os.getpid()) not in _instances:
            _instances[pid] = duckdb.connect(":memory:", config={"threads": cores()})
        instance = _instances[pid]
        found = instance.cursor()
    try:
        yield found
    except (duckdb.InternalException, duckdb.FatalException):  # they make the whole instance useless
        with _lock:
            if _instances.get(pid) is instance:
                del _instances[pid]
        raise
    finally:
        found.close()


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
