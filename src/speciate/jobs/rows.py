"""Jobs to rows of the catalog and back, many at a time: one statement for a whole batch."""

from __future__ import annotations

import json
from collections.abc import Sequence

from speciate.jobs.job import Job, Limits, Resources, State
from speciate.workspace.database import Database, Row, Transaction

_COLUMNS = {
    "id": "VARCHAR", "key": "VARCHAR", "fingerprint": "VARCHAR", "kind": "VARCHAR", "spec": "VARCHAR",
    "state": "VARCHAR", "attempt": "INTEGER", "priority": "INTEGER", "resources": "VARCHAR",
    "estimate": "DOUBLE", "limits": "VARCHAR", "not_before": "DOUBLE", "parent": "VARCHAR", "step": "VARCHAR",
    "use_case": "VARCHAR", "executor": "VARCHAR", "handle": "VARCHAR", "request": "VARCHAR", "request_at": "DOUBLE",
    "retries": "INTEGER", "shrinks": "INTEGER", "losses": "INTEGER", "run_seconds": "DOUBLE", "reason": "VARCHAR",
    "result": "VARCHAR", "error": "VARCHAR", "created": "DOUBLE", "changed": "DOUBLE", "started": "DOUBLE",
    "ended": "DOUBLE",
}  # fmt: skip
_JSON = {"spec", "handle", "result", "error"}
_FIXED = {
    "id", "key", "fingerprint", "kind", "spec", "priority", "estimate", "limits", "parent", "step", "executor",
    "created",
}  # fmt: skip
_CHANGING = [name for name in _COLUMNS if name not in _FIXED]
_NAMES = ", ".join(_COLUMNS)
_RESOURCES, _LIMITS = Resources(), Limits()
_RESOURCES_TEXT, _LIMITS_TEXT = _RESOURCES.model_dump_json(), _LIMITS.model_dump_json()


def _marks(names: Sequence[str]) -> str:
    return ", ".join(["?"] * len(names))


def _unnest(names: Sequence[str]) -> str:
    return ", ".join(f"unnest(?::{_COLUMNS[name]}[]) AS {name}" for name in names)


_INSERT = f"INSERT INTO jobs ({_NAMES}) SELECT {_unnest(list(_COLUMNS))}"
_UPDATE = f"""
UPDATE jobs SET {", ".join(f"{name} = new.{name}" for name in _CHANGING)}
FROM (SELECT {_unnest(["id", *_CHANGING])}) new WHERE jobs.id = new.id
"""
_SELECT = f"SELECT {_NAMES} FROM jobs"
# Of one job DuckDB plans these in half the time.
_UPDATE_ONE = f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in _CHANGING)} WHERE id = ?"
_BY_ONE_ID = f"{_SELECT} WHERE id = ?"
_BY_ID = f"{_SELECT} WHERE id IN (SELECT unnest(?::VARCHAR[]))"
_BY_PARENT = f"{_SELECT} WHERE parent IN (SELECT unnest(?::VARCHAR[])) ORDER BY created, id"


def _cell(job: Job, name: str) -> object:
    value = getattr(job, name)
    if name in _JSON:
        return None if value is None else json.dumps(value)
    if name == "resources":
        return _RESOURCES_TEXT if value == _RESOURCES else value.model_dump_json()
    if name == "limits":
        return _LIMITS_TEXT if value == _LIMITS else value.model_dump_json()
    return value


def _job(row: Row) -> Job:
    values = dict(zip(_COLUMNS, row, strict=True))
    for name in _JSON:
        values[name] = None if values[name] is None else json.loads(values[name])
    values["state"] = State(values["state"])
    values["resources"] = Resources.model_validate_json(values["resources"])
    values["limits"] = Limits.model_validate_json(values["limits"])
    return Job.model_construct(**values)  # it was validated when it was written


def insert(tx: Transaction, jobs: Sequence[Job]) -> None:
    if len(jobs) == 1:
        cells = {name: cell for name in _COLUMNS if (cell := _cell(jobs[0], name)) is not None}
        tx.execute(f"INSERT INTO jobs ({', '.join(cells)}) VALUES ({_marks([*cells])})", [*cells.values()])
    else:
        tx.execute(_INSERT, [[_cell(job, name) for job in jobs] for name in _COLUMNS])


def update(tx: Transaction, jobs: Sequence[Job]) -> None:
    if len(jobs) == 1:
        tx.execute(_UPDATE_ONE, [_cell(jobs[0], name) for name in [*_CHANGING, "id"]])
    else:
        tx.execute(_UPDATE, [[_cell(job, name) for job in jobs] for name in ["id", *_CHANGING]])


def by_id(source: Transaction | Database, ids: Sequence[str]) -> dict[str, Job]:
    rows = source.read(_BY_ONE_ID, [ids[0]]) if len(ids) == 1 else source.read(_BY_ID, [ids])
    return {row[0]: _job(row) for row in rows}


class Reader:
    """Jobs by one condition, read over and over: a row that has not changed is the same `Job`."""

    def __init__(self, where: str) -> None:
        self._sql = f"{_SELECT} WHERE {where} ORDER BY created, id"
        self._known: dict[str, tuple[Row, Job]] = {}

    def read(self, database: Database) -> list[Job]:
        known = self._known
        found = {
            row[0]: old if (old := known.get(row[0])) is not None and old[0] == row else (row, _job(row))
            for row in database.read(self._sql)
        }
        self._known = found
        return [job for _, job in found.values()]


def children_of(source: Transaction | Database, parents: Sequence[str]) -> list[Job]:
    return [_job(row) for row in source.read(_BY_PARENT, [parents])]


def select(database: Database, where: str, parameters: Sequence[object], order: str = "created, id") -> list[Job]:
    """Jobs by a condition that this package writes; never text from outside."""
    return [_job(row) for row in database.read(f"{_SELECT} WHERE {where} ORDER BY {order}", parameters)]
