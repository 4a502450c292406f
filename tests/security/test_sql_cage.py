"""Attacks on the SQL cage. Each line of defence is also tried alone: the check, DuckDB's lock, the operating system."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from speciate.datasets.inspect import sql_sandbox
from speciate.datasets.inspect.query import query
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.sandbox import Limits, Sandbox, is_complete, start
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests import data

WRITES = (
    "COPY examples TO '{out}'",
    "COPY (SELECT 1) TO '{out}' (FORMAT csv, USE_TMP_FILE false)",
    "COPY (SELECT 1 AS id) TO '{sealed}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPORT DATABASE '{out}'",
    "ATTACH '{out}' AS other",
    "WITH x AS (INSERT INTO examples VALUES (1) RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM examples RETURNING *) SELECT * FROM x",
    "WITH x AS (UPDATE examples SET label = 'x' RETURNING *) SELECT * FROM x",
    "CREATE TABLE t AS SELECT 1",
    "INSERT INTO examples SELECT * FROM examples",
    "SELECT 1; COPY (SELECT 1) TO '{out}'",
)
READS = (
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM read_json('{secret}')",
    "SELECT * FROM read_parquet('{sealed}')",
    "SELECT * FROM parquet_metadata('{sealed}')",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM query('SELECT * FROM read_text(''{secret}'')')",
    "SELECT * FROM query_table('examples')",
    "SELECT (SELECT content FROM read_text('{secret}')) FROM examples",
    "SELECT * FROM examples WHERE id IN (SELECT content FROM read_text('{secret}'))",
    "WITH x AS (SELECT * FROM read_text('{secret}')) SELECT * FROM x",
    "SELECT * FROM examples, LATERAL (SELECT * FROM read_text('{secret}'))",
    "(SELECT content FROM read_text('{secret}')) UNION ALL (SELECT id FROM examples)",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM main.sqlite_master",
    "SELECT current_setting('allowed_paths')",
    "SELECT getenv('HOME')",
)
OTHERS = (
    "SET memory_limit = '64GB'",
    "RESET enable_external_access",
    "PRAGMA database_list",
    "CALL duckdb_tables()",
    "INSTALL httpfs",
    "LOAD httpfs",
    "DETACH memory",
    "CHECKPOINT",
    "SHOW TABLES",
    "DESCRIBE examples",
    "EXPLAIN ANALYZE SELECT 1",
    "PREPARE p AS SELECT 1",
    "VACUUM",
    "SELECT " + "(" * 5000 + "1" + ")" * 5000,
    "SELECT '" + "x" * 30_000 + "'",
)
ENDLESS = (
    "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r) SELECT count(*) FROM r",
    "SELECT count(*) FROM range(3000000) a JOIN range(3000000) b ON a.range < b.range",
    "SELECT count(*) FROM range(100000000000) a, range(100000000000) b WHERE a.range <> b.range + 1",
    "SELECT repeat('x', 4000000000)",
    "SELECT repeat('x', 1000000000)",
)
"""Only time ends them, so they get less of it than those that memory may end."""
LARGE = (
    "WITH RECURSIVE r AS (SELECT repeat('x', 1000) AS x UNION ALL SELECT x || x FROM r, examples) SELECT max(x) FROM r",
    "SELECT list(repeat('x', 1000000)) FROM range(100000)",
    "SELECT unnest(range(10000000000))",
    "SELECT string_agg(repeat('x', 1000000), '') FROM range(100000)",
)

OPEN_DUCKDB = """
import duckdb, sys
connection = duckdb.connect(config={"threads": 1})
connection.execute(f"CREATE VIEW examples AS SELECT * FROM read_parquet('{sys.argv[1]}')")
for sql in sys.argv[2:]:
    try:
        connection.execute(sql).fetchall()
        print("done", sql)
    except duckdb.Error:
        print("stopped")
