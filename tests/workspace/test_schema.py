"""Catalogs of every older schema, as it was then (`schemas/`), full of rows: nothing is lost, and queries work.

The rows are made from the tables themselves, so a table or column that comes to a schema is in them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pytest

from speciate import use_cases
from speciate.datasets import versions
from speciate.errors import Code, SpeciateError
from speciate.governance import approvals, audit
from speciate.jobs.engine import Engine
from speciate.jobs.job import State
from speciate.jobs.kinds import Kinds
from speciate.models import registry
from speciate.promotion import aliases
from speciate.settings import Settings
from speciate.workspace import catalog_identity
from speciate.workspace.schema import MIGRATIONS, TABLES, VERSION
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.jobs.work import KINDS

pytestmark = pytest.mark.durable

SCHEMAS = sorted(Path(__file__).with_name("schemas").glob("*.sql"))
_ROWS = 3
_COLUMNS = "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index"
_NAMES = "SELECT table_name FROM duckdb_tables() ORDER BY table_name"
Table = tuple[list[str], list[tuple[Any, ...]]]


def _known(version: int, row: int) -> dict[tuple[str, str], Any]:
    """Cells that a reader takes apart; everything else is made up from its column's type."""
    manifest = {
        "name": "notes", "version": row, "id": f"id{row}", "modality": "text", "columns": {"text": "VARCHAR"}, "rows": 5
    }  # fmt: skip
    file = f"datasets/notes/{row:032x}.parquet"
    manifest |= (
        {"files": [file]} if version == 1 else {"parts": [{"file": file, "rows": 5, "removed": None, "gone": 0}]}
    )
    card = {"name": "m", "version": row, "id": f"m{row}", "method": "classical"}
    spec = {"name": "triage", "task": "text-classification"}
    spec |= {"objective": {"metric": "accuracy", "target": 0.9}}
    return {
        ("dataset_versions", "name"): "notes", ("dataset_versions", "version"): row,
        ("dataset_versions", "manifest"): json.dumps(manifest), ("dataset_versions", "parents"): "[]",
        ("dataset_versions", "operation"): '{"op": "ingest"}', ("dataset_versions", "report"): "{}",
        ("model_versions", "name"): "m", ("model_versions", "version"): row,
        ("model_versions", "card"): json.dumps(card),
        ("use_cases", "name"): "triage", ("use_cases", "version"): row, ("use_cases", "spec"): json.dumps(spec),
        ("use_cases", "state"): "active",
        ("jobs", "id"): f"job-{row}", ("jobs", "kind"): "work", ("jobs", "state"): "queued", ("jobs", "attempt"): 0,
        ("jobs", "spec"): "{}", ("jobs", "resources"): "{}", ("jobs", "limits"): "{}", ("jobs", "executor"): "local",
        ("jobs", "result"): None, ("jobs", "error"): None, ("jobs", "handle"): None, ("jobs", "request"): None,
        ("jobs", "request_at"): None, ("jobs", "parent"): None, ("jobs", "ended"): None, ("jobs", "use_case"): None,
        ("jobs", "not_before"): 0.0, ("jobs", "started"): None, ("job_plans", "plan"): '{"payload": {}}',
        ("aliases", "use_case"): "triage", ("aliases", "alias"): ["production", "previous", "canary"][row - 1],
        ("aliases", "model"): f"m@v{row}", ("events", "data"): "{}",
        ("approvals", "arguments"): "{}", ("approvals", "evidence"): "{}", ("approvals", "state"): "pending",
        ("audit", "evidence"): "{}", ("audit", "before"): None,
        ("meta", "key"): f"key{row}",
    }  # fmt: skip


def _cell(table: str, column: str, kind: str, row: int, known: dict[tuple[str, str], Any]) -> Any:
    if (table, column) in known:
        return known[table, column]
    if kind == "BLOB":
        return bytes([row]) * 2048
    return f"{table}.{column}.{row}" if kind == "VARCHAR" else row


def _make(root: Path, sql: str, version: int, rows: int = _ROWS) -> dict[str, Table]:
    """A catalog of that schema, full; what is in it."""
    root.mkdir()
    with duckdb.connect(str(root / "catalog.duckdb")) as connection:
        connection.execute(sql)
        connection.execute("BEGIN")
        for (table,) in connection.execute(_NAMES).fetchall():
            columns = connection.execute(_COLUMNS, [table]).fetchall()
            for row in range(1, rows + 1):
                known = _known(version, row)
                cells = [_cell(table, name, kind, row, known) for name, kind in columns]
                connection.execute(f'INSERT INTO "{table}" VALUES ({", ".join("?" * len(cells))})', cells)
        _chain(connection)
        connection.execute("INSERT INTO meta VALUES ('schema', ?)", [str(version)])
        connection.execute("COMMIT")
    return _content(root)


def _chain(connection: duckdb.DuckDBPyConnection) -> None:
    """Hashes of the audit as the code makes them: its columns never changed."""
    previous = "0" * 64
    for cells in connection.execute("SELECT * FROM audit ORDER BY seq").fetchall():
        row = audit.Row(*cells)._replace(previous_hash=previous)
        previous = audit.digest(row)
        connection.execute(
            "UPDATE audit SET previous_hash = ?, hash = ? WHERE seq = ?", [row.previous_hash, previous, row.seq]
        )


def _content(root: Path) -> dict[str, Table]:
    with duckdb.connect(str(root / "catalog.duckdb"), read_only=True) as connection:
        tables = [name for (name,) in connection.execute(_NAMES).fetchall()]
        found = {}
        for table in tables:
            columns = [name for name, _ in connection.execute(_COLUMNS, [table]).fetchall()]
            rows = connection.execute(f'SELECT * FROM "{table}"').fetchall()
            found[table] = columns, sorted(rows, key=repr)
        return found


