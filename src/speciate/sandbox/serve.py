"""The inside of a sandboxed process: one line of JSON in, one out, until the input ends. `client.py` is the outside.

    {"open": LOADING, "mark"} or {"ask": QUESTION, "mark"}  ->  {"value": JSON, "mark"} or {"error": TEXT, "mark"}

An answer bears the mark of its question: a line that foreign code wrote by itself, or wrote twice, answers nothing.
A question with `"parts": true` may be answered in parts, `{"part": JSON, "mark"}` lines before the answer (`tell`), and
while it is answered the outside may send words to whoever answers, `{"word": JSON, "mark"}` lines.

What code prints goes to standard error; answers have a descriptor of their own. Standard library alone, for every
sandboxed process imports this module when it starts.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol


class Handler(Protocol):
    def open(self, loading: Any) -> None:
        """Called before any question, where the client has something to load. What it raises goes back as text."""
        ...

    def answer(self, question: Any) -> Any:
        """JSON. What it raises goes back as text: a handler whose errors may quote data catches them itself."""
        ...


class _Question(NamedTuple):
    """The question that is being answered, and may be in parts."""

    mark: str
    answers: int
    """Descriptor."""


_asked: list[_Question] = []
"""One at most: a process answers one question at a time."""


def tells() -> bool:
    """Whether who asked takes the answer in parts."""
    return bool(_asked)


def tell(part: Any) -> list[Any]:
    """Send a part of the answer, JSON, to who asked for parts; nobody hears it otherwise. Returns the words that came
    from there since the last part."""
    if not _asked:
        return []
    [question] = _asked
    _write(question.answers, json.dumps({"part": part, "mark": question.mark}).encode())
    return _words(question.mark)


def _words(mark: str) -> list[Any]:
    """The outside sends nothing but words until it has the answer."""
    words = []
    while _input.is_ready():
        line = _input.line()
        if not line:
            break  # the outside is gone; the next write fails
        said = json.loads(line)
        if said.get("mark") == mark and "word" in said:
            words.append(said["word"])
    return words


class _Input:
    """Lines of a descriptor, which can be asked whether there is something: a buffered file hides that from select."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._read = descriptor, bytearray()

    def is_ready(self) -> bool:
        return b"\n" in self._read or bool(select.select([self._descriptor], [], [], 0)[0])

    def line(self) -> bytes:
        """The next one, once it is whole; empty at the end."""
        searched = 0
        while (end := self._read.find(b"\n", searched)) < 0:
            searched = len(self._read)
            part = os.read(self._descriptor, 1 << 20)
            if not part:
                return b""
            self._read += part
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        return line


_input = _Input(0)


def serve(handler: Handler, *, quiet: bool = False) -> None:
    """Answer until the input ends. `quiet`: what code prints goes nowhere, in place of standard error."""
    answers, sink = os.dup(1), os.open(os.devnull, os.O_WRONLY) if quiet else 2
    for printed in (1, 2):
        os.dup2(sink, printed)
    while line := _input.line():
        frame = json.loads(line)
        if "word" in frame:
            continue  # it came when the answer was on its way
        if frame.get("parts"):
            _asked.append(_Question(frame["mark"], answers))
        try:
            reply = _reply(handler, frame)
        finally:
            _asked.clear()
        _write(answers, reply)


def _reply(handler: Handler, frame: Mapping[str, Any]) -> bytes:
    mark, value = frame["mark"], None
    try:
        if "open" in frame:
            handler.open(frame["open"])
        else:
            value = handler.answer(frame["ask"])
        return json.dumps({"value": value, "mark": mark}).encode()
    except Exception as error:  # noqa: BLE001 - foreign code may fail in any way; it goes back as data
        return json.dumps({"error": f"{type(error).__name__}: {error}"[:1000], "mark": mark}).encode()


def _write(descriptor: int, line: bytes) -> None:
    """All of it: a signal may cut a write short."""
    rest = memoryview(line + b"\n")
    while rest:
        rest = rest[os.write(descriptor, rest) :]
