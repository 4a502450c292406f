"""One DuckDB in memory for questions about sealed files: to make another for each question costs 30 ms of a core."""

from __future__ import annotations

import os
import threading

import duckdb

_lock = threading.Lock()
_instances: dict[int, duckdb.DuckDBPyConnection] = {}
"""By process: what was forked has none of the threads of its parent's."""


def cursor() -> duckdb.DuckDBPyConnection:
    """To be closed by whoever asks, who makes no tables in it: all of this process share what it holds."""
    with _lock:
        if (pid := os.getpid()) not in _instances:
            _instances[pid] = duckdb.connect(":memory:")
        return _instances[pid].cursor()


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
