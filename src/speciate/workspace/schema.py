"""The whole schema of the catalog, as a new workspace gets it, and the migrations that bring older ones here.

A migration is checkpoint, DDL, checkpoint, so that DDL is never in a replayed log."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb

from speciate.errors import Code, SpeciateError
from speciate.faults import fault
from speciate.workspace import filesystem

VERSION = 8

CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 2,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
}
"""Settings of every connection that opens a catalog to work with it. Those of one process share what DuckDB loaded."""

TABLES = """
CREATE TABLE meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);

-- Append-only and dense: the notification feed and the trail of every change of state.
CREATE TABLE events (
    seq     BIGINT NOT NULL,
    stamp   DOUBLE NOT NULL,
    subject VARCHAR NOT NULL,          -- 'job-7f3k...', 'use_case:NAME', 'dataset:NAME', 'model:NAME'
    type    VARCHAR NOT NULL,          -- 'job.running', 'use_case.created', 'alias.moved' ...
    data    VARCHAR NOT NULL
);

CREATE TABLE jobs (
    id          VARCHAR PRIMARY KEY,
    key         VARCHAR,               -- the caller's idempotency key
    fingerprint VARCHAR NOT NULL,      -- sha256 of kind and spec: the same key with another one is refused
    kind        VARCHAR NOT NULL,
    spec        VARCHAR NOT NULL,
    state       VARCHAR NOT NULL,
    attempt     INTEGER NOT NULL,      -- 0 before the first run
    priority    INTEGER NOT NULL,
    resources   VARCHAR NOT NULL,
    estimate    DOUBLE,                -- run time in seconds as planned at the call; NULL where nothing was known
    limits      VARCHAR NOT NULL,
    not_before  DOUBLE NOT NULL,
    parent      VARCHAR,               -- the composite that asked for it
    step        VARCHAR,
    use_case    VARCHAR,
    executor    VARCHAR NOT NULL,
    handle      VARCHAR,               -- what the executor needs to find the run again
    request     VARCHAR,               -- NULL, 'cancel', 'pause', 'hold' or 'stop': asked of a run that still lives
    request_at  DOUBLE,
    retries     INTEGER NOT NULL,      -- retries used up in this life of the job
    shrinks     INTEGER NOT NULL,      -- how many of the retries were for want of memory
    losses      INTEGER NOT NULL,      -- runs lost to a kill since there was last progress
    run_seconds DOUBLE NOT NULL,       -- of all attempts together, without queueing and pauses
    reason      VARCHAR,               -- why it is in this state, in a sentence
    result      VARCHAR,
    error       VARCHAR,               -- {class, message, recovery}
    created     DOUBLE NOT NULL,
    changed     DOUBLE NOT NULL,
    started     DOUBLE,                -- of the newest attempt
    ended       DOUBLE
);
-- What a job's plan resolved, once: every attempt works on the same data.
CREATE TABLE job_plans (job VARCHAR PRIMARY KEY, plan VARCHAR NOT NULL);
CREATE TABLE job_needs (job VARCHAR NOT NULL, needs VARCHAR NOT NULL);

-- Answers of calls that change something without a job, by the caller's idempotency key.
CREATE TABLE answers (
    key VARCHAR PRIMARY KEY, tool VARCHAR NOT NULL, fingerprint VARCHAR NOT NULL, answer VARCHAR NOT NULL,
    stamp DOUBLE NOT NULL
);

CREATE TABLE use_cases (
    name VARCHAR NOT NULL, version INTEGER NOT NULL, spec VARCHAR NOT NULL, state VARCHAR NOT NULL,
    created DOUBLE NOT NULL, PRIMARY KEY (name, version)
);