def _missing(before: dict[str, Table], after: dict[str, Table]) -> list[str]:
    """What was there and is not there any more. A manifest's files became parts; meta may have got more rows."""
    gone = []
    for table, (columns, rows) in before.items():
        names, there = after[table]
        for row in rows:
            was = {name: _same(name, cell) for name, cell in zip(columns, row, strict=True)}
            now = [{name: _same(name, cell) for name, cell in zip(names, each, strict=True)} for each in there]
            if (table, was.get("key")) != ("meta", "schema") and not any(was.items() <= each.items() for each in now):
                gone.append(f"{table}: {was}")
    return gone


def _same(name: str, cell: Any) -> Any:
    if name != "manifest":
        return cell
    manifest = json.loads(cell)
    files = manifest.pop("files", None) or [part["file"] for part in manifest.pop("parts")]
    return json.dumps([files, manifest], sort_keys=True)


def _version(file: Path) -> int:
    return int(file.stem[0])


@cache
def _new() -> dict[str, list[str]]:
    """Tables and columns of a new catalog."""
    with duckdb.connect() as connection:
        connection.execute(TABLES)
        return {
            table: sorted(name for name, _ in connection.execute(_COLUMNS, [table]).fetchall())
            for (table,) in connection.execute(_NAMES).fetchall()
        }


_ON_THE_WAY = {"2", "3", "5", "6"}
"""Where the migrations of an older one pass by."""


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, id=file.stem, marks=pytest.mark.slow if file.stem in _ON_THE_WAY else ()) for file in SCHEMAS],
)
def test_it_becomes_a_new_one_nothing_is_lost_and_every_reader_works(
    file: Path, tmp_path: Path, clock: ManualClock
) -> None:
    before = _make(tmp_path / "w", file.read_text(), _version(file))
    workspace = Workspace(tmp_path / "w", clock, Settings(policy="auto"))
    database = workspace.database
    assert database.read("SELECT value FROM meta WHERE key = 'schema'") == [(str(VERSION),)]
    assert versions.version(database, "notes@v2").manifest.parts[0].rows == 5
    assert [card.ref for card in registry.versions(database, "m")] == ["m@v1", "m@v2", "m@v3"]
    assert use_cases.get(database, "triage").version == 3
    assert aliases.read(database, "triage") == aliases.by_use_case(database)["triage"]["production"]
    assert len(approvals.list_approvals(database, 0.0, approvals.PENDING)) == 3
    assert audit.verify(database).rows == 3
    assert not [problem for problem in audit.verify(database).problems if "was changed" in problem]
    engine = Engine(workspace, Kinds(extra=KINDS))
    assert {job.state for job in engine.list()} == {State.QUEUED}
    assert engine.control("job-2", "cancel").state is State.CANCELLED
    engine.submit("work", {})
    assert database.last_seq == 5, "the three of before, that one was cancelled, that one came"
    workspace.close()
    after = _content(tmp_path / "w")
    assert {table: sorted(columns) for table, (columns, _) in after.items()} == _new()
    assert [each for each in _missing(before, after) if "job-2" not in each] == []
    assert catalog_identity.read_anchor(tmp_path / "w") == catalog_identity.Anchor(workspace.identity, 5)
    Workspace(tmp_path / "w", clock, Settings()).close()


def test_every_older_schema_is_here_that_a_migration_begins_from() -> None:
    ours = {_version(file) for file in SCHEMAS}
    assert ours >= {1, 2, 3, 4}
    assert set(MIGRATIONS) == set(range(1, VERSION))


@pytest.mark.parametrize(
    ("file", "point"),
    [
        pytest.param(SCHEMAS[0], "migrate_before_commit", id="oldest-before"),
        pytest.param(SCHEMAS[-1], "migrate_after_commit", id="newest-after"),
        pytest.param(SCHEMAS[0], "migrate_after_commit", id="oldest-after", marks=pytest.mark.slow),
        pytest.param(SCHEMAS[-1], "migrate_before_commit", id="newest-before", marks=pytest.mark.slow),
    ],
)
def test_a_kill_in_the_middle_of_a_migration_costs_nothing(file: Path, point: str, tmp_path: Path) -> None:
    before = _make(tmp_path / "w", file.read_text(), _version(file))
    code = "import sys; from pathlib import Path; from speciate.workspace.workspace import Workspace; Workspace(Path(sys.argv[1]))"  # noqa: E501
    environment = os.environ | {"SPECIATE_FAULT": f"{point}:kill"}
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path / "w")], env=environment, check=False)
    assert process.returncode == -9
    Workspace(tmp_path / "w", settings=Settings()).close()
    after = _content(tmp_path / "w")
    assert _missing(before, after) == []
    assert ("schema", str(VERSION)) in after["meta"][1]


def test_a_newer_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    Workspace(tmp_path / "w", settings=Settings()).close()
    with duckdb.connect(str(tmp_path / "w" / "catalog.duckdb")) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema'", [str(VERSION + 1)])
    before = (tmp_path / "w" / "catalog.duckdb").read_bytes()
    with pytest.raises(SpeciateError, match=f"has schema {VERSION + 1}") as caught:
        Workspace(tmp_path / "w", settings=Settings())
    assert caught.value.code is Code.NEWER_SCHEMA
    assert (tmp_path / "w" / "catalog.duckdb").read_bytes() == before
