"""Hides a run's keys in what others say, should a library ever quote one: the second line, not the first."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TextIO


class Redaction:
    """Standard library only, and nothing to do where a run has no keys."""

    def __init__(self, keys: Iterable[str]) -> None:
        written = {form for key in keys for form in (key, json.dumps(key)[1:-1])}
        self._forms = sorted(written, key=len, reverse=True)  # a key that is part of another one comes after it

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, "[key]")
        return text

    def __bool__(self) -> bool:
        return bool(self._forms)


class RedactedStream:
    """A text stream that hides keys in whatever is written in one piece."""

    def __init__(self, stream: TextIO, redaction: Redaction) -> None:
        self._stream, self._redaction = stream, redaction

    def write(self, text: str) -> int:
        self._stream.write(self._redaction(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
