"""How a client and the daemon of a workspace begin to talk, over the daemon's unix socket.

A connection opens with one line of JSON from the client, `{"protocol", "version", "folder", "client", ...}`, answered
by one line from the daemon: `{"ok": true, ...}`, or `{"ok": false, "code", "message", "recovery"}`. What follows
depends on the protocol:

    mcp/1       frames of the stdio transport in both directions; the answer brings `read_only`, the names of tools
                that may be repeated when the connection breaks
    control/1   nothing: the line holds `action` and its arguments, the answer its result. A line that ends without an
                answer leaves open whether the action was done; only some actions may be repeated (`ASKED_ONCE`)
    http/1      the daemon serves streamable HTTP on loopback while the connection lasts; the answer brings `url`
                and `token`

Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from speciate.errors import Code, SpeciateError

MCP, CONTROL, HTTP = "mcp/1", "control/1", "http/1"
ASKED_ONCE = frozenset((
    "accept", "allow", "approve", "deny", "disallow", "fingerprint", "host", "key enroll", "key revoke", "override",
    "open decide", "policy", "settings", "signed", "token create",
))  # fmt: skip
"""Actions that are never repeated unasked: what a person decides, and what costs money."""
HELLO_BYTES = 1 << 20
"""The longest first line."""
DRAINING = "draining"
"""Code of the answer of a daemon that is about to make room for another: dial again."""


Hello = Mapping[str, Any]
"""The first line of a client: `protocol`, `version`, `folder`, `client`, and for `control` an action's own fields,
which its `Request` validates."""


class DaemonAnswer(TypedDict, total=False):
    """The daemon's answer to a hello. Which keys it has depends on `ok` and on the protocol."""

    ok: bool
    code: str
    message: str
    recovery: str
    version: str
    read_only: Sequence[str]
    """Names of the tools that only read."""
    result: Mapping[str, Any]
    """What an action answered."""
    url: str
    port: int
    token: str


def encode(message: Mapping[str, object]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def refusal(error: SpeciateError) -> DaemonAnswer:
    return {"ok": False, "code": error.code.value, "message": error.message, "recovery": error.recovery}


def as_error(answer: DaemonAnswer) -> SpeciateError:
    """The error that an answer with `ok` false stands for."""
    code = answer.get("code")
    known = Code(code) if code in set(Code) else Code.INTERNAL
    return SpeciateError(known, answer.get("message", "The daemon refused the connection."), answer.get("recovery", ""))


class Line:
    """A connected socket, read by lines."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = b""
        self.was_reset = False
        """Whether the other side went without reading all that was sent."""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> bytes:
        """The next line with its newline; empty at the end. A line that the end cuts off is dropped."""
        parts: list[bytes] = [self._buffer]
        while b"\n" not in parts[-1]:
            try:
                chunk = self._socket.recv(1 << 18)
            except ConnectionError:
                chunk, self.was_reset = b"", True
            if not chunk:
                self._buffer = b""
                return b""
            parts.append(chunk)
        line, _, self._buffer = b"".join(parts).partition(b"\n")
        return line + b"\n"

    def finish(self) -> None:
        """Say that nothing more will be sent."""
        with contextlib.suppress(OSError):  # the other side may have gone already
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()

    def timeout(self, seconds: float | None) -> None:
        self._socket.settimeout(seconds)
