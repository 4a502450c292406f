"""Appends lines to the log of one use case, and never stands in the way of an answer.

A line is with the system before `append` returns, so the death of this process takes none of it; it is on the disk a
tenth of a second later (`fdatasync` of many lines at once), which is what a loss of power may take. Where the disk
takes nothing, `append` says so and counts: the next line that is written is preceded by one that tells of the gap.

A segment is locked as long as it is appended to, and has its name only once it is locked: who finds one that is not
locked may seal it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from speciate.clock import Clock
from speciate.predictions.folder import LogFolder
from speciate.predictions.records import GAP, encode
from speciate.workspace.blobs import sync_folder

SEGMENT_BYTES, SEGMENT_SECONDS = 16 << 20, 3600.0
"""Then another one is begun, so that the first may be sealed."""
_SYNC_SECONDS, _IDLE_SECONDS = 0.1, 5.0
"""Until what was written is synced; between two looks of a writer that has nothing open."""
_MEASURE_SECONDS, _SHARE_OF_TIME = 20.0, 50.0
"""How large the whole log is, is looked at so often, and for a fiftieth of the time at most: every file is counted."""
_log = logging.getLogger(__name__)


class Missed(NamedTuple):
    """Answers that could not be written, since when, and why."""

    answers: int = 0
    since: float = 0.0
    why: str = ""


class _Open(NamedTuple):
    descriptor: int
    path: Path
    began: float


class Writer:
    """Thread-safe. The first line opens a segment; `close` in any case."""

    def __init__(
        self, folder: LogFolder, clock: Clock, *, most: int = SEGMENT_BYTES, oldest: float = SEGMENT_SECONDS
    ) -> None:
        self.folder, self._clock, self._most, self._oldest = folder, clock, most, oldest
        self._lock = threading.Lock()
        self._open: _Open | None = None
        self._size = 0
        self._named = False
        """Whether the segment's name is on the disk, too."""
        self._done: list[_Open] = []
        self._dirty = threading.Event()
        self._ending = False
        self._missed, self._missed_in_all = Missed(), 0
        self._stamp = folder.roll_stamp()
        self.folder_bytes = 0
        """Of the whole log, as last measured."""
        self._measure_at = 0.0
        self._thread: threading.Thread | None = None

    @property
    def missed(self) -> int:
        """Answers that were not logged for want of room or for another fault, since this writer began."""
        return self._missed_in_all

    def append(self, lines: Sequence[bytes], *, durable: bool = False) -> bool:
        """Whether all of them are written; none of them is otherwise. `durable`: on the disk when this returns."""
        with self._lock:
            try:
                self._write(lines)
            except OSError as error:
                self._miss(len(lines), error)
                return False
            self._dirty.set()
            if not durable:
                return True
            assert self._open
            descriptor = os.dup(self._open.descriptor)
        try:
            os.fdatasync(descriptor)
            sync_folder(self.folder.segments)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def miss(self, count: int, why: str) -> None:
        """Count answers that are not even tried to be written."""
        with self._lock:
            self._miss(count, OSError(why))

    def roll(self) -> None:
        """Let go of the segment; the next line begins another."""
        with self._lock:
            self._let_go()
        self._finish()

    def close(self) -> None:
        self._ending = True
        self._dirty.set()
        if self._thread:
            self._thread.join()
        self.roll()

    # With the lock held

    def _write(self, lines: Sequence[bytes]) -> None:
        gap = self._gap()
        data = b"".join([*gap, *lines])
        if self._open and (self._size + len(data) > self._most and self._size):
            self._let_go()
        if self._open is None:
            self._begin()
        assert self._open
        written = 0
        try:
            written = os.write(self._open.descriptor, data)
            if written < len(data):
                raise OSError(28, "No space left on device")
        except OSError:
            if written:
                self._take_back()
            raise
        self._size += len(data)
        self._missed = Missed() if gap else self._missed

    def _take_back(self) -> None:
        """Half a line must not stay; where it has to, no other follows it in this segment."""
        assert self._open
        try:
            os.ftruncate(self._open.descriptor, self._size)
        except OSError:
            self._let_go()

    def _gap(self) -> list[bytes]:
        if not self._missed.answers:
            return []
        told = {"k": GAP, "at": self._clock.now(), "n": self._missed.answers, "since": self._missed.since}
        return [encode({**told, "why": self._missed.why})]

    def _miss(self, count: int, error: OSError) -> None:
        why = error.strerror or str(error)
        if not self._missed.answers:
            _log.error("answers of %s are not logged: %s", self.folder.use_case, why)
        since = self._missed.since or self._clock.now()
        self._missed = Missed(self._missed.answers + count, since, why)
        self._missed_in_all += count

    def _begin(self) -> None:
        self.folder.create()
        now = self._clock.now()
        path = self.folder.segments / f"{int(now * 1000):013d}-{secrets.token_hex(6)}.jsonl"
        hidden = path.with_suffix(".tmp")
        descriptor = os.open(hidden, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            hidden.rename(path)
        except BaseException:
            os.close(descriptor)
            hidden.unlink(missing_ok=True)
            raise
        self._open, self._size, self._named = _Open(descriptor, path, time.monotonic()), 0, False
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep, name=f"log {self.folder.use_case}", daemon=True)
            self._thread.start()

    def _let_go(self) -> None:
        """The thread syncs and closes it: neither is to hold up an answer."""
        if self._open:
            self._done.append(self._open)
            self._open = None
            self._dirty.set()

    # The thread

    def _keep(self) -> None:
        while not self._ending:
            told = self._dirty.wait(2 * _SYNC_SECONDS if self._open else _IDLE_SECONDS)
            if told:
                time.sleep(_SYNC_SECONDS)  # what comes meanwhile goes along
            self._look()
            if told:
                self._dirty.clear()
                self._sync()

    def measure(self) -> None:
        began = time.monotonic()
        self.folder_bytes = self.folder.size().bytes
        ended = time.monotonic()
        self._measure_at = ended + max(_MEASURE_SECONDS, _SHARE_OF_TIME * (ended - began))

    def _look(self) -> None:
        if time.monotonic() >= self._measure_at:
            self.measure()
        stamp = self.folder.roll_stamp()
        with self._lock:
            old = self._open and time.monotonic() - self._open.began > self._oldest
            if stamp != self._stamp or old:
                self._let_go()
            self._stamp = stamp

    def _sync(self) -> None:
        with self._lock:
            descriptor = os.dup(self._open.descriptor) if self._open else None
            named, self._named = self._named, True
        if descriptor is not None:
            try:
                os.fdatasync(descriptor)
                if not named:
                    sync_folder(self.folder.segments)
            except OSError:
                _log.exception("the log of %s could not be flushed", self.folder.use_case)
            finally:
                os.close(descriptor)
        self._finish()

    def _finish(self) -> None:
        with self._lock:
            done, self._done = self._done, []
        for each in done:
            try:
                os.fdatasync(each.descriptor)
            except OSError:
                _log.exception("%s could not be flushed", each.path.name)
            finally:
                os.close(each.descriptor)  # and with it the lock