CREATE TABLE dataset_versions (
    name VARCHAR NOT NULL, version INTEGER NOT NULL,
    id        VARCHAR NOT NULL,        -- sha256 of the rows' multiset hash
    lanes     BLOB NOT NULL,           -- the multiset hash itself: 1,024 x uint16, for cheap successors
    manifest  VARCHAR NOT NULL,        -- datasets.versions.Manifest
    parents   VARCHAR NOT NULL,
    operation VARCHAR NOT NULL,        -- {op, ...parameters} that made it
    report    VARCHAR NOT NULL,
    job       VARCHAR,
    created   DOUBLE NOT NULL, PRIMARY KEY (name, version)
);

CREATE TABLE dataset_tags (
    name VARCHAR NOT NULL, tag VARCHAR NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (name, tag)
);

CREATE TABLE model_versions (
    name VARCHAR NOT NULL, version INTEGER NOT NULL,
    id      VARCHAR NOT NULL,          -- sha256 of the manifest of every file
    card    VARCHAR NOT NULL,          -- models.registry.Card
    job     VARCHAR,
    created DOUBLE NOT NULL, PRIMARY KEY (name, version)
);

CREATE TABLE evaluations (
    id VARCHAR PRIMARY KEY, use_case VARCHAR, dataset VARCHAR NOT NULL, models VARCHAR NOT NULL,
    report VARCHAR NOT NULL,           -- evaluation.report.Report
    job VARCHAR, created DOUBLE NOT NULL
);

CREATE TABLE decisions (
    id VARCHAR PRIMARY KEY, use_case VARCHAR NOT NULL, use_case_version INTEGER NOT NULL, evaluation VARCHAR NOT NULL,
    candidate VARCHAR NOT NULL, baseline VARCHAR NOT NULL, verdict VARCHAR NOT NULL, evidence VARCHAR NOT NULL,
    created DOUBLE NOT NULL
);

-- Rows that evaluations judged, equal ones once (evaluation/judged_rows.py), and who judged which. `facet`: '' are the
-- rows themselves with their references in `target`, `column:NAME` is what a column of answers said of them.
CREATE TABLE suites (id VARCHAR PRIMARY KEY, size BIGINT NOT NULL, packed BLOB NOT NULL);
CREATE TABLE judged_suites (
    evaluation VARCHAR NOT NULL, facet VARCHAR NOT NULL, suite VARCHAR NOT NULL, target VARCHAR,
    PRIMARY KEY (evaluation, facet)
);
-- Who was scored on them. `role`: candidate, baseline or incumbent.
CREATE TABLE judged_models (
    evaluation VARCHAR NOT NULL, model VARCHAR NOT NULL, role VARCHAR NOT NULL, PRIMARY KEY (evaluation, model)
);

-- The only mutable pointers. `generation` is what a compare-and-swap compares.
CREATE TABLE aliases (
    use_case VARCHAR NOT NULL, alias VARCHAR NOT NULL, model VARCHAR NOT NULL, generation BIGINT NOT NULL,
    changed DOUBLE NOT NULL,
    percent DOUBLE,                    -- of a canary: its share of the requests
    PRIMARY KEY (use_case, alias)
);

-- Each row carries the hash of the one before it: a removed or edited row breaks the chain.
CREATE TABLE audit (
    seq BIGINT NOT NULL, stamp DOUBLE NOT NULL, actor VARCHAR NOT NULL, action VARCHAR NOT NULL,
    use_case VARCHAR NOT NULL, before VARCHAR, after VARCHAR, evidence VARCHAR NOT NULL,
    previous_hash VARCHAR NOT NULL, hash VARCHAR NOT NULL
);

CREATE TABLE approvals (
    id VARCHAR PRIMARY KEY, action VARCHAR NOT NULL, arguments VARCHAR NOT NULL, evidence VARCHAR NOT NULL,
    hash VARCHAR NOT NULL, state VARCHAR NOT NULL, created DOUBLE NOT NULL, expires DOUBLE NOT NULL,
    decided_by VARCHAR, decided_at DOUBLE
);

-- Public halves of people's keys. Which are in force says the audit (governance/approval_keys.py); this is for reading.
CREATE TABLE approval_keys (
    fingerprint VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, kind VARCHAR NOT NULL, public VARCHAR NOT NULL,
    enrolled DOUBLE NOT NULL, revoked DOUBLE
);

