"""What sandboxed processes write to standard error, passed on to ours: they never hold the log's own descriptor.

With it they could empty the log, lock it, overwrite or forge lines. Here each process has a pipe, and one thread reads
them all. Every line begins with whose it is, has no control characters and at most `LONGEST` of them; of one process
`MOST_BYTES` are kept. What it writes beyond is read slowly and dropped, so that it neither blocks nor costs us much.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from collections import deque
from dataclasses import dataclass, field

MOST_BYTES, LONGEST = 64 << 10, 500
_READ_BYTES = 1 << 16
_REMEMBERED = 5
_PAUSE_SECONDS = 0.02
"""Seconds between two looks at a process that has said too much: some 3 MB a second are dropped then."""


@dataclass
class Stream:
    """One process's standard error."""

    descriptor: int
    name: str
    rest: bytes = b""
    heard: int = 0
    last: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """Newest lines that it wrote."""
    ended: threading.Event = field(default_factory=threading.Event)
    """All that it wrote has been passed on."""

    @property
    def spent(self) -> bool:
        return self.heard >= MOST_BYTES


class Relay:
    """The thread that reads, and where it writes. Thread-safe."""

    def __init__(self, target: int = 2) -> None:
        self._target = target
        self._selector = selectors.DefaultSelector()
        self._news, self._tell = os.pipe()
        self._new: deque[Stream] = deque()
        self._resting: deque[tuple[float, Stream]] = deque()
        self._selector.register(self._news, selectors.EVENT_READ)
        threading.Thread(target=self._run, name="sandbox-stderr", daemon=True).start()

    def add(self, descriptor: int, name: str) -> Stream:
        """Read it to its end, and close it then."""
        os.set_blocking(descriptor, False)
        stream = Stream(descriptor, name)
        self._new.append(stream)
        os.write(self._tell, b"x")
        return stream

    def _run(self) -> None:
        while True:
            wait = max(0.0, self._resting[0][0] - time.monotonic()) if self._resting else None
            for key, _ in self._selector.select(wait):
                if key.fd == self._news:
                    os.read(self._news, 4096)
                else:
                    self._read(key.data)
            while self._new:
                self._register(self._new.popleft())
            while self._resting and self._resting[0][0] <= time.monotonic():
                self._register(self._resting.popleft()[1])

    def _register(self, stream: Stream) -> None:
        try:
            self._selector.register(stream.descriptor, selectors.EVENT_READ, stream)
        except OSError:  # too many are watched: this one cannot be heard, but all the others can
            self._close(stream)

    def _close(self, stream: Stream) -> None:
        os.close(stream.descriptor)
        stream.ended.set()

    def _read(self, stream: Stream) -> None:
        try:
            data = os.read(stream.descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        if not stream.spent:
            self._pass_on(stream, data)
        if not data or stream.spent:
            self._selector.unregister(stream.descriptor)
        if not data:
            self._close(stream)
        elif stream.spent:
            self._resting.append((time.monotonic() + _PAUSE_SECONDS, stream))

    def _pass_on(self, stream: Stream, data: bytes) -> None:
        *lines, rest = (stream.rest + data).split(b"\n")
        if not data or len(rest) > LONGEST:
            lines, rest = [*lines, rest], b""
        stream.rest = rest
        for line in lines:
            if stream.spent:
                return
            stream.heard += len(line) + 1
            if shown := printable(line):
                stream.last.append(shown)
                self._write(f"[{stream.name}] {shown}\n")
            if stream.spent:
                self._write(f"[{stream.name}] wrote more than {MOST_BYTES:,} bytes here; the rest is dropped\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # our own standard error is closed, or its disk is full
            os.write(self._target, text.encode())


def printable(line: bytes) -> str:
    """What a terminal would show of it, without what would move a terminal."""
    text = line.rstrip(b"\r").rpartition(b"\r")[2][: 4 * LONGEST].decode(errors="replace")[:LONGEST]
    return "".join(sign if sign.isprintable() else "?" for sign in text).rstrip()


_lock = threading.Lock()
_relays: dict[int, Relay] = {}


def relay(descriptor: int, name: str) -> Stream:
    """Pass on what comes from `descriptor`, which is ours from now on, as lines that begin with [name]."""
    with _lock:
        ours = _relays.get(os.getpid())
        if ours is None:  # threads do not live on in a fork
            _relays.clear()
            ours = _relays[os.getpid()] = Relay()
    return ours.add(descriptor, name)


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
