"""FASTA: columns `name`, `description`, `sequence`, and one for every key=value of the header lines."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from speciate.datasets.sources.readers.encodings import content, decoded
from speciate.datasets.sources.readers.rows import from_rows, with_bad_rows


def read_fasta(path: Path, text: Sequence[str]) -> pa.Table:
    """A record with a line that is not UTF-8, and residues before the first header, are bad rows."""
    rows: list[dict[str, Any]] = []
    parts: list[list[str]] = []
    bad: list[str] = []
    broken = False  # whether the record at the end of `rows` is spoiled
    for number, raw in enumerate(io.BytesIO(content(path)), 1):
        line = decoded(raw.rstrip())
        if raw.startswith(b">"):
            _drop_last(rows, parts, broken)
            broken = False
            rows.append(_header(line[1:] if line else ""))
            parts.append([])
        if line is None:
            bad.extend([] if broken else [f"Line {number} is not UTF-8."])
            broken = True
        elif rows and not line.startswith(">"):
            parts[-1].append(line.strip())
        elif line and not rows:
            bad.append(f"Line {number} has residues before the first header line.")
    _drop_last(rows, parts, broken)
    for row, sequence in zip(rows, parts, strict=True):
        row["sequence"] = "".join(sequence)
    return with_bad_rows(from_rows(rows), bad)


def _header(line: str) -> dict[str, Any]:
    name, _, description = line.partition(" ")
    return {
        **dict(re.findall(r"([\w.\-]+)=(\S+)", description)), "name": name, "description": description.strip() or None,
    }  # fmt: skip


def _drop_last(rows: list[dict[str, Any]], parts: list[list[str]], broken: bool) -> None:
    if broken and rows:
        rows.pop()
        parts.pop()