-- What a person allowed to leave this machine: examples of a dataset, for a host, up to a sum since it was granted.
CREATE TABLE consents (
    dataset VARCHAR NOT NULL, host VARCHAR NOT NULL, usd_cap DOUBLE NOT NULL, granted DOUBLE NOT NULL, expires DOUBLE,
    granted_by VARCHAR NOT NULL, PRIMARY KEY (dataset, host)
);
-- What answers about a dataset cost at a host, by the job that asked.
CREATE TABLE spending (
    dataset VARCHAR NOT NULL, host VARCHAR NOT NULL, job VARCHAR NOT NULL, usd DOUBLE NOT NULL, stamp DOUBLE NOT NULL,
    PRIMARY KEY (dataset, host, job)
);

-- How often tools were called about a use case ('': about none), per hour since the epoch: names and numbers alone.
CREATE TABLE tool_calls (
    use_case VARCHAR NOT NULL, tool VARCHAR NOT NULL, hour BIGINT NOT NULL, calls BIGINT NOT NULL,
    PRIMARY KEY (use_case, tool, hour)
);
"""

_WATCHES = """
-- Watches (loop/watch/): the definition, and the one row that a tick changes.
CREATE TABLE watches (
    use_case VARCHAR PRIMARY KEY, definition VARCHAR NOT NULL, enabled BOOLEAN NOT NULL, asked DOUBLE,
    created DOUBLE NOT NULL, changed DOUBLE NOT NULL, actor VARCHAR NOT NULL
);
CREATE TABLE watch_states (use_case VARCHAR PRIMARY KEY, memory VARCHAR NOT NULL, turn BIGINT NOT NULL);
-- Looks, by run: a quiet month is one row.
CREATE TABLE watch_ticks (
    use_case VARCHAR NOT NULL, number BIGINT NOT NULL, first DOUBLE NOT NULL, last DOUBLE NOT NULL,
    times BIGINT NOT NULL, state VARCHAR NOT NULL, because VARCHAR NOT NULL, fired VARCHAR NOT NULL,
    PRIMARY KEY (use_case, number)
);
-- Causes that an episode began with or was joined by; evidence is ids and numbers alone.
CREATE TABLE watch_triggers (
    use_case VARCHAR NOT NULL, episode BIGINT NOT NULL, kind VARCHAR NOT NULL, fingerprint VARCHAR NOT NULL,
    stamp DOUBLE NOT NULL, cause VARCHAR NOT NULL, evidence VARCHAR NOT NULL, gain DOUBLE, minutes DOUBLE NOT NULL,
    labels BIGINT NOT NULL, PRIMARY KEY (use_case, episode, fingerprint)
);
-- Jobs that a tick decided on, until they are submitted by their key.
CREATE TABLE watch_outbox (
    key VARCHAR PRIMARY KEY, use_case VARCHAR NOT NULL, kind VARCHAR NOT NULL, spec VARCHAR NOT NULL,
    problem VARCHAR                    -- why it could not be submitted, in our words
);
CREATE TABLE episodes (
    use_case VARCHAR NOT NULL, number BIGINT NOT NULL, begun DOUBLE NOT NULL, ended DOUBLE, causes VARCHAR NOT NULL,
    outcome VARCHAR, because VARCHAR, model VARCHAR, smallest_gain DOUBLE, PRIMARY KEY (use_case, number)
);
-- Which answers an episode asked people about, and by which draw.
CREATE TABLE label_requests (
    use_case VARCHAR NOT NULL, episode BIGINT NOT NULL, prediction VARCHAR NOT NULL, drawn VARCHAR NOT NULL,
    asked DOUBLE NOT NULL, PRIMARY KEY (use_case, prediction)
);
"""
TABLES += _WATCHES


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


def _judged_rows(connection: duckdb.DuckDBPyConnection) -> None:
    """6 -> 7: the rows that evaluations judged, and who was scored on them."""
    connection.execute("CREATE TABLE suites (id VARCHAR PRIMARY KEY, size BIGINT NOT NULL, packed BLOB NOT NULL)")
    connection.execute(
        "CREATE TABLE judged_suites (evaluation VARCHAR NOT NULL, facet VARCHAR NOT NULL, suite VARCHAR NOT NULL, "
        "target VARCHAR, PRIMARY KEY (evaluation, facet))"
    )
    connection.execute(
        "CREATE TABLE judged_models (evaluation VARCHAR NOT NULL, model VARCHAR NOT NULL, role VARCHAR NOT NULL, "
        "PRIMARY KEY (evaluation, model))"
    )


def _watches(connection: duckdb.DuckDBPyConnection) -> None:
    """7 -> 8: watches, with all that their episodes did."""
    connection.execute(_WATCHES)


MIGRATIONS: dict[int, Migration] = {
    1: _parts_and_tags, 2: _consents, 3: _canaries, 4: _tool_calls, 5: _approval_keys, 6: _judged_rows, 7: _watches,
}  # fmt: skip
"""Number n takes a catalog from version n to n + 1. Append only; a released migration never changes."""


def migrate(path: Path, check: Callable[[duckdb.DuckDBPyConnection], None] | None = None) -> int:
    """Create the catalog or bring it up to date; return the version it had before (0: new). Raises as `opened`."""
    with opened(path, check) as found:
        return found


@contextlib.contextmanager
def opened(path: Path, check: Callable[[duckdb.DuckDBPyConnection], None] | None = None) -> Iterator[int]:
    """Create the catalog or bring it up to date, and keep it open meanwhile: another connection then costs nothing.
    Yields the version it had before (0: new).

    `check` sees it before anything is changed, and may refuse it. Raises SpeciateError NEWER_SCHEMA for a catalog of a
    later release, UNAVAILABLE where another process holds it, DAMAGED where a block of it is not what was written.
    """
    connection = _connect(path)
    try:
        try:
            found = _bring_up(connection, path, check)
        except duckdb.Error as error:
            if (refusal := filesystem.explain(error, path.parent)) is not None:
                raise refusal from error
            raise
        yield found
    finally:
        connection.close()


def _bring_up(
    connection: duckdb.DuckDBPyConnection, path: Path, check: Callable[[duckdb.DuckDBPyConnection], None] | None
) -> int:
    replayed = path.with_name(f"{path.name}.wal").exists()
    found = _version(connection)
    if found > VERSION:
        raise SpeciateError(
            Code.NEWER_SCHEMA,
            f"{path} has schema {found}, but this speciate knows up to {VERSION}.",
            "Install the newer speciate that wrote it: pip install -U speciate",
        )
    if check:
        check(connection)
    if found < VERSION or replayed:
        connection.execute("CHECKPOINT")
    if found < VERSION:
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


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(str(path), config=CONFIG)
    except duckdb.Error as error:
        if isinstance(error, duckdb.IOException) and "lock" in str(error).lower():
            raise SpeciateError(
                Code.UNAVAILABLE,
                f"{path} is held by another process.",
                "One daemon owns a workspace; reach it through `speciate call` or `speciate serve`.",
            ) from error
        if (refusal := filesystem.explain(error, path.parent)) is not None:
            raise refusal from error
        raise SpeciateError(
            Code.INVALID,
            f"{path} cannot be opened as a catalog: {str(error).splitlines()[0]}",
            "Point --workspace at a speciate folder, or restore one with `speciate rebuild`.",
        ) from error


def _version(connection: duckdb.DuckDBPyConnection) -> int:
    with contextlib.suppress(duckdb.CatalogException):  # a list of the tables costs ten times as much
        rows = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchall()
        return int(rows[0][0]) if rows else 0
    tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    if not tables:
        return 0
    raise SpeciateError(
        Code.INVALID, "This DuckDB file is not a speciate catalog.", "Point --workspace at another folder."
    )
