"""Hides a run's keys in what others say, should a library ever quote one: the second line, not the first.

Also as JSON, Python and URLs write them, in hexadecimal and base64, and where one is printed in pieces. What is
encrypted, compressed, reversed or written past `sys.stdout` and `sys.stderr` is not recognised.
"""

from __future__ import annotations

import base64
import html
import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any, TextIO
from urllib.parse import quote

_SHORTEST_ENCODED = 10
"""Characters of a form that does not look like a key: shorter ones also occur in other text."""


class Redaction:
    """Standard library only, and nothing to do where a run has no keys."""

    def __init__(self, keys: Iterable[str]) -> None:
        written = {form for key in keys if key for form in (key, *_forms(key))}
        self._forms = sorted(written, key=len, reverse=True)  # a key that is part of another one comes after it

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, "[key]")
        return text

    def __bool__(self) -> bool:
        return bool(self._forms)

    def begun(self, text: str) -> int:
        """How many characters at the end of a text without keys may be the beginning of one: they wait for the rest."""
        longest = min(len(text), max(map(len, self._forms), default=1) - 1)
        for length in range(longest, 0, -1):
            if any(form.startswith(text[-length:]) for form in self._forms):
                return length
        return 0


class RedactedStream:
    """A text stream that hides keys in whatever is written. Call `drain` in the end."""

    def __init__(self, stream: TextIO, redaction: Redaction) -> None:
        self._stream, self._redaction, self._held = stream, redaction, ""

    def write(self, text: str) -> int:
        told = self._redaction(self._held + text)
        held = self._redaction.begun(told)
        self._held = told[len(told) - held :]
        self._stream.write(told[: len(told) - held])
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def drain(self) -> None:
        """Write what waits for a rest that does not come."""
        held, self._held = self._held, ""
        self._stream.write(held)
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def redirect_logging(streams: Iterable[tuple[Any, RedactedStream]]) -> None:
    """Let handlers that were made before, as by libraries that a zygote has imported, write to the new streams."""
    instead = {id(old): new for old, new in streams}
    for logger in (logging.root, *logging.Logger.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            kept = vars(handler).get("stream")  # others, such as logging.lastResort, look sys.stderr up at each line
            if isinstance(handler, logging.StreamHandler) and id(kept) in instead:
                handler.stream = instead[id(kept)]


def _forms(key: str) -> Iterator[str]:
    yield json.dumps(key)[1:-1]
    yield json.dumps(key, ensure_ascii=False)[1:-1]
    yield repr(key)[1:-1]
    yield repr(key.encode())[2:-1]
    yield html.escape(key)
    for safe in ("", "/"):
        yield quote(key, safe=safe)
        yield quote(key, safe=safe).lower()
    for coded in (key.encode().hex(), key.encode().hex().upper(), *_in_base64(key.encode())):
        if len(coded) >= _SHORTEST_ENCODED:
            yield coded


def _in_base64(data: bytes) -> Iterator[str]:
    """What of it is the same wherever it stands in what is encoded, such as behind `user:`."""
    for before in range(3):
        coded = base64.b64encode(bytes(before) + data)
        whole = 8 * (before + len(data)) // 6
        text = coded[(0, 2, 3)[before] : whole].decode()
        yield text
        yield text.translate({ord("+"): "-", ord("/"): "_"})
