"""How a file is read as a table: the formats, by suffix, and the caller's choices.

    csv tsv json jsonl parquet arrow ts arff            the format of every file
    fasta sdf smi
    files                                               every file is one example, whatever its suffix
    wide                                                a series a row: its numeric columns are the steps
    long   long:ID,TIME   long:ID,TIME,LABEL            a step a row: a column names the series, one the time
    csv+long                                            a format and a layout
    as-is                                               files are used even if a person should look at them first

Standard library only: the daemon checks a caller's choice.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Literal, NamedTuple

from speciate.errors import Code, SpeciateError

TABLES = {
    ".csv": "csv", ".tsv": "tsv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
    ".arrow": "arrow", ".feather": "arrow", ".ts": "ts", ".arff": "arff", ".fasta": "fasta", ".fa": "fasta",
    ".faa": "fasta", ".sdf": "sdf", ".smi": "smi", ".smiles": "smi",
}  # fmt: skip
"""Suffix -> format of files that hold many examples. All but Parquet and Arrow may end in `.gz`, too."""
FORMATS = tuple(dict.fromkeys(TABLES.values()))
_COLUMNAR = ("parquet", "arrow")
LEAST_STEPS = 8
AS_IS = "as-is"

Shape = Literal["wide", "long", "files"]


class Reader(NamedTuple):
    """The caller's choice; None leaves it to suffixes and first bytes."""

    format: str | None = None
    layout: Shape | None = None
    columns: tuple[str, ...] = ()
    """For the layout `long`: the columns of id and time."""
    as_is: bool = False
    """Whether media are used that a person should look at first, such as scans with suspected text."""

    def __str__(self) -> str:
        layout = self.layout and self.layout + (":" + ",".join(self.columns) if self.columns else "")
        return "+".join(part for part in (self.format, layout, AS_IS * self.as_is) if part) or "auto"


def parse_reader(text: str | None) -> Reader:
    """`auto` or None, a format, a layout, or `FORMAT+LAYOUT`. INVALID for anything else."""
    if text is None or text == "auto":
        return Reader()
    if text == AS_IS:
        return Reader(as_is=True)
    format_, _, layout = text.rpartition("+")
    if not format_ and layout in FORMATS:
        return Reader(layout)
    name, colon, rest = layout.partition(":")
    columns = tuple(column.strip() for column in rest.split(",")) if colon else ()
    known = name in ("wide", "files") and not colon, name == "long" and len(columns) in (0, 2) and all(columns or "-")
    if any(known) and (not format_ or (format_ in FORMATS and name != "files")):
        return Reader(format_ or None, name, columns)  # type: ignore[arg-type]  # one of Shape, as checked
    raise SpeciateError(
        Code.INVALID,
        f"There is no reader {text!r}. A reader is a format ({', '.join(FORMATS)}), a layout (files, wide, long, "
        "long:ID,TIME), or both, such as 'csv+long'; or as-is.",
        "Call create_dataset again with one of those, or without reader.",
    )


def table_suffix(name: str) -> str:
    """`.csv` or `.csv.gz` of a name, as it is written there; empty if it is no table."""
    ends = name.rsplit(".", 2)[1:]
    suffix = ends[-1:] if ends and ends[-1].lower() != "gz" else ends
    kind = TABLES.get(f".{suffix[0].lower()}") if suffix else None
    return "" if kind is None or (len(suffix) == 2 and kind in _COLUMNAR) else "".join(f".{end}" for end in suffix)


def format_of(name: str) -> str | None:
    """The format that a file's name tells."""
    suffix = table_suffix(name).lower().removesuffix(".gz")
    return TABLES.get(suffix)


def is_recording(head: bytes) -> bool:
    """Whether the first bytes of a CSV look like one series, a step a line: numbers in most lines, and no id that
    repeats."""
    lines = [re.split(rb"[,;\t]", line.strip()) for line in head.splitlines()[1:-1]]
    width = Counter(map(len, lines)).most_common(1)[0][0] if lines else 0
    rows = [row for cells in lines if len(cells) == width and (row := _numbers(cells)) is not None]
    if len(rows) < LEAST_STEPS or 2 * len(rows) <= len(lines):
        return False
    first = [row[0] for row in rows]
    whole = all(value == int(value) if math.isfinite(value) else False for value in first)
    return not (whole and len(set(first)) < len(first) / 4 and width > 2)


def _numbers(cells: list[bytes]) -> list[float] | None:
    try:
        return [float(cell or "nan") for cell in cells]
    except ValueError:
        return None
