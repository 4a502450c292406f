"""Weka's ARFF: attributes become columns; the relational ones in which the UEA archive keeps multivariate series become
`series` [channel][step], and the class attribute then `label`.

Own parser: the libraries at hand read no relational attributes, or stop at the first bad row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from speciate.datasets.readers.rows import Row, from_rows, read_lines, unreadable_error, with_bad_rows
from speciate.datasets.readers.time_series import LABEL, SERIES

_NUMERIC = ("numeric", "real", "integer")
_CELL = re.compile(r"""\s*+(?:'((?:[^'\\]++|\\.)*+)'|"((?:[^"\\]++|\\.)*+)"|([^,'"]*+))\s*+(?:,|$)""")
_ATTRIBUTE = re.compile(r"""@attribute\s+(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^\s{]+))\s*(.*)""", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


class _Attribute(NamedTuple):
    name: str
    kind: str
    """`numeric`, `nominal`, `relational` or `text`."""
    classes: tuple[str, ...] = ()


def read_arff(path: Path, text: Sequence[str]) -> pa.Table:
    """A row that does not fit the attributes is a bad row. `?` is null. Sparse rows `{i value, ...}` are read."""
    numbered = read_lines(path)
    attributes = _header(numbered, path)
    rows: list[Row] = []
    bad: list[str] = []
    for number, line in numbered:
        if line is not None and (not line.strip() or line.lstrip().startswith("%")):
            continue
        try:
            if line is None:
                raise ValueError("not UTF-8")
            rows.append(_row(line.strip(), attributes))
        except ValueError as error:
            bad.append(f"Line {number}: {error}.")
    return with_bad_rows(from_rows(rows), bad)


def _header(numbered: Iterator[tuple[int, str | None]], path: Path) -> list[_Attribute]:
    attributes: list[_Attribute] = []
    inside = False  # a relational attribute: its own attributes only say how long its channels are
    for number, line in numbered:
        if line is None:
            raise unreadable_error(path, f"its header is not UTF-8 at line {number}")
        word = line.strip().split(maxsplit=1)[0].lower() if line.strip() else ""
        if word == "@data":
            if not attributes:
                break
            return _with_label(attributes)
        if word == "@end":
            inside = False
        elif word == "@attribute" and not inside:
            found = _ATTRIBUTE.fullmatch(line.strip())
            if found is None:
                raise unreadable_error(path, f"line {number} declares no attribute")
            try:
                attributes.append(_attribute(found[1] or found[2] or found[3] or "", found[4].strip()))
            except ValueError as error:
                raise unreadable_error(path, f"in line {number} {error}") from error
            inside = attributes[-1].kind == "relational"
    raise unreadable_error(path, "it declares no attributes, or no data follow them")


def _attribute(name: str, kind: str) -> _Attribute:
    if kind.startswith("{"):
        return _Attribute(_unquote(name), "nominal", tuple(str(each) for each in _cells(kind.strip("{} "))))
    word = kind.split(maxsplit=1)[0].lower() if kind else ""
    return _Attribute(
        _unquote(name), "numeric" if word in _NUMERIC else "relational" if word == "relational" else "text"
    )


def _with_label(attributes: list[_Attribute]) -> list[_Attribute]:
    """Names the series and, where it is the one nominal attribute beside the series, the label."""
    if not any(attribute.kind == "relational" for attribute in attributes):
        return attributes
    nominal = [attribute for attribute in attributes if attribute.kind == "nominal"]
    names = {"relational": SERIES, "nominal": LABEL} if len(nominal) == 1 else {"relational": SERIES}
    return [attribute._replace(name=names.get(attribute.kind, attribute.name)) for attribute in attributes]


def _row(line: str, attributes: list[_Attribute]) -> Row:
    if line.startswith("{"):
        return _sparse(line, attributes)
    cells = _cells(line)
    if len(cells) != len(attributes):
        raise ValueError(f"{len(cells)} cells where the header declares {len(attributes)}")
    return {each.name: _value(cell, each) for cell, each in zip(cells, attributes, strict=True)}


def _sparse(line: str, attributes: list[_Attribute]) -> Row:
    """What a sparse row leaves out is 0, and of a nominal attribute its first class."""
    row: Row = {each.name: 0.0 if each.kind == "numeric" else next(iter(each.classes), None) for each in attributes}
    for pair in filter(None, (part.strip() for part in line.strip("{} ").split(","))):
        place, _, value = pair.partition(" ")
        if not place.isdigit() or int(place) >= len(attributes):
            raise ValueError(f"{place!r} is no place of an attribute")
        cells = _cells(value)
        row[attributes[int(place)].name] = _value(cells[0] if cells else None, attributes[int(place)])
    return row


def _value(cell: str | None, attribute: _Attribute) -> Any:
    if cell is None:
        return None
    if attribute.kind == "numeric":
        return float(cell)
    if attribute.kind == "relational":
        channels = [[float(v) if v.strip() != "?" else float("nan") for v in part.split(",")]
                    for part in cell.split("\n")]  # fmt: skip
        if len({len(channel) for channel in channels}) != 1:
            raise ValueError(f"channels of {', '.join(str(len(channel)) for channel in channels)} values")
        return channels
    if attribute.kind == "nominal" and cell not in attribute.classes:
        raise ValueError(f"{cell!r} is none of the classes that the header declares")
    return cell


def _cells(line: str) -> list[str | None]:
    """The cells of one row; None for an unquoted `?`. ValueError where quotes are not closed."""
    cells: list[str | None] = []
    place = 0
    while place < len(line) or (place and line[place - 1] == ","):
        found = _CELL.match(line, place)
        if found is None:
            raise ValueError("a quote is not closed")
        quoted = found[1] if found[1] is not None else found[2]
        if quoted is not None:
            cells.append(_unquote(quoted))
        else:
            bare = found[3].rstrip()
            cells.append(None if bare == "?" else bare)
        if found.end() == place:
            break
        place = found.end()
    return cells


def _unquote(text: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), text)
