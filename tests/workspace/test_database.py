"""Group commit: what many threads want is one transaction, and the trouble of one is not the trouble of the others."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from speciate.errors import Code, SpeciateError
from speciate.workspace import database, schema
from speciate.workspace.database import Database, Event, Row, Transaction
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock

pytestmark = pytest.mark.durable

_INSERT = "INSERT INTO meta SELECT unnest(?::VARCHAR[]), 'x'"
_KEYS = "SELECT key FROM meta WHERE value = 'x' ORDER BY key"


def add(tx: Transaction, keys: list[str]) -> Sequence[str]:
    tx.execute(_INSERT, [keys])
    for key in keys:
        tx.event(key, "added")
    return [key.upper() for key in keys]


def held_up(workspace: Workspace) -> threading.Event:
    """Keep the writer busy until the event is set, so that what is written meanwhile waits together."""
    begun, release = threading.Event(), threading.Event()

    def block(tx: Transaction) -> None:
        begun.set()
        assert release.wait(10)

    threading.Thread(target=lambda: workspace.database.transact(block), daemon=True).start()
    assert begun.wait(10)
    return release


def test_what_waits_together_is_one_statement_with_an_answer_each(workspace: Workspace) -> None:
    calls: list[int] = []

    def counted(tx: Transaction, keys: list[str]) -> Sequence[str]:
        calls.append(len(keys))
        return add(tx, keys)

    release = held_up(workspace)
    futures = [workspace.database.submit(counted, f"k{number:03}") for number in range(100)]
    release.set()
    assert [future.result(10) for future in futures] == [f"K{number:03}" for number in range(100)]
    assert calls == [100]
    assert len(workspace.database.read(_KEYS)) == 100


def test_threads_that_write_again_and_again_share_each_commit(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two halves that take turns would need 40."""
    monkeypatch.setattr(database, "_LINGER_SECONDS", 0.5)
    monkeypatch.setattr(database, "_AGAIN_SECONDS", 10.0)
    shared = list[int]()

    def counted(tx: Transaction, keys: list[str]) -> Sequence[str]:
        shared.append(len(keys))
        return keys

    ready = threading.Barrier(8)

    def write(name: str) -> None:
        ready.wait(30)
        for number in range(20):
            workspace.database.write(counted, f"{name}{number}")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcdefgh"]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert sum(shared) == 160
    assert len(shared) <= 30


def test_two_that_write_in_turn_never_wait_for_each_other(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_LINGER_SECONDS", 60.0)
    monkeypatch.setattr(database, "_AGAIN_SECONDS", 60.0)
    with ThreadPoolExecutor(1) as other:
        for number in range(3):
            workspace.database.write(add, f"mine {number}")
            assert other.submit(workspace.database.write, add, f"other {number}").result(30)


def test_one_that_fails_does_not_harm_the_others(workspace: Workspace) -> None:
    workspace.database.write(add, "taken")
    release = held_up(workspace)
    futures = [workspace.database.submit(add, key) for key in ("a", "taken", "b")]
    release.set()
    assert futures[0].result(10) == "A"
    assert futures[2].result(10) == "B"
    with pytest.raises(duckdb.ConstraintException):
        futures[1].result(10)
    assert workspace.database.read(_KEYS) == [("a",), ("b",), ("taken",)]


def test_an_answer_that_is_an_error_concerns_one_caller_alone(workspace: Workspace) -> None:
    def judge(tx: Transaction, items: list[int]) -> Sequence[int | Exception]:
        return [item if item % 2 else ValueError(f"{item} is even") for item in items]

    release = held_up(workspace)
    futures = [workspace.database.submit(judge, number) for number in range(4)]
    release.set()
    assert [future.result(10) for future in futures[1::2]] == [1, 3]
    for future in futures[::2]:
        with pytest.raises(ValueError, match="is even"):
            future.result(10)


def test_events_are_dense_and_heard_in_order_whatever_fails_between(workspace: Workspace) -> None:
    heard: list[Event] = []
    workspace.database.listen(heard.extend)

    def try_to_add(number: int) -> None:
        with contextlib.suppress(duckdb.ConstraintException):  # every key is tried several times, and added once
            workspace.database.write(add, f"key-{number % 60}")

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(try_to_add, range(300)))
    numbers = [seq for (seq,) in workspace.database.read("SELECT seq FROM events ORDER BY seq")]
    assert numbers == list(range(1, 61))
    assert [event.seq for event in heard] == numbers
    assert workspace.database.last_seq == 60
    assert [event.seq for event in workspace.database.events_after(50)] == numbers[50:]


def test_a_change_and_its_event_are_one(workspace: Workspace) -> None:
    def change_and_fail(tx: Transaction) -> None:
        tx.execute(_INSERT, [["a"]])
        tx.event("a", "added")
        raise SpeciateError("invalid", "no")  # type: ignore[arg-type]  # the code does not matter here

    with pytest.raises(SpeciateError):
        workspace.database.transact(change_and_fail)
    assert workspace.database.read(_KEYS) == []
    assert workspace.database.last_seq == 0


def test_what_waits_at_the_end_is_still_written(workspace: Workspace) -> None:
    root = workspace.folders.root
    futures = [workspace.database.submit(add, f"k{number}") for number in range(20)]
    workspace.close()
    assert all(future.done() for future in futures)
    again = Workspace(root)
    assert len(again.database.read(_KEYS)) == 20
    again.close()


