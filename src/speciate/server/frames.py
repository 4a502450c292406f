"""Frames of the stdio transport that are no JSON-RPC messages: answered at once, never passed on.

A frame that the server's parser refuses would never be answered, and its client would wait for ever. So each frame is
checked before anybody records or parses it: by the shim, and by the daemon for whoever speaks to its socket directly.
Frames have a greatest length; what is longer is dropped while it arrives, so that it costs no memory. Standard library
only: the shim starts through it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

LONGEST = 64 << 20
"""Bytes of a frame, and of an HTTP body: 48 MB of files as base64. Larger ones are named by path."""
DEEPEST = 100
"""Levels of nesting. The library's parser refuses 200, Python's about 1,000."""
_KEPT = 1 << 16
"""Bytes kept of each end of a frame that is too long, to find its id."""
PARSE, REQUEST, PARAMS = -32700, -32600, -32602
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')
_LAST = re.compile(rb'[,{]\s*"id"\s*:\s*("(?:[^"\\]|\\.){0,200}"|-?\d{1,200})\s*\}\s*\Z')
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LONGEST_ID = 200


Message = dict[str, Any]
"""A JSON-RPC message: what it holds depends on its method, and the library behind the daemon validates it."""


class TooLong(NamedTuple):
    """A frame of more than `LONGEST` bytes, of which only the ends are left."""

    head: bytes
    tail: bytes


Frame = bytes | TooLong


class FrameCheck(NamedTuple):
    message: Message
    """Parsed, where it may go on; else empty."""
    answer: bytes | None
    """None: pass the frame on. Empty: drop it, for nobody waits for an answer. Else the line to answer with."""


class Splitter:
    """Cuts a stream into frames, whatever the pieces in which it arrives. A frame keeps its newline."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._begun = bytearray()
        self._head = b""
        """First bytes of a frame that was found to be too long, whose end has not come; then `_begun` is its newest
        part."""

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """The frames that end in this piece."""
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            yield self._ended(piece[start : end + 1])
            start = end + 1
        self._add(piece[start:])

    def end(self) -> Iterator[Frame]:
        """What follows the last newline, at the end of the stream: somebody may have forgotten it."""
        if self._begun:
            yield self._ended(b"\n")

    def _ended(self, last: bytes) -> Frame:
        self._add(last)
        begun, head = self._begun, self._head
        self._begun, self._head = bytearray(), b""
        return TooLong(head, bytes(begun)) if head else bytes(begun)

    def _add(self, part: bytes) -> None:
        self._begun += part
        if not self._head and len(self._begun) > self._longest:
            self._head = bytes(self._begun[:_KEPT])
        if self._head and len(self._begun) > _KEPT:
            self._begun = self._begun[-_KEPT:]


def check(frame: Frame) -> FrameCheck:
    """The message of a frame, or how to answer it: -32700 for no JSON, -32600 for no message, -32602 for parameters
    that no method has. A response is never answered, whatever is wrong with it: two peers would go on for ever."""
    if isinstance(frame, TooLong):
        problem = f"The frame is longer than {LONGEST:,} bytes and was dropped. Send less at once, or a path to a file."
        return FrameCheck({}, refusal(_id_of_long(frame), REQUEST, problem))
    if not frame.strip():
        return FrameCheck({}, b"")
    try:
        message = _parse_frame(frame)
    except (ValueError, RecursionError) as error:  # ValueError: also bytes that are no UTF-8, and overlong numbers
        problem = f"The frame is not JSON: {_why_refused(error)}. Send one JSON object a line, as UTF-8."
        return FrameCheck({}, refusal(_id_at_top(frame), PARSE, problem))
    if isinstance(message, list):
        return FrameCheck({}, refusal(None, REQUEST, "Batches are not part of this protocol: send one message a line."))
    if not isinstance(message, dict):
        return FrameCheck({}, refusal(None, REQUEST, "A message is a JSON object."))
    wrong = _answer_invalid(message)
    return FrameCheck(message, None) if wrong is None else FrameCheck({}, wrong)


def refusal(identifier: str | int | None, code: int, message: str) -> bytes:
    """The line that answers a frame with an error."""
    error = {"code": code, "message": message}
    return json.dumps({"jsonrpc": "2.0", "id": identifier, "error": error}).encode() + b"\n"


def _parse_frame(frame: bytes) -> Any:
    message = json.loads(frame.decode(), parse_constant=_no_number)  # decoded here: json would guess at UTF-16
    if _too_deep(message):
        raise RecursionError
    if _SURROGATE.search(frame):
        json.dumps(message, ensure_ascii=False).encode()
    return message


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _why_refused(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"it is nested more than {DEEPEST} levels deep"
    if isinstance(error, UnicodeEncodeError):
        return "a string holds half of a surrogate pair"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    return str(error).partition(";")[0]


def _answer_invalid(message: Message) -> bytes | None:
    """How to answer an object that the server would not, or None where it is a message."""
    method, identifier = message.get("method"), message.get("id")
    if "method" not in message and ("result" in message or "error" in message):
        return None if _is_usable_id(identifier) or identifier is None else b""
    if "id" in message and not _is_usable_id(identifier):
        return refusal(None, REQUEST, "An id is a string or a whole number.")
    if not isinstance(method, str):
        return refusal(identifier, REQUEST, "A message has a method, which is a string.")
    if message.get("jsonrpc") != "2.0":
        return refusal(identifier, REQUEST, 'A message has "jsonrpc": "2.0".')
    parameters = message.get("params")
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        problem = "params is an object."
    elif not isinstance(parameters.get("_meta", {}), dict):
        problem = "params._meta is an object."
    else:
        return None
    return refusal(identifier, PARAMS, problem) if "id" in message else b""


def _is_usable_id(identifier: object) -> bool:
    return isinstance(identifier, str | int) and not isinstance(identifier, bool)


def _too_deep(message: Any) -> bool:
    """Level by level, for recursion is what is to be avoided."""
    level = [message] if isinstance(message, dict | list) else []
    for _ in range(DEEPEST):
        level = [
            part
            for each in level
            for part in (each.values() if isinstance(each, dict) else each)
            if isinstance(part, dict | list)
        ]
        if not level:
            return False
    return True


def _id_of_long(frame: TooLong) -> str | int | None:
    if (found := _id_at_top(frame.head)) is not None:
        return found
    last = _LAST.search(frame.tail)  # what stands before the last brace belongs to the outermost object
    return _scalar(last[1]) if last else None


def _id_at_top(frame: bytes) -> str | int | None:
    """The id of a frame that cannot be parsed as a whole, where it is a plain string or number near its begin."""
    depth, last, found = 0, b"", False
    for token in _TOKEN.finditer(frame, 0, _KEPT):
        text = token[0]
        if found:
            return _scalar(text)
        found = depth == 1 and text == b":" and last == b'"id"'
        depth += (text in (b"[", b"{")) - (text in (b"]", b"}"))
        last = text
    return None


def _scalar(text: bytes) -> str | int | None:
    try:
        value = json.loads(text) if len(text) <= _LONGEST_ID else None
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        return None
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None
