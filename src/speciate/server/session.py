"""What a client's MCP connection has said and is still owed: all that another daemon must be told to go on with it.

Pure: lines in, lines out. Requests that only read are repeated on the new connection. A call of a tool that changes
something may have been done, or not; it is answered with an error that tells the client how to find out. Both eras:
`initialize` and subscriptions of the older one are replayed under ids of our own, whose answers the client never
sees; a `subscriptions/listen` of the newer one is an open request like any other. A repeated `wait_for_job` waits only
for the rest of its time: else a client of daemons that end every few seconds would never be answered.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from speciate.server.frames import Message

_OWN = "speciate-replay-"
_MODERN = "io.modelcontextprotocol/protocolVersion"
_CHANGING_METHODS = {"tasks/update"}
WAITING_TOOL, WAIT_SECONDS = "wait_for_job", 30.0
"""The tool that takes its time, and its `timeout_seconds` where the call gives none."""
_ADVICE = (
    "{tool} was interrupted: the daemon of the workspace ended before it answered, so the change may have been made "
    "or not. A new daemon runs. Repeat the call with the same idempotency_key and arguments: it is then done exactly "
    "once. If you gave none, look first (get_status, list_jobs), then call with an idempotency_key."
)

Key = str | int


class _Request(NamedTuple):
    line: bytes
    method: str
    tool: str
    modern: bool
    since: float


class Session:
    """`read_only` are the tools that may be repeated; the daemon names them when it says hello."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.read_only: Collection[str] = ()
        self._open: dict[Key, _Request] = {}
        self._delivered: set[Key] = set()
        """Open requests that a daemon may have begun to do."""
        self._initialize: bytes | None = None
        self._initialized: bytes | None = None
        self._kept: dict[tuple[str, str], bytes] = {}
        """The newest `resources/subscribe` of each URI, and `logging/setLevel`."""
        self._own: set[Key] = set()
        self._serial = 0

    @property
    def owed(self) -> bool:
        """Whether an answer is missing that will come by itself: a listening request ends with the connection."""
        return any(request.method != "subscriptions/listen" for request in self._open.values())

    @property
    def replaying(self) -> bool:
        """Whether something that was replayed is still unanswered."""
        return bool(self._own)

    def holds(self, identifier: object) -> bool:
        """Whether a request with this id is unanswered: another one would get its answer."""
        return isinstance(identifier, str | int) and identifier in self._open

    def sent(self, line: bytes, *, delivered: bool, message: Message | None = None) -> None:
        """The client says `line`, which passed `frames.check`; `delivered`: there is a daemon to hear it. `message`:
        the line, where it was parsed already."""
        message = _parse(line) if message is None else message
        method, identifier = message.get("method"), message.get("id")
        if not isinstance(method, str):
            return
        parameters = message.get("params") or {}
        self._keep(method, parameters, line)
        if isinstance(identifier, str | int):
            tool = str(parameters.get("name", "")) if method == "tools/call" else ""
            modern = _MODERN in (parameters.get("_meta") or {})
            self._open[identifier] = _Request(line, method, tool, modern, self._clock())
            (self._delivered.add if delivered else self._delivered.discard)(identifier)
        elif method == "notifications/cancelled":
            cancelled = parameters.get("requestId")
            if isinstance(cancelled, str | int):
                self._open.pop(cancelled, None)

    def _keep(self, method: str, parameters: Mapping[str, Any], line: bytes) -> None:
        if method == "initialize":
            self._initialize, self._initialized = line, None
        elif method == "notifications/initialized":
            self._initialized = line
        elif method == "resources/subscribe":
            self._kept["resources/subscribe", str(parameters.get("uri"))] = line
        elif method == "resources/unsubscribe":
            self._kept.pop(("resources/subscribe", str(parameters.get("uri"))), None)
        elif method == "logging/setLevel":
            self._kept[method, ""] = line

    def received(self, line: bytes) -> bool:
        """The daemon says `line`; whether it is for the client (and not the answer to something replayed)."""
        message = _parse(line)
        identifier = message.get("id")
        if "method" in message or not isinstance(identifier, str | int):
            return True
        if identifier in self._own:
            self._own.discard(identifier)
            return False
        request = self._open.pop(identifier, None)
        if request and request.method == "initialize" and "error" in message:
            self._initialize = None  # refused, as on a connection of the newer era: the next daemon must not hear it
        return True

    # A new connection

    def opening(self) -> bytes | None:
        """What to say first on a new connection, and wait for the answer to, before `replay`. None: nothing."""
        self._own.clear()
        if self._initialize is None or any(request.method == "initialize" for request in self._open.values()):
            return None  # never said, or not answered yet: then it is among the open requests
        return self._renamed(self._initialize)

    def replay(self) -> list[bytes]:
        """The lines that bring the new daemon to where the old one was, and what no daemon has heard yet."""
        self._delivered = set(self._open)
        lines = [self._initialized] if self._initialized else []
        lines += [self._renamed(line) for line in self._kept.values()]
        return lines + [self._repeated(request) for request in self._open.values()]

    def interrupted(self) -> list[bytes]:
        """Answers for the client to calls that cannot be repeated; they are no longer open."""
        lost = {
            key: request
            for key, request in self._open.items()
            if key in self._delivered and not self._repeatable(request)
        }
        for key in lost:
            del self._open[key]
        return [_tool_error(key, request, _ADVICE.format(tool=request.tool)) for key, request in lost.items()]

    def give_up(self, why: str) -> list[bytes]:
        """Answers to everything that is open, where no daemon can be had."""
        answers = [
            _tool_error(key, request, why) if request.method == "tools/call" else _protocol_error(key, why)
            for key, request in self._open.items()
        ]
        self._open.clear()
        return answers

    def _repeatable(self, request: _Request) -> bool:
        if request.method == "tools/call":
            return request.tool in self.read_only
        return request.method not in _CHANGING_METHODS

    def _repeated(self, request: _Request) -> bytes:
        if request.tool != WAITING_TOOL:
            return request.line
        message = _parse(request.line)
        arguments = message["params"].get("arguments") or {}
        wanted = arguments.get("timeout_seconds", WAIT_SECONDS) if isinstance(arguments, dict) else None
        if not isinstance(wanted, int | float):
            return request.line  # the daemon says what is wrong with it
        left = max(0.0, wanted - (self._clock() - request.since))
        message["params"]["arguments"] = arguments | {"timeout_seconds": min(wanted, left)}
        return _encode(message)

    def _renamed(self, line: bytes) -> bytes:
        self._serial += 1
        while (own := f"{_OWN}{self._serial}") in self._open:  # a client may call its requests as it likes
            self._serial += 1
        self._own.add(own)
        return _encode(_parse(line) | {"id": own})


def _parse(line: bytes) -> Message:
    """A frame as an object; an empty one where it is none: the daemon will say what is wrong with it."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _encode(message: Message) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _tool_error(key: Key, request: _Request, text: str) -> bytes:
    if request.method != "tools/call":
        return _protocol_error(key, text)
    result: Message = {"content": [{"type": "text", "text": text}], "isError": True}
    if request.modern:
        result["resultType"] = "complete"
    return _encode({"jsonrpc": "2.0", "id": key, "result": result})


def _protocol_error(key: Key, text: str) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": key, "error": {"code": -32603, "message": text}})
