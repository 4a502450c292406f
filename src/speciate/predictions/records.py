"""Lines of the log: a checksum and a JSON object each, so that a line that a crash tore is told from a whole one. Pure.

    1f6ab2c0 {"k":"a","id":"pred-...", ...}

Kinds: `a` an answer, `f` feedback, `g` a gap: so many answers before this line could not be written, and why.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

ANSWER, FEEDBACK, GAP = "a", "f", "g"


class Decoded(NamedTuple):
    records: list[dict[str, Any]]
    torn: int
    """Lines that are not what was written."""


def encode(record: Mapping[str, Any]) -> bytes:
    """Raises ValueError for numbers that are none: JSON has no such."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    data = text.encode("utf-8", "surrogatepass")
    return b"%08x %s\n" % (zlib.crc32(data), data)


def holding(data: bytes, needle: bytes) -> bytes:
    """The lines with `needle` in them. It is looked for in all bytes at once, so the others cost next to nothing."""
    found, at = [], data.find(needle)
    while at >= 0:
        end = data.find(b"\n", at) + 1 or len(data)
        found.append(data[data.rfind(b"\n", 0, at) + 1 : end])
        at = data.find(needle, end)
    return b"".join(found)


def decode(data: bytes) -> Decoded:
    """Whole lines in order. What follows the last newline was torn, or is being written: it is counted, too."""
    records, torn = list[dict[str, Any]](), 0
    for line in data.split(b"\n"):
        if line:
            record = _record(line)
            if record is None:
                torn += 1
            else:
                records.append(record)
    return Decoded(records, torn)


def _record(line: bytes) -> dict[str, Any] | None:
    checksum, _, data = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(data):
            return None
        found = json.loads(data.decode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