def test_nobody_waits_for_a_writer_that_has_ended(tmp_path: Path, clock: ManualClock) -> None:
    """Where the process lives on after a fatal error."""
    path, fatal, behind = tmp_path / "catalog.duckdb", list[BaseException](), list[Future[str]]()
    schema.migrate(path)
    database = Database(path, clock, fatal.append)

    def fail(tx: Transaction, keys: list[str]) -> Sequence[str]:
        behind.append(database.submit(add, "behind"))
        raise duckdb.FatalException("the database has been invalidated")

    with pytest.raises(SpeciateError, match="invalidated") as told:
        database.submit(fail, "at fault").result(10)
    assert told.value.code is Code.UNAVAILABLE
    with pytest.raises(SpeciateError, match="invalidated"):
        behind[0].result(10)
    with pytest.raises(SpeciateError, match="invalidated"):
        database.submit(add, "later").result(10)
    assert len(fatal) == 1
    database.close()


def test_a_listener_that_fails_harms_nobody(workspace: Workspace) -> None:
    heard: list[str] = []

    def fail(events: Sequence[Event]) -> None:
        raise RuntimeError("the loop is closed")

    workspace.database.listen(fail)
    workspace.database.listen(lambda events: heard.extend(event.type for event in events))
    for name in ("first", "second"):
        workspace.database.transact(lambda tx, name=name: tx.event("x", name))  # type: ignore[misc]
    workspace.database.checkpoint()
    assert heard == ["first", "second"]


def test_what_is_remembered_is_never_older_than_the_last_commit(workspace: Workspace) -> None:
    count = "SELECT count(*) FROM events"

    def seen() -> int:
        with workspace.database.remembering():
            return int(workspace.database.read(count)[0][0])

    before = seen()
    for more in range(1, 4):
        workspace.database.transact(lambda tx: tx.event("a", "b"))
        assert (seen(), seen()) == (before + more, before + more)


def test_what_is_remembered_is_little_however_long_its_rows_are(workspace: Workspace) -> None:
    text = "SELECT repeat('y', 500) || i, [repeat('z', 500)] FROM range(?) t(i)"
    with workspace.database.remembering():
        for number in range(100, 300):
            workspace.database.read(text, [number])
        workspace.database.read(text, [5000])
    kept = workspace.database._remembered.values()
    assert len(kept) > 10
    assert max(len(each.rows) for each in kept) < 1000
    assert sum(len(repr(each.rows)) for each in kept) < 4_500_000


def test_what_was_erased_is_in_no_memory(workspace: Workspace) -> None:
    workspace.database.transact(lambda tx: tx.execute("INSERT INTO meta VALUES ('person', 'Ada')"))
    with workspace.database.remembering():
        workspace.database.read("SELECT value FROM meta WHERE key = 'person'")
    assert "Ada" in repr(workspace.database._remembered)
    workspace.database.transact(lambda tx: tx.execute("DELETE FROM meta WHERE key = 'person'"))
    assert "Ada" not in repr(workspace.database._remembered)


def test_what_was_read_before_a_commit_is_not_remembered_after_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Database._read

    def slow(self: Database, sql: str, given: Sequence[object]) -> list[Row]:
        found = read(self, sql, given)
        workspace.database.transact(lambda tx: tx.event("a", "b"))
        return found

    count = "SELECT count(*) FROM events"
    monkeypatch.setattr(Database, "_read", slow)
    with workspace.database.remembering():
        before = workspace.database.read(count)[0][0]
        assert workspace.database.read(count)[0][0] == before + 1


def test_a_reader_of_remembered_rows_can_do_with_them_what_it_likes(workspace: Workspace) -> None:
    with workspace.database.remembering():
        workspace.database.read("SELECT unnest([1, 2])").clear()
        assert workspace.database.read("SELECT unnest([1, 2])") == [(1,), (2,)]
        assert workspace.database.read("SELECT ?", [1]) == [(1,)]
        assert workspace.database.read("SELECT ?", ["1"]) == [("1",)]


def test_a_reader_within_a_reader_leaves_the_outer_one_as_it_was(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = Database._read
    monkeypatch.setattr(Database, "_read", lambda self, sql, given: asked.append(sql) or read(self, sql, given))
    with workspace.database.remembering():
        workspace.database.read(_KEYS)
        with workspace.database.remembering():
            workspace.database.read(_KEYS)
        workspace.database.read(_KEYS)
    assert len(asked) == 1
    workspace.database.read(_KEYS)
    assert len(asked) == 2


def test_without_being_asked_nothing_is_remembered(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    read, sql = list[str](), "SELECT 1"
    plain = Database._read

    def note(self: Database, sql: str, parameters: Sequence[object]) -> list[Row]:
        read.append(sql)
        return plain(self, sql, parameters)

    monkeypatch.setattr(Database, "_read", note)
    for _ in range(2):
        workspace.database.read(sql)
    with workspace.database.remembering():
        for number in range(600):
            workspace.database.read(f"SELECT {number + 2}")
        for _ in range(3):
            workspace.database.read(sql)
    workspace.database.read(sql)
    assert read.count(sql) == 4
    assert len(workspace.database._remembered) <= 256


def test_what_is_submitted_together_is_one_transaction(workspace: Workspace) -> None:
    before = workspace.database.commits
    sent = workspace.database.submit_all(add, ["a", "b", "c"])
    assert [each.result(10) for each in sent] == ["A", "B", "C"]
    assert workspace.database.commits == before + 1
    assert workspace.database.submit_all(add, []) == []
    assert workspace.database.commits == before + 1


def test_of_what_is_submitted_together_one_that_fails_does_not_harm_the_others(workspace: Workspace) -> None:
    def fails(tx: Transaction, items: list[str]) -> list[str]:
        if "bad" in items:
            raise ValueError("bad")
        return items

    good, bad = workspace.database.submit_all(fails, ["good", "bad"])
    assert good.result(10) == "good"
    with pytest.raises(ValueError, match="bad"):
        bad.result(10)
