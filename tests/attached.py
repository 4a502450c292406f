"""Catalogs of tests, attached to one DuckDB of this process: to make another one for each costs 20 ms of a core, half
of what a new workspace costs, and thousands are made.

`schema.py` and `database.py` so open what lies in a folder that was named here. All other files, and all of them in
daemons and other processes, are opened as they are for users; so are those of the tests of `workspace/`.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb

from speciate.workspace import database, schema

_lock = threading.Lock()
_folders: set[str] = set()
_names: dict[str, str] = {}
"""File -> what it is attached as."""
_open: dict[str, int] = {}
"""File -> how many connections of `Attached` it has."""
_number = itertools.count()
_instances: list[duckdb.DuckDBPyConnection] = []
"""The newest is used: one in which a write failed for good is of no use to the next test."""


class Attached:
    """As a connection of DuckDB's to that file, as far as catalogs use one."""

    def __init__(self, path: str, config: Mapping[str, Any]) -> None:
        self._path, self._closed = path, False
        with _lock:
            if path not in _names:
                _names[path] = _attach(path, config)
            _open[path] = _open.get(path, 0) + 1
            self._own = self.cursor()

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> duckdb.DuckDBPyConnection:
        return self._own.execute(sql, parameters)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        cursor = _instances[-1].cursor()
        cursor.execute(f"USE {_names[self._path]}")
        return cursor

    def close(self) -> None:
        with _lock:
            if self._closed:
                return
            self._closed = True
            self._own.close()
            _open[self._path] -= 1
            if not _open[self._path]:
                _instances[-1].execute(f"DETACH {_names.pop(self._path)}")


def _attach(path: str, config: Mapping[str, Any]) -> str:
    name = f"catalog_{next(_number)}"
    for _ in range(2):
        if not _instances:
            _instances.append(duckdb.connect(":memory:", config=dict(config)))
            _instances[-1].execute("PRAGMA disable_checkpoint_on_shutdown")  # nor when a file is detached
        try:
            _instances[-1].execute(f"ATTACH '{path}' AS {name}")
        except duckdb.FatalException:
            _instances.clear()
            continue
        return name
    raise AssertionError("DuckDB takes no file any more")


def _connect(path: str, config: Mapping[str, Any]) -> Attached | duckdb.DuckDBPyConnection:
    if any(folder in _folders for folder in map(str, Path(path).parents)):
        return Attached(path, config)
    return duckdb.connect(path, config=dict(config))


def attach_in(folder: Path) -> None:
    """From now on the catalog in this folder is attached where it is opened."""
    _folders.add(str(folder))


@contextlib.contextmanager
def catalog_in(folder: Path) -> Iterator[None]:
    """Meanwhile the catalog in this folder is attached where it is opened."""
    _folders.add(str(folder))
    try:
        yield
    finally:
        _folders.discard(str(folder))


_seen = SimpleNamespace(**{name: getattr(duckdb, name) for name in dir(duckdb)} | {"connect": _connect})
for _module in (schema, database):
    _module.duckdb = _seen  # type: ignore[attr-defined]
