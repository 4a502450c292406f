"""A process keeps the locked connections of the versions asked last: quicker, and never another answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from speciate.datasets import next_version, version_rows
from speciate.datasets.inspect import sql_sandbox
from speciate.datasets.inspect.sql_sandbox import VersionRequest, query
from speciate.datasets.next_version import SealedVersion
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.workspace.workspace import Folders
from tests.datasets.sealed import blank, rows


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path)
    made.make()
    return made


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[duckdb.DuckDBPyConnection]]:
    """The connections that were opened, in order. None is left to other tests."""
    made: list[duckdb.DuckDBPyConnection] = []
    open_locked = sql_sandbox.open_locked

    def remember(*arguments: Any) -> duckdb.DuckDBPyConnection:
        made.append(open_locked(*arguments))
        return made[-1]

    monkeypatch.setattr(sql_sandbox, "open_locked", remember)
    sql_sandbox._kept.clear()
    yield made
    sql_sandbox._kept.clear()


def seal(folders: Folders, *texts: str) -> SealedVersion:
    ids = [f"ex-{number}" for number in range(len(texts))]
    splits = ["train", "test"] * len(texts)
    table = rows({"id": ids, "text": list(texts), "split": splits[: len(texts)]})
    return next_version.seal_first(folders, table, blank("text", ["text"]))


def ask(folders: Folders, manifest: Manifest, sql: str, split: str | None = None) -> list[list[Any]]:
    request = VersionRequest(root=folders.root, manifest=manifest, sql=sql, split=split, limit=10)
    return query(request.model_dump(mode="json"))["rows"]


TEXTS = "SELECT text FROM examples ORDER BY text"


def test_versions_and_splits_have_connections_of_their_own(
    folders: Folders, opened: list[duckdb.DuckDBPyConnection]
) -> None:
    first = seal(folders, "a", "b")
    added = rows({"id": ["ex-9"], "text": ["c"], "split": ["test"]})
    second = next_version.seal_appended(folders, first.manifest, first.lanes, added)
    for _ in range(3):
        assert ask(folders, first.manifest, TEXTS) == [["a"], ["b"]]
        assert ask(folders, second.manifest, TEXTS) == [["a"], ["b"], ["c"]]
        assert ask(folders, second.manifest, TEXTS, "test") == [["b"], ["c"]]
    assert len(opened) == 3


def test_only_the_latest_are_kept(folders: Folders, opened: list[duckdb.DuckDBPyConnection]) -> None:
    versions = [seal(folders, f"text {number}").manifest for number in range(6)]
    for manifest in (*versions, versions[-1], versions[0]):
        ask(folders, manifest, TEXTS)
    assert len(opened) == 7  # the first one again
    assert len(sql_sandbox._kept) == sql_sandbox._MOST_KEPT
    with pytest.raises(duckdb.ConnectionException):
        opened[0].execute("SELECT 1")


@pytest.mark.parametrize(
    "sql",
    ["SELECT nothing FROM examples", "SELECT text::INT FROM examples", "SELECT * FROM read_text('/etc/passwd')", "x"],
)
def test_a_question_that_fails_leaves_no_connection(
    folders: Folders, opened: list[duckdb.DuckDBPyConnection], sql: str
) -> None:
    manifest = seal(folders, "a", "b").manifest
    assert ask(folders, manifest, TEXTS) == [["a"], ["b"]]
    with pytest.raises(SpeciateError):
        ask(folders, manifest, sql)
    assert not sql_sandbox._kept
    assert ask(folders, manifest, TEXTS) == [["a"], ["b"]]
    assert len(opened) == 2


def test_a_file_that_is_damaged_or_gone_between_two_questions_is_found(folders: Folders) -> None:
    manifest = seal(folders, "a", "b").manifest
    assert ask(folders, manifest, TEXTS) == [["a"], ["b"]]
    (file,) = version_rows.files(folders, manifest)
    whole = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    with pytest.raises(SpeciateError) as damaged:
        ask(folders, manifest, TEXTS)
    assert damaged.value.code is Code.DAMAGED
    file.write_bytes(whole)
    assert ask(folders, manifest, TEXTS) == [["a"], ["b"]]
    file.unlink()
    with pytest.raises(SpeciateError) as gone:
        ask(folders, manifest, TEXTS)
    assert gone.value.code is Code.NOT_FOUND


def test_a_kept_connection_stays_locked(folders: Folders) -> None:
    manifest = seal(folders, "a").manifest
    for _ in range(2):
        ask(folders, manifest, "SELECT setseed(0.5), text FROM examples")
    (kept,) = sql_sandbox._kept.values()
    for statement in (
        "SET memory_limit = '64GB'",
        "SELECT * FROM read_text('/etc/passwd')",
        f"ATTACH '{folders.root / 'other.duckdb'}' AS other",
    ):
        with pytest.raises(duckdb.Error):
            kept.execute(statement).fetchall()
