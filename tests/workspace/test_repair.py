"""A log that a crash has torn: nothing that was whole is lost, nothing is deleted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from speciate.errors import SpeciateError
from speciate.workspace.repair import salvage_catalog
from speciate.workspace.workspace import Workspace

pytestmark = pytest.mark.durable

_KEYS = "SELECT count(*) FROM meta WHERE key LIKE 'k%'"
_WRITER = """
import os, sys
from pathlib import Path
from speciate.workspace.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
for number in range(100):
    workspace.database.transact(lambda tx: tx.execute("INSERT INTO meta VALUES (?, 'x')", [f"k{number}"]))
os._exit(9)
"""


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose owner died after a hundred commits; all of them are in the log alone."""
    root = tmp_path_factory.mktemp("left") / "workspace"
    process = subprocess.run([sys.executable, "-c", _WRITER, str(root)], check=False)
    assert process.returncode == 9
    assert (root / "catalog.duckdb.wal").stat().st_size > 2000
    return root


@pytest.fixture
def crashed(left: Path, tmp_path: Path) -> Path:
    """A copy, to be opened and damaged."""
    return Path(shutil.copytree(left, tmp_path / "workspace"))


def kept_keys(root: Path) -> tuple[int, Path | None]:
    workspace = Workspace(root)
    ((count,),) = workspace.database.read(_KEYS)
    workspace.close()
    return count, workspace.salvaged


def test_after_a_kill_everything_acknowledged_is_there(crashed: Path) -> None:
    assert kept_keys(crashed) == (100, None)


def test_an_incomplete_tail_costs_only_the_commit_that_it_belonged_to(crashed: Path) -> None:
    log = crashed / "catalog.duckdb.wal"
    os.truncate(log, log.stat().st_size - 7)
    count, kept = kept_keys(crashed)
    assert count >= 98
    assert kept == crashed / "backups" / "torn-1"


@pytest.mark.parametrize(
    "place",
    [pytest.param(place, marks=pytest.mark.slow if at % 3 else ()) for at, place in enumerate(range(40, 4000, 331))],
)
def test_a_damaged_byte_costs_what_follows_it_and_both_files_are_kept(crashed: Path, place: int) -> None:
    log = crashed / "catalog.duckdb.wal"
    before = bytearray(log.read_bytes())
    before[-place] ^= 0xFF
    log.write_bytes(before)
    count, kept = kept_keys(crashed)
    assert 60 <= count < 100
    assert kept == crashed / "backups" / "torn-1"
    assert (kept / "catalog.duckdb.wal").read_bytes() == before
    assert (kept / "catalog.duckdb").exists()


def test_zeros_where_the_last_block_should_be_cost_little(crashed: Path) -> None:
    log = crashed / "catalog.duckdb.wal"
    with log.open("r+b") as file:
        file.seek(-200, os.SEEK_END)
        file.write(bytes(200))
    count, _ = kept_keys(crashed)
    assert count >= 90


def test_a_catalog_beyond_repair_is_left_as_it_is(crashed: Path) -> None:
    catalog = crashed / "catalog.duckdb"
    catalog.write_bytes(b"garbage" * 10_000)
    with pytest.raises(SpeciateError, match="speciate rebuild"):
        salvage_catalog(catalog)
    assert catalog.read_bytes().startswith(b"garbage")
