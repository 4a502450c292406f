"""MCP over stdio for one client: passes frames between it and the daemon, and outlives the daemon.

Standard library only, so that it answers within tens of milliseconds. One thread reads the client, the main thread
reads the daemon. When the daemon goes away, the main thread starts another and tells it what `Session` has kept.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from speciate.environment import workspace_path
from speciate.errors import SpeciateError
from speciate.server.dial import dial
from speciate.server.frames import REQUEST, Frame, Message, Splitter, check, refusal
from speciate.server.protocol import MCP, Line
from speciate.server.session import Session

_LINGER_SECONDS = 50.0
"""How long answers that are owed are waited for after the client has closed its side; no tool blocks longer."""
_PIECE_BYTES = 1 << 18


class Shim:
    def __init__(
        self, workspace: Path, source: int = 0, sink: int = 1, fixtures: Sequence[str] = (), tools: str = "all"
    ) -> None:
        self._workspace, self._source, self._sink, self._fixtures = workspace, source, sink, fixtures
        self._tools = tools
        self._session = Session()
        self._changed = threading.Condition()  # guards the session and the flags
        self._sending = threading.Lock()  # held while lines go to the daemon, so that a replay is not interleaved
        self._writing = threading.Lock()  # held while lines go to the client: both threads answer it
        self._line: Line | None = None
        self._closed = False

    def run(self) -> int:
        """Serve until the client closes its side. 1 where the last attempt to reach a daemon failed, else 0."""
        threading.Thread(target=self._read_client, name="client", daemon=True).start()
        status = 0
        while not self._finished():
            try:
                line = self._connect()
            except SpeciateError as error:
                sys.stderr.write(f"speciate: {error}\n")
                self._give_up(str(error))
                status = 1
            else:
                status = 0
                self._read_daemon(line)
        return status

    # The client's side

    def _read_client(self) -> None:
        try:
            for frame in _frames(self._source):
                self._take(frame)
        finally:  # whatever a client says, its end must be noticed
            with self._changed:
                self._closed = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._session.owed, _LINGER_SECONDS)
                self._session.give_up("The client closed its side.")  # nobody would hear it any more
                self._changed.notify_all()
            if self._line:
                self._line.finish()

    def _take(self, frame: Frame) -> None:
        """Pass a frame on, or answer it here where it is no message."""
        message, answer = check(frame)
        if answer is None and isinstance(frame, bytes):
            answer = self._passed(frame, message)
        if answer:
            self._write([answer])

    def _passed(self, line: bytes, message: Message) -> bytes | None:
        """Record it and send it to the daemon, where there is one; or how to answer it instead."""
        with self._sending:
            with self._changed:
                if "method" in message and self._session.holds(message.get("id")):
                    return refusal(message["id"], REQUEST, "A request with this id is unanswered: use another id.")
                self._session.sent(line, delivered=self._line is not None, message=message)
                self._changed.notify_all()
            if self._line:
                self._send(self._line, line)
        return None

    def _write(self, lines: Sequence[bytes]) -> None:
        """To the client. A client that is gone hears nothing; its closed input ends us."""
        with self._writing:
            for line in lines:
                data = memoryview(line)
                while data:
                    data = data[os.write(self._sink, data) :]

    # The daemon's side

    def _connect(self) -> Line:
        """A connection that stands where the last one stood. Raises SpeciateError."""
        dialled = dial(self._workspace, MCP, client="stdio", fixtures=self._fixtures, tools=self._tools)
        line = dialled.line
        with self._sending:
            with self._changed:
                self._session.read_only = frozenset(dialled.answer["read_only"])
                interrupted, opening = self._session.interrupted(), self._session.opening()
            self._write(interrupted)
            if opening:
                self._send(line, opening)
                while self._session.replaying and (frame := line.receive()):
                    self._pass_on(frame)
            with self._changed:
                lines = self._session.replay()
                self._line = line
            for each in lines:
                self._send(line, each)
        return line

    def _read_daemon(self, line: Line) -> None:
        while frame := line.receive():
            self._pass_on(frame)
        with self._sending:
            self._line = None
        line.close()

    def _pass_on(self, frame: bytes) -> None:
        with self._changed:
            wanted = self._session.received(frame)
            self._changed.notify_all()
        if wanted:
            self._write([frame])

    def _send(self, line: Line, frame: bytes) -> None:
        with contextlib.suppress(OSError):
            line.send(frame)  # where it fails, the reader notices, and the session still holds what was asked

    def _finished(self) -> bool:
        with self._changed:
            return self._closed and not self._session.owed

    def _give_up(self, why: str) -> None:
        """Tell everybody who waits, then wait until there is a reason to try again."""
        with self._changed:
            self._changed.wait_for(lambda: self._session.owed or self._closed)
            answers = self._session.give_up(why)
            self._changed.notify_all()
        self._write(answers)
        with self._changed:
            self._changed.wait_for(lambda: self._session.owed or self._closed)


def _frames(descriptor: int) -> Iterator[Frame]:
    splitter = Splitter()
    while piece := os.read(descriptor, _PIECE_BYTES):
        yield from splitter.feed(piece)
    yield from splitter.end()


if __name__ == "__main__":
    sys.exit(Shim(workspace_path(sys.argv[1] if len(sys.argv) > 1 else None)).run())
