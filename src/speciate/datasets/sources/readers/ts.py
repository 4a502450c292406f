"""sktime's .ts: `@` lines, then a series a line, channels parted by `:`, the class last.

Columns `series` and `label`. Time stamps are refused: every value stands at its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from speciate.datasets.sources.readers.encodings import lines
from speciate.datasets.sources.readers.rows import from_rows, unread, unreadable, with_bad_rows


def read_ts(path: Path, text: Sequence[str]) -> pa.Table:
    """A series that is not what the header declares is a bad row."""
    header, rows, bad = _Header(), [], []
    numbered = lines(path)
    for number, line in numbered:
        if line is None:
            raise unreadable(path, f"its header is not UTF-8 at line {number}")
        if line.lower().startswith("@data"):
            break
        header = header.with_line(line, path)
    else:
        raise unreadable(path, "no line @data ends its header")
    if header.stamped:
        raise unreadable(path, "series with time stamps are not read")
    for series, (number, line) in enumerate(((n, s) for n, s in numbered if s is None or _is_series(s)), 1):
        try:
            if line is None:
                raise ValueError(f"line {number} is not UTF-8")
            rows.append(_series(line.strip(), header))
        except ValueError as error:
            bad.append(f"Series {series}: {error}.")
    return with_bad_rows(from_rows(rows), bad)


def _is_series(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


class _Header(NamedTuple):
    channels: int | None = None
    length: int | None = None
    classes: frozenset[str] = frozenset()
    labelled: bool = False
    stamped: bool = False

    def with_line(self, line: str, path: Path) -> _Header:
        word, _, rest = line.strip().partition(" ")
        first = rest.split(" ")[0].lower()
        try:
            if word.lower() in ("@dimensions", "@dimension"):
                return self._replace(channels=int(first))
            if word.lower() == "@serieslength":
                return self._replace(length=int(first) or None)
        except ValueError as error:
            raise unread(path, error) from None
        if word.lower() in ("@classlabel", "@targetlabel"):
            return self._replace(labelled=first == "true", classes=frozenset(rest.split()[1:]))
        if word.lower() == "@timestamps":
            return self._replace(stamped=first == "true")
        return self


def _series(line: str, header: _Header) -> dict[str, Any]:
    parts = line.split(":")
    label = parts.pop().strip() if header.labelled else None
    if header.channels is not None and len(parts) != header.channels:
        raise ValueError(f"{len(parts)} channels where the header declares {header.channels}")
    if header.classes and label not in header.classes:
        raise ValueError(f"{label!r} is none of the classes that the header declares")
    channels = [[float("nan") if cell.strip() == "?" else float(cell) for cell in part.split(",")] for part in parts]
    lengths = {len(channel) for channel in channels}
    if len(lengths) > 1 or (header.length is not None and lengths != {header.length}):
        declared = "" if header.length is None else f" where the header declares {header.length}"
        raise ValueError(f"channels of {', '.join(map(str, sorted(lengths)))} values{declared}")
    return {"series": channels, "label": label}