"""

pytestmark = pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the sandbox")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, Manifest, Pool]]:
    workspace = Workspace(tmp_path_factory.mktemp("sql") / "workspace", settings=Settings())
    manifest = data.ingest(workspace, "reviews", rows=tuple(data.review_rows(20)), label="label")
    pool = Pool(workspace.folders, workspace.settings)
    yield workspace, manifest, pool
    pool.close()
    workspace.close()


class Attack:
    """Asks, then makes sure that nothing changed and that the next honest question is answered."""

    def __init__(self, world: tuple[Workspace, Manifest, Pool], folder: Path) -> None:
        self.workspace, self.manifest, self.pool = world
        self.out, self.secret = folder / "out", folder / "secret.txt"
        self.secret.write_text("a secret\n")
        self.sealed = self.workspace.folders.root / self.manifest.parts[0].file
        self.before = self._digest()

    def _digest(self) -> str:
        return hashlib.sha256(self.sealed.read_bytes()).hexdigest()

    def __call__(self, sql: str, timeout: float = 20.0, *, where: bool = False) -> SpeciateError:
        text = sql.format(out=self.out, secret=self.secret, sealed=self.sealed) if "{" in sql else sql
        words = {"where": text} if where else {"sql": text}
        with pytest.raises(SpeciateError) as refused:
            query(self.pool, self.workspace.folders, self.manifest, timeout=timeout, **words)
        assert not self.out.exists()
        assert self._digest() == self.before
        honest = query(self.pool, self.workspace.folders, self.manifest, sql="SELECT count(*) FROM examples")
        assert honest.rows == [[20]]
        return refused.value


@pytest.fixture
def attack(world: tuple[Workspace, Manifest, Pool], tmp_path: Path) -> Attack:
    return Attack(world, tmp_path)


@pytest.mark.parametrize("sql", [*WRITES, *READS, *OTHERS])
def test_a_query_only_reads_examples(attack: Attack, sql: str) -> None:
    refused = attack(sql)
    assert refused.code is Code.INVALID
    assert "a secret" not in refused.message
    assert "query_dataset" in refused.recovery


@pytest.mark.parametrize(
    "where",
    [
        "1 = 1) UNION ALL SELECT * FROM read_text('{secret}'",
        "id IN (SELECT content FROM read_text('{secret}'))",
        "true); COPY (SELECT 1) TO '{out}'; SELECT (1",
        "true /*",
    ],
)
def test_a_condition_cannot_break_out(attack: Attack, where: str) -> None:
    assert attack(where, where=True).code is Code.INVALID


@pytest.mark.parametrize(("sql", "timeout"), [*((sql, 0.5) for sql in ENDLESS), *((sql, 4.0) for sql in LARGE)])
def test_a_bomb_costs_a_process_at_most(attack: Attack, sql: str, timeout: float) -> None:
    refused = attack(sql, timeout=timeout)
    assert refused.code in (Code.INVALID, Code.UNAVAILABLE)
    assert refused.recovery


@pytest.mark.parametrize("sql", [*WRITES[:6], *READS[:9], *OTHERS[:2], *OTHERS[4:6]])
def test_duckdb_refuses_where_the_check_is_passed_over(
    attack: Attack, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second line: the same SQL straight on the locked connection, in this process."""
    text = sql.format(out=attack.out, secret=attack.secret, sealed=attack.out)
    with (
        sql_sandbox.open_locked([attack.sealed], f"read_parquet('{attack.sealed}')") as connection,
        pytest.raises(duckdb.Error),
    ):
        connection.execute(text).fetchall()
    assert not attack.out.exists()


def test_the_system_refuses_where_duckdb_is_open(attack: Attack, tmp_path: Path) -> None:
    """The first line: a DuckDB without any lock, in a sandbox like that of the pool."""
    attacks = [*WRITES[:5], *READS[:4]]
    texts = [sql.format(out=attack.out, secret=attack.secret, sealed=attack.sealed) for sql in attacks]
    (tmp_path / "own").mkdir()
    cage = Sandbox((attack.sealed.parent,), tmp_path / "own", Limits(memory_mb=1024))
    process = start([sys.executable, "-I", "-c", OPEN_DUCKDB, str(attack.sealed), *texts], cage)
    try:
        assert process.stdout.read().decode().splitlines() == ["stopped"] * len(attacks)
    finally:
        process.kill()
    assert not attack.out.exists()
    assert attack._digest() == attack.before
