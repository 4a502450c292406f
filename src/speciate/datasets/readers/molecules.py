"""SDF and SMILES files: columns `name`, `smiles`, and of SDF one for every data item.

A record that cannot be read, or that the file's end cuts, is a bad row with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from speciate.datasets.readers.rows import REASON, from_rows, read_text, with_numbers
from speciate.errors import Code, SpeciateError
from speciate.modalities.biology.molecule import END, from_block
from speciate.modalities.contract import DecodeError

_ITEM = re.compile(r">.*?<([^<>\n]+)>")
_HEADER = re.compile(r"(?i)(canonical_?|isomeric_?)?smiles")
_LAST = "$$$$"


def read_sdf(path: Path, text: Sequence[str]) -> pa.Table:
    """MISSING_EXTRA where RDKit, which turns atoms and bonds into SMILES, is not installed."""
    _check_installed()
    rows = [_record(lines, whole) for lines, whole in _records(path)]
    return with_numbers(from_rows(rows), ("name", "smiles", REASON, *text))


def read_smiles(path: Path, text: Sequence[str]) -> pa.Table:
    """A molecule per line, then its name; a first line of words is a header. Molecules are checked later."""
    rows: list[dict[str, str | None]] = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.split(None, 1)
        if not words or (number == 1 and _HEADER.fullmatch(words[0])):
            continue
        rows.append({"name": words[1].strip() if len(words) > 1 else None, "smiles": words[0]})
    return from_rows(rows)


def _records(path: Path) -> Iterator[tuple[list[str], bool]]:
    """The lines of each, and whether it ends as records do."""
    lines: list[str] = []
    for line in _text(path).splitlines():
        if line.rstrip() == _LAST:
            yield lines, True
            lines = []
        else:
            lines.append(line)
    if any(line.strip() for line in lines):
        yield lines, False


def _record(lines: list[str], whole: bool) -> dict[str, str | None]:
    row: dict[str, str | None] = {"name": lines[0].strip() or None if lines else None, "smiles": None}
    ends = [number for number, line in enumerate(lines) if line.rstrip() == END]
    row |= _items(lines[ends[0] + 1 :]) if ends else {}
    try:
        if not whole:
            raise DecodeError("partial", f"The record does not end with {_LAST!r}: the file was cut.")
        row["smiles"] = from_block("\n".join([*lines, _LAST]))
    except DecodeError as error:
        row[REASON] = error.detail
    return row


def _items(lines: list[str]) -> dict[str, str | None]:
    """`> <NAME>`, then lines up to an empty one."""
    found: dict[str, str | None] = {}
    name, values = None, list[str]()
    for line in [*lines, ""]:
        if (head := _ITEM.match(line)) is not None:
            name, values = head[1].strip(), []
        elif name is not None and not line.strip():
            found[name if name not in ("name", "smiles", REASON) else f"{name}_"] = "\n".join(values) or None
            name = None
        elif name is not None:
            values.append(line.strip())
    return found


def _text(path: Path) -> str:
    return read_text(path).decode("utf-8", errors="replace")


def _check_installed() -> None:
    try:
        import rdkit  # noqa: F401
    except ImportError as error:
        raise SpeciateError(
            Code.MISSING_EXTRA,
            "SDF files are read by RDKit, which is not installed.",
            "Run: pip install 'speciate[chem]'",
        ) from error
