"""FASTA: columns `name`, `description`, `sequence`, and one for every key of the header lines.

    >pep7 kind=cationic tm=61.5 note="from frog skin"        key=value, a value with blanks as JSON has it
    >NP_1.1 [gene=ins] [organism=Homo sapiens]               as the NCBI writes it
    >sp|P01308|INS_HUMAN Insulin OS=Homo sapiens GN=INS      as UniProt does; `accession` and `entry` of its names

Keys in which every value is a number are columns of numbers. `description` is the header line after the name, unless it
has a key of that name.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from speciate.datasets.readers.rows import decode_line, from_rows, read_text, with_bad_rows, with_numbers

_NAME, _DESCRIPTION, _SEQUENCE = "name", "description", "sequence"
_UNIPROT_NAME = re.compile(r"(?:sp|tr)\|(?P<accession>\w+(?:-\d+)?)\|(?P<entry>\w+)")
_UNIPROT = re.compile(r"(?<!\S)(OS|OX|GN|PE|SV)=(.+?)(?=\s(?:OS|OX|GN|PE|SV)=|$)")
_BRACKETS = re.compile(r"\[([\w.\-]+)=([^\]]*)\]")
_PAIR = re.compile(r'(?<!\S)([\w.\-]+)=("(?:[^"\\]|\\.)*"(?!\S)|\S+)')


Record = dict[str, str | None]
"""A header line's keys with their values, and the sequence."""


def read_fasta(path: Path, text: Sequence[str]) -> pa.Table:
    """A record with a line that is not UTF-8, and residues before the first header, are bad rows."""
    rows: list[Record] = []
    parts: list[list[str]] = []
    bad: list[str] = []
    broken = False  # whether the record at the end of `rows` is spoiled
    for number, raw in enumerate(io.BytesIO(read_text(path)), 1):
        line = decode_line(raw.rstrip())
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
        row[_SEQUENCE] = "".join(sequence)
    return with_bad_rows(with_numbers(from_rows(rows), (_NAME, _DESCRIPTION, _SEQUENCE, *text)), bad)


def _header(line: str) -> Record:
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    found: Record = {}
    if (uniprot := _UNIPROT_NAME.fullmatch(name)) is not None:
        found |= uniprot.groupdict()
    closed = rest.rfind("]") + 1  # beyond it each bracket would be sought to the end of the line in vain
    left = rest[:closed]
    for pattern in (_BRACKETS, *([_UNIPROT] if uniprot else [])):
        found |= {key: value.strip() or None for key, value in pattern.findall(left)}
        left = pattern.sub("", left) + (rest[closed:] if pattern is _BRACKETS else "")
    found |= {key: _unquote(value) for key, value in _PAIR.findall(left)}
    return {**found, _NAME: name, _DESCRIPTION: found.get(_DESCRIPTION, rest or None)}


def _unquote(value: str) -> str:
    """Quoted values as JSON reads them; what only looks quoted stays as it is."""
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value


def _drop_last(rows: list[Record], parts: list[list[str]], broken: bool) -> None:
    if broken and rows:
        rows.pop()
        parts.pop()
