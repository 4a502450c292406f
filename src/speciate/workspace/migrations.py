"""Brings a catalog to this version's schema: checkpoint, DDL, checkpoint, so that DDL is never in a replayed log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import duckdb

from speciate.errors import Code, SpeciateError
from speciate.faults import fault
from speciate.workspace import storage
from speciate.workspace.schema import TABLES, VERSION

Migration = Callable[[duckdb.DuckDBPyConnection], None]


def _parts_and_tags(connection: duckdb.DuckDBPyConnection) -> None:
    """1 -> 2: tags of dataset versions; a manifest lists parts where it listed files, all of whose rows it held.

    The first catalogs of version 1 had neither plans nor estimates of jobs.
    """
    connection.execute("ALTER TABLE jobs ADD COLUMN IF NOT EXISTS estimate DOUBLE")
    connection.execute("CREATE TABLE IF NOT EXISTS job_plans (job VARCHAR PRIMARY KEY, plan VARCHAR NOT NULL)")
    connection.execute(
        "CREATE TABLE dataset_tags (name VARCHAR NOT NULL, tag VARCHAR NOT NULL, version INTEGER NOT NULL, "
        "PRIMARY KEY (name, tag))"
    )
    for name, version, text in connection.execute("SELECT name, version, manifest FROM dataset_versions").fetchall():
        manifest = json.loads(text)
        (file,) = manifest.pop("files")
        manifest["parts"] = [{"file": file, "rows": manifest["rows"], "removed": None, "gone": 0}]
        connection.execute(
            "UPDATE dataset_versions SET manifest = ? WHERE name = ? AND version = ?",
            [json.dumps(manifest), name, version],
        )


def _consents(connection: duckdb.DuckDBPyConnection) -> None:
    """2 -> 3: what a person allowed to leave the machine, and what was spent there."""
    connection.execute(
        "CREATE TABLE consents (dataset VARCHAR NOT NULL, host VARCHAR NOT NULL, usd_cap DOUBLE NOT NULL, "
        "granted DOUBLE NOT NULL, expires DOUBLE, granted_by VARCHAR NOT NULL, PRIMARY KEY (dataset, host))"
    )
    connection.execute(
        "CREATE TABLE spending (dataset VARCHAR NOT NULL, host VARCHAR NOT NULL, job VARCHAR NOT NULL, "
        "usd DOUBLE NOT NULL, stamp DOUBLE NOT NULL, PRIMARY KEY (dataset, host, job))"
    )


def _canaries(connection: duckdb.DuckDBPyConnection) -> None:
    """3 -> 4: an alias may have a share of the requests."""
    connection.execute("ALTER TABLE aliases ADD COLUMN percent DOUBLE")


def _tool_calls(connection: duckdb.DuckDBPyConnection) -> None:
    """4 -> 5: how often tools were called."""
    connection.execute(
        "CREATE TABLE tool_calls (use_case VARCHAR NOT NULL, tool VARCHAR NOT NULL, hour BIGINT NOT NULL, "
        "calls BIGINT NOT NULL, PRIMARY KEY (use_case, tool, hour))"
    )


def _approval_keys(connection: duckdb.DuckDBPyConnection) -> None:
    """5 -> 6: keys of people who sign what they decide."""
    connection.execute(
        "CREATE TABLE approval_keys (fingerprint VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, kind VARCHAR NOT NULL, "
        "public VARCHAR NOT NULL, enrolled DOUBLE NOT NULL, revoked DOUBLE)"
    )


# Number n takes a catalog from version n to n + 1. Append only; a released one never changes.
MIGRATIONS: dict[int, Migration] = {1: _parts_and_tags, 2: _consents, 3: _canaries, 4: _tool_calls, 5: _approval_keys}


def migrate(path: Path, check: Callable[[duckdb.DuckDBPyConnection], None] | None = None) -> int:
    """Create the catalog or bring it up to date; return the version it had before (0: new).

    `check` sees it before anything is changed, and may refuse it. Raises SpeciateError NEWER_SCHEMA for a catalog of a
    later release, UNAVAILABLE where another process holds it, DAMAGED where a block of it is not what was written.
    """
    connection = _connect(path)
    try:
        found = _version(connection)
        if found > VERSION:
            raise SpeciateError(
                Code.NEWER_SCHEMA,
                f"{path} has schema {found}, but this speciate knows up to {VERSION}.",
                "Install the newer speciate that wrote it: pip install -U speciate",
            )
        if check:
            check(connection)
        if found < VERSION:
            connection.execute("CHECKPOINT")
            connection.execute("BEGIN")
            if found == 0:
                connection.execute(TABLES)
            for number in range(found or VERSION, VERSION):
                MIGRATIONS[number](connection)
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", [str(VERSION)])
            fault("migrate_before_commit")
            connection.execute("COMMIT")
            fault("migrate_after_commit")
            connection.execute("CHECKPOINT")
        return found
    except duckdb.Error as error:
        if (said := storage.explained(error, path.parent)) is not None:
            raise said from error
        raise
    finally:
        connection.close()


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(str(path))
    except duckdb.Error as error:
        if isinstance(error, duckdb.IOException) and "lock" in str(error).lower():
            raise SpeciateError(
                Code.UNAVAILABLE,
                f"{path} is held by another process.",
                "One daemon owns a workspace; reach it through `speciate call` or `speciate serve`.",
            ) from error
        if (said := storage.explained(error, path.parent)) is not None:
            raise said from error
        raise SpeciateError(
            Code.INVALID,
            f"{path} cannot be opened as a catalog: {str(error).splitlines()[0]}",
            "Point --workspace at a speciate folder, or restore one with `speciate rebuild`.",
        ) from error


def _version(connection: duckdb.DuckDBPyConnection) -> int:
    tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    if not tables:
        return 0
    if ("meta",) not in tables:
        raise SpeciateError(
            Code.INVALID, "This DuckDB file is not a speciate catalog.", "Point --workspace at another folder."
        )
    rows = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchall()
    return int(rows[0][0]) if rows else 0
