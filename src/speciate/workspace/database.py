"""The catalog's one writer, and its readers.

DuckDB pays about a millisecond of CPU for a durable statement, so concurrent writers share statements and commits:
calls queue up, and one thread applies everything that waits as one transaction (group commit). A caller gets its
answer after the commit, never before. What a transaction changes and the events that tell of it are committed
together; listeners hear of them afterwards, in commit order.

The file must not be opened by other means in this process: closing any descriptor of it drops DuckDB's POSIX lock.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import duckdb

from speciate.errors import Code, SpeciateError
from speciate.workspace import filesystem
from speciate.workspace.blobs import sync_folder
from speciate.workspace.clock import Clock
from speciate.workspace.schema import CONFIG

Row = tuple[Any, ...]
Item = TypeVar("Item")
Answer = TypeVar("Answer")

_BATCH = 512
_SEVERAL, _LINGER_SECONDS, _AGAIN_SECONDS = 3, 0.0005, 0.003
"""Threads that write, from which on a commit waits for those who had the last one, and how long at most; how long after
that one they are thought to come again."""
_MOST_REMEMBERED, _MOST_CHARACTERS_REMEMBERED = 256, 4_000_000
_log = logging.getLogger(__name__)
_INSERT_EVENTS = """
INSERT INTO events SELECT unnest(?::BIGINT[]), ?, unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[])
"""
_FEW_EVENTS = 4
"""So many are planned sooner as values than as arrays."""


EventData = Mapping[str, Any]
"""What an event says, as JSON; its keys depend on the type."""


class Event(NamedTuple):
    seq: int
    at: float
    subject: str
    type: str
    data: EventData


class Transaction:
    """What a writing function sees: statements, the time, and `event` beside each change of state."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, now: float) -> None:
        self._cursor = cursor
        self.now = now
        self.events: list[tuple[str, str, EventData]] = []

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Run one statement and return all of its rows."""
        return self._cursor.execute(sql, parameters).fetchall()

    def read(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """All rows of one SELECT, over what this transaction wrote, too: the same call as `Database.read`."""
        return self.execute(sql, parameters)

    def event(self, subject: str, type: str, data: EventData | None = None) -> None:  # noqa: A002 - the column
        self.events.append((subject, type, data or {}))


class _Call(NamedTuple):
    many: Callable[[Transaction, list[Any]], Sequence[Any]]
    item: Any
    future: Future[Any]
    caller: int
    """Its thread."""


class _Remembered(NamedTuple):
    rows: list[Row]
    characters: int
    """About as many as the rows and their question take."""


def _characters(row: Row) -> int:
    return sum(len(cell if isinstance(cell, str | bytes) else repr(cell)) for cell in row)


def _call_each(tx: Transaction, functions: list[Callable[[Transaction], Any]]) -> list[Any]:
    return [function(tx) for function in functions]


class Database:
    """Opens a catalog that `schema.migrate` has made ready. Thread-safe."""

    def __init__(self, path: Path, clock: Clock, on_fatal: Callable[[BaseException], None] | None = None) -> None:
        self._clock = clock
        self._on_fatal = on_fatal or (lambda error: os._exit(70))
        self._connection = duckdb.connect(str(path), config=CONFIG)
        self._folder, self._log = path.parent, f"{path}.wal"
        self._named_log = 0
        """Inode of the log whose name is on the disk, too; 0: of none."""
        self._local = threading.local()
        self._queue: queue.SimpleQueue[list[_Call] | None] = queue.SimpleQueue()
        self._listeners: list[Callable[[Sequence[Event]], None]] = []
        self._seq: int = self._connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchall()[0][0]
        self._commits = 0
        self._remembering = threading.Lock()
        self._remembered: dict[tuple[str, str], _Remembered] = {}
        self._gate = threading.Lock()
        self._closed = False
        self._fatal: BaseException | None = None
        """What ended the writer."""
        self._thread = threading.Thread(target=self._write_loop, name="catalog-writer", daemon=True)
        self._thread.start()

    # Reading

    def read(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """All rows of one SELECT over what has been committed."""
        read = self._recall if getattr(self._local, "remembers", False) else self._read
        return read(sql, parameters)

    @contextlib.contextmanager
    def remembering(self) -> Iterator[None]:
        """In this thread: what was read since the last commit is not read again. For pages, of which one is some twenty
        statements, each of which costs a millisecond or two however small its tables are."""
        before, self._local.remembers = getattr(self._local, "remembers", False), True
        try:
            yield
        finally:
            self._local.remembers = before

    def _recall(self, sql: str, parameters: Sequence[object]) -> list[Row]:
        commits, key = self._commits, (sql, repr(parameters))  # the number before it is read, as `commits` says
        with self._remembering:
            known = self._remembered.get(key)
        if known is None:
            rows = self._read(sql, parameters)
            known = _Remembered(rows, sum(map(len, key)) + sum(map(_characters, rows)))
            with self._remembering:
                if self._commits == commits and known.characters <= _MOST_CHARACTERS_REMEMBERED // 4:
                    self._remember(key, known)
        return list(known.rows)

    def _remember(self, key: tuple[str, str], rows: _Remembered) -> None:
        self._remembered[key] = rows
        total = sum(each.characters for each in self._remembered.values())
        while total > _MOST_CHARACTERS_REMEMBERED or len(self._remembered) > _MOST_REMEMBERED:
            total -= self._remembered.pop(next(iter(self._remembered))).characters

    def _read(self, sql: str, parameters: Sequence[object]) -> list[Row]:
        cursor = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._connection.cursor()
        rows: list[Row] = cursor.execute(sql, parameters).fetchall()
        return rows

    def read_one(self, sql: str, parameters: Sequence[object] = ()) -> Row | None:
        rows = self.read(sql, parameters)
        return rows[0] if rows else None

    def events_after(self, seq: int, limit: int = 1000) -> list[Event]:
        rows = self.read("SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?", [seq, limit])
        return [Event(row[0], row[1], row[2], row[3], json.loads(row[4])) for row in rows]

    def now(self) -> float:
        """Seconds since the epoch, by the workspace's clock."""
        return self._clock.now()

    @property
    def last_seq(self) -> int:
        """The number of the newest committed event."""
        return self._seq

    @property
    def commits(self) -> int:
        """How often anything was committed. Who read this before reading rows knows whether those may have changed."""
        return self._commits

    @property
    def closed(self) -> bool:
        return self._closed

    # Writing

    def write(self, many: Callable[[Transaction, list[Item]], Sequence[Answer]], item: Item) -> Answer:
        """Apply `item` with whatever else waits for `many`, and return its answer once it is on disk.

        `many(tx, items)` returns one answer per item; an answer that is an exception is raised here and concerns only
        this item. `many` must be repeatable: when a batch fails, its items are applied again one by one.
        """
        return self.submit(many, item).result()

    def submit(self, many: Callable[[Transaction, list[Item]], Sequence[Answer]], item: Item) -> Future[Answer]:
        return self.submit_all(many, [item])[0]

    def submit_all(
        self, many: Callable[[Transaction, list[Item]], Sequence[Answer]], items: Sequence[Item]
    ) -> list[Future[Answer]]:
        """`submit` of each, in one transaction."""
        caller = threading.get_ident()
        calls: list[_Call] = [_Call(many, item, Future(), caller) for item in items]
        with self._gate:  # nothing may queue up behind the end
            if self._fatal:
                raise _translate_error(self._fatal)
            if self._closed:
                raise SpeciateError(Code.UNAVAILABLE, "The workspace is closing.", "Repeat the call in a moment.")
            if calls:
                self._queue.put(calls)
        return [call.future for call in calls]

    def transact(self, function: Callable[[Transaction], Answer]) -> Answer:
        """Run one function as one atomic step. It must be repeatable, and must not call `write` or `transact`."""
        answer: Answer = self.write(_call_each, function)
        return answer

    def listen(self, listener: Callable[[Sequence[Event]], None]) -> None:
        """Call `listener` with every batch of committed events, in order, in the writer's thread: it must be quick."""
        self._listeners.append(listener)

    def checkpoint(self) -> None:
        """Fold the log into the file. Waits its turn among the writers."""
        self.write(_checkpoint, None)

    def close(self) -> None:
        """Commit what waits, then close the file."""
        with self._gate:
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        self._connection.close()

    # The writer's thread

    def _write_loop(self) -> None:
        cursor = self._connection.cursor()
        answered, ended = frozenset[int](), 0.0
        while (first := self._queue.get()) is not None:
            batch = self._gather(first, answered if time.perf_counter() - ended < _AGAIN_SECONDS else frozenset())
            try:
                self._apply(cursor, batch)
                answered, ended = frozenset(call.caller for call in batch), time.perf_counter()
            except BaseException as error:  # noqa: BLE001 - without its writer the process is of no use to anybody
                # After a FatalException the instance is invalid for every thread; only a new process may go on.
                _log.exception("the catalog's writer cannot go on")
                with self._gate:
                    self._closed, self._fatal = True, error
                    while not self._queue.empty():
                        batch += self._queue.get() or []
                for call in batch:
                    if not call.future.done():
                        call.future.set_exception(_translate_error(error))
                self._on_fatal(error)
                return

    def _gather(self, first: Sequence[_Call], answered: Set[int]) -> list[_Call]:
        """What waits. Where several threads write, those that have just been `answered` are waited for, too: they often
        write again, and else two halves of them take turns, each with a commit of its own."""
        batch, until = list(first), time.perf_counter() + _LINGER_SECONDS
        callers = {call.caller for call in batch}
        while len(batch) < _BATCH:
            lacking = not answered <= callers and len(answered | callers) >= _SEVERAL
            left = until - time.perf_counter() if lacking else 0.0
            try:
                calls = self._queue.get(left > 0, max(0.0, left))
            except queue.Empty:
                break
            if calls is None:
                self._queue.put(None)
                break
            batch += calls
            callers |= {call.caller for call in calls}
        return batch

    def _apply(self, cursor: duckdb.DuckDBPyConnection, batch: list[_Call]) -> None:
        calls = [call for call in batch if call.many is not _checkpoint]
        if calls:
            self._apply_together(cursor, calls)
        for call in batch:
            if call.many is _checkpoint:
                _resolve_call(call, lambda: cursor.execute("CHECKPOINT"))
                self._named_log = 0  # the next one may get the same inode

    def _apply_together(self, cursor: duckdb.DuckDBPyConnection, calls: list[_Call]) -> None:
        try:
            answers, events = self._commit(cursor, calls)
        except duckdb.FatalException:
            raise
        except BaseException as error:  # noqa: BLE001 - handed to the caller whom it concerns
            if len(calls) == 1:
                calls[0].future.set_exception(_translate_error(error))
            else:  # one of them is to blame; the others must not suffer
                for call in calls:
                    self._apply_together(cursor, [call])
            return
        self._sync_name_of_log()
        for call, answer in zip(calls, answers, strict=True):
            if isinstance(answer, BaseException):
                call.future.set_exception(answer)
            else:
                call.future.set_result(answer)
        for listener in self._listeners if events else ():
            try:
                listener(events)
            except Exception:  # noqa: BLE001 - what was committed is committed, whoever cannot bear to hear of it
                _log.exception("a listener failed")

    def _sync_name_of_log(self) -> None:
        """DuckDB syncs its log at each commit, and never the folder of the log, which is made anew after each
        checkpoint: without its name a power cut may take it with all that was committed since."""
        try:
            log = os.stat(self._log).st_ino
        except FileNotFoundError:  # this commit has folded it in
            log = 0
        if log not in (0, self._named_log):
            sync_folder(self._folder)
        self._named_log = log

    def _commit(self, cursor: duckdb.DuckDBPyConnection, calls: list[_Call]) -> tuple[list[Any], list[Event]]:
        """One transaction for all calls: the answers in the order of the calls, and the events with their numbers."""
        tx = Transaction(cursor, self._clock.now())
        answers: dict[int, Any] = {}
        cursor.execute("BEGIN")
        try:
            for many, places in _group_by_function(calls):
                for place, answer in zip(places, many(tx, [calls[i].item for i in places]), strict=True):
                    answers[place] = answer
            events = [Event(self._seq + i, tx.now, *event) for i, event in enumerate(tx.events, 1)]
            if 0 < len(events) <= _FEW_EVENTS:
                values = ", ".join(["(?, ?, ?, ?, ?)"] * len(events))
                cells = [cell for each in events for cell in (*each[:-1], json.dumps(each.data))]
                cursor.execute(f"INSERT INTO events VALUES {values}", cells)
            elif events:
                cursor.execute(
                    _INSERT_EVENTS,
                    [
                        [event.seq for event in events],
                        tx.now,
                        [event.subject for event in events],
                        [event.type for event in events],
                        [json.dumps(event.data) for event in events],
                    ],
                )
            cursor.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(duckdb.Error):  # a failed COMMIT has already ended the transaction
                cursor.execute("ROLLBACK")
            raise
        self._seq += len(events)
        with self._remembering:
            self._commits += 1
            self._remembered.clear()  # at once: what was erased is in no memory
        return [answers[i] for i in range(len(calls))], events


def _resolve_call(call: _Call, function: Callable[[], object]) -> None:
    try:
        function()
    except duckdb.FatalException:
        raise
    except duckdb.Error as error:
        call.future.set_exception(_translate_error(error))
    else:
        call.future.set_result(None)


def _checkpoint(tx: Transaction, items: list[None]) -> list[None]:
    raise AssertionError("the writer handles checkpoints outside transactions")


def _group_by_function(calls: list[_Call]) -> Iterable[tuple[Callable[..., Sequence[Any]], list[int]]]:
    groups: dict[Callable[..., Sequence[Any]], list[int]] = {}
    for place, call in enumerate(calls):
        groups.setdefault(call.many, []).append(place)
    return groups.items()


def _translate_error(error: BaseException) -> BaseException:
    """The error a caller should see: what is theirs to mend is said, the rest is passed on."""
    if (full := filesystem.explain(error)) is not None:
        return full
    if isinstance(error, duckdb.FatalException):
        return SpeciateError(
            Code.UNAVAILABLE,
            f"The catalog had to be closed: {str(error).splitlines()[0]}",
            "Repeat the call; the daemon restarts by itself.",
        )
    return error
