"""The inside of a sandboxed process: one line of JSON in, one out, until the input ends. `client.py` is the outside.

    {"open": LOADING, "mark"} or {"ask": QUESTION, "mark"}  ->  {"value": JSON, "mark"} or {"error": TEXT, "mark"}

An answer bears the mark of its question: a line that foreign code wrote by itself, or wrote twice, answers nothing.
What code prints goes to standard error; answers have a descriptor of their own. Standard library alone, for every
sandboxed process imports this module when it starts.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any, Protocol


class Handler(Protocol):
    def open(self, loading: Any) -> None:
        """Called before any question, where the client has something to load. What it raises goes back as text."""
        ...

    def answer(self, question: Any) -> Any:
        """JSON. What it raises goes back as text: a handler whose errors may quote data catches them itself."""
        ...


def serve(handler: Handler, *, quiet: bool = False) -> None:
    """Answer until the input ends. `quiet`: what code prints goes nowhere, in place of standard error."""
    answers, sink = os.dup(1), os.open(os.devnull, os.O_WRONLY) if quiet else 2
    for printed in (1, 2):
        os.dup2(sink, printed)
    for line in sys.stdin.buffer:
        _write(answers, _reply(handler, json.loads(line)))


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
