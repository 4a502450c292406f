"""PLY files (Turk 1994), ASCII and binary: the declarations of the header, and every element checked against them.

Readers of meshes and of clouds share this one: the usual libraries take a file that ends early for a shorter one.
"""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import DecodeError

MAGIC = (b"ply\n", b"ply\r", b"ply ")
_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
_ORDERS: dict[str, Literal["<", ">", ""]] = {
    "ascii": "", "binary_little_endian": "<", "binary_big_endian": ">",
}  # fmt: skip
_LONGEST_HEADER = 1 << 16
_FAR_BEYOND_A_BYTE = 1023
_END = re.compile(rb"(?m)^end_header[ \t]*\r?\n")

Numbers = npt.NDArray[Any]


class Property(NamedTuple):
    name: str
    type: str
    """Type of a value, as numpy writes it, without byte order."""
    length: str | None
    """For a list: the type of its length."""


class Element(NamedTuple):
    name: str
    rows: int
    properties: tuple[Property, ...]


class PlyHeader(NamedTuple):
    order: Literal["<", ">", ""]
    """Byte order; empty if the numbers are text."""
    elements: tuple[Element, ...]
    end: int
    """Where the data begin."""

    def count(self, name: str) -> int:
        return sum(element.rows for element in self.elements if element.name == name)

    @property
    def format(self) -> str:
        return "PLY (ASCII)" if not self.order else "PLY (binary)"


class Lists(NamedTuple):
    """(N,) how long each list is, and the values of all of them one after another."""

    lengths: npt.NDArray[np.int64]
    values: Numbers


Columns = dict[str, Numbers | Lists]


def header(data: bytes) -> PlyHeader:
    """Raises DecodeError if it is none."""
    head = bytes(data[:_LONGEST_HEADER])
    found = _END.search(head)
    if not head.startswith(MAGIC) or found is None:
        raise DecodeError("error", "Not a PLY file, or its header is damaged.")
    order: Literal["<", ">", ""] | None = None
    elements: list[Element] = []
    try:
        for line in head[: found.start()].decode("latin-1").splitlines()[1:]:
            match line.split():
                case ["format", kind, _]:
                    order = _ORDERS[kind]
                case ["element", name, count]:
                    elements.append(Element(name, int(count), ()))
                case ["property", "list", length, kind, name]:
                    if _TYPES[length][0] == "f":
                        raise ValueError(f"the length of {name!r} is no whole number")
                    elements[-1] = _with(elements[-1], Property(name, _TYPES[kind], _TYPES[length]))
                case ["property", kind, name]:
                    elements[-1] = _with(elements[-1], Property(name, _TYPES[kind], None))
                case [] | ["comment" | "obj_info", *_]:
                    pass
                case _:
                    raise DecodeError("error", f"A line of the PLY header means nothing: {line[:80]!r}.")
    except (KeyError, ValueError, IndexError) as error:
        raise DecodeError("error", f"The PLY header is damaged: {error}.") from error
    if order is None or any(element.rows < 0 for element in elements):
        raise DecodeError("error", "The PLY header names no format, or fewer than no rows.")
    return PlyHeader(order, tuple(elements), found.end())


def read(data: bytes, head: PlyHeader, most: int) -> dict[str, Columns]:
    """Every element with its columns, by name. Refused beyond `most` rows of one, before any is read; partial if the
    file holds fewer than it declares."""
    for element in head.elements:
        if element.rows > most:
            raise DecodeError("refused", f"{element.rows:,} of {element.name!r}, more than {most:,}.")
    return _read_text(data, head) if not head.order else _read_binary(data, head)


def _with(element: Element, more: Property) -> Element:
    return element._replace(properties=(*element.properties, more))


def _short(element: Element, there: int) -> DecodeError:
    return DecodeError("partial", f"{there:,} of {element.name!r} where the header declares {element.rows:,}.")


def _read_text(data: bytes, head: PlyHeader) -> dict[str, Columns]:
    """A row a line."""
    lines = [line for line in data[head.end :].splitlines() if line.strip()]
    found: dict[str, Columns] = {}
    start = 0
    for element in head.elements:
        rows = lines[start : start + element.rows]
        if len(rows) < element.rows:
            raise _short(element, len(rows))
        start += element.rows
        try:
            found[element.name] = _parsed(element, rows)
        except (ValueError, IndexError) as error:
            raise DecodeError("partial", f"A row of {element.name!r} is cut or no numbers: {error}.") from error
    return found


def _parsed(element: Element, rows: list[bytes]) -> Columns:
    """If all rows have one layout they are read at once, else one by one."""
    properties = element.properties
    if not rows or not properties:
        return {each.name: _empty(each) for each in properties}
    values = np.array(b" ".join(rows).split()).astype(np.float64)
    lists = [each.length is not None for each in properties]
    if not any(lists):
        table = values.reshape(len(rows), -1)
        if table.shape[1] < len(properties):
            raise ValueError(f"{table.shape[1]} values where {len(properties)} are declared")
        return {each.name: table[:, place] for place, each in enumerate(properties)}
    widths = _widths(rows[0].split(), lists)
    if len(values) == len(rows) * sum(widths):
        table = values.reshape(len(rows), -1)
        starts = np.concatenate([[0], np.cumsum(widths)])
        if all((table[:, start] == width - 1).all() for start, width, is_list in zip(starts, widths, lists, strict=False) if is_list):  # fmt: skip  # noqa: E501
            return {
                each.name: _sliced(table, int(start), width, is_list=is_list)
                for each, start, width, is_list in zip(properties, starts, widths, lists, strict=False)
            }
    return _one_by_one(element, [[float(cell) for cell in row.split()] for row in rows])


def _widths(cells: list[bytes], lists: list[bool]) -> list[int]:
    """How many cells each property of a row takes."""
    widths, place = [], 0
    for is_list in lists:
        widths.append(1 + int(cells[place]) if is_list else 1)
        place += widths[-1]
    return widths


def _sliced(table: Numbers, start: int, width: int, *, is_list: bool) -> Numbers | Lists:
    if not is_list:
        return np.asarray(table[:, start])
    lengths = np.full(len(table), width - 1, np.int64)
    return Lists(lengths, table[:, start + 1 : start + width].ravel())


def _one_by_one(element: Element, rows: list[list[float]]) -> Columns:
    gathered: dict[str, list[Any]] = {each.name: [] for each in element.properties}
    for row in rows:
        place = 0
        for each in element.properties:
            length = int(row[place]) if each.length else 1
            place += bool(each.length)
            if place + length > len(row):
                raise ValueError("fewer values than it says")
            gathered[each.name].append(row[place : place + length])
            place += length
    return {each.name: _columns_of(each, gathered[each.name]) for each in element.properties}


def _columns_of(each: Property, rows: list[list[float]]) -> Numbers | Lists:
    values = np.array([value for row in rows for value in row], np.float64)
    return Lists(np.array([len(row) for row in rows], np.int64), values) if each.length else values


def _empty(each: Property) -> Numbers | Lists:
    return Lists(np.zeros(0, np.int64), np.zeros(0)) if each.length else np.zeros(0)


def _read_binary(data: bytes, head: PlyHeader) -> dict[str, Columns]:
    found: dict[str, Columns] = {}
    place = head.end
    for element in head.elements:
        least = sum(np.dtype(each.length or each.type).itemsize for each in element.properties)
        if place + least * element.rows > len(data):
            raise _short(element, (len(data) - place) // max(least, 1))
        columns, place = _unpacked(data, place, element, head.order)
        found[element.name] = columns
    return found


def _unpacked(data: bytes, place: int, element: Element, order: str) -> tuple[Columns, int]:
    """The columns of an element, and where it ends. Lists that are all of one length are taken at once."""
    if not element.rows or not element.properties:
        return {each.name: _empty(each) for each in element.properties}, place
    row = _row_type(data, place, element, order)
    if row is not None and place + row.itemsize * element.rows <= len(data):
        table = np.frombuffer(data, row, element.rows, place)
        if all((table[_length(each)] == table[_length(each)][0]).all() for each in element.properties if each.length):
            return {each.name: _column(table, each) for each in element.properties}, place + table.nbytes
    return _walked(data, place, element, order)


def _length(each: Property) -> str:
    return f"length of {each.name}"


def _row_type(data: bytes, place: int, element: Element, order: str) -> np.dtype[Any] | None:
    """Type of a row as the first one is; None if that is cut."""
    fields: list[Any] = []
    for each in element.properties:
        if each.length is None:
            fields.append((each.name, order + each.type))
        else:
            kind = np.dtype(order + each.length)
            if place + kind.itemsize > len(data):
                return None
            length = max(int(np.frombuffer(data, kind, 1, place)[0]), 0)
            if length > len(data):
                return None
            fields += [(_length(each), kind), (each.name, order + each.type, (length,))]
        place += np.dtype(fields[-1][1]).itemsize * (length if each.length else 1)
        place += np.dtype(order + each.length).itemsize if each.length else 0
    try:
        return np.dtype(fields)
    except ValueError as error:
        raise DecodeError("error", f"The PLY header is damaged: {error}.") from error


def _column(table: Numbers, each: Property) -> Numbers | Lists:
    if each.length is None:
        return np.asarray(table[each.name])
    return Lists(table[_length(each)].astype(np.int64), table[each.name].ravel())


def _walked(data: bytes, place: int, element: Element, order: str) -> tuple[Columns, int]:
    """Row by row: lists of several lengths."""
    gathered: dict[str, list[Numbers]] = {each.name: [] for each in element.properties}
    for row in range(element.rows):
        for each in element.properties:
            length = 1
            if each.length is not None:
                kind = np.dtype(order + each.length)
                if place + kind.itemsize > len(data):
                    raise _short(element, row)
                length = int(np.frombuffer(data, kind, 1, place)[0])
                place += kind.itemsize
            kind = np.dtype(order + each.type)
            if length < 0 or place + kind.itemsize * length > len(data):
                raise _short(element, row)
            gathered[each.name].append(np.frombuffer(data, kind, length, place))
            place += kind.itemsize * length
    columns: Columns = {}
    for each in element.properties:
        parts = gathered[each.name]
        values = np.concatenate(parts)
        columns[each.name] = Lists(np.array([len(part) for part in parts], np.int64), values) if each.length else values
    return columns, place


def points(vertex: Columns) -> npt.NDArray[np.float64]:
    """(V, 3): x, y and z."""
    found = [vertex.get(axis) for axis in "xyz"]
    if any(column is None or isinstance(column, Lists) for column in found):
        raise DecodeError("error", "The vertices of the PLY have no x, y and z.")
    return np.stack([np.asarray(column, np.float64) for column in found], axis=1)


def colours(vertex: Columns) -> npt.NDArray[np.uint8] | None:
    """(V, 3): red, green and blue; of numbers with a fraction, 1 is full, and of those beyond a byte, 65,535."""
    found = [vertex.get(name, vertex.get(f"diffuse_{name}")) for name in ("red", "green", "blue")]
    if any(column is None or isinstance(column, Lists) for column in found):
        return None
    values = np.stack([np.asarray(column, np.float64) for column in found], axis=1)
    fraction = np.asarray(found[0]).dtype.kind == "f" and len(values) and values.max() <= 1 and (values % 1).any()
    return np.asarray((values * (255 if fraction else scale_of(values))).clip(0, 255).round(), np.uint8)


def scale_of(values: Numbers) -> float:
    """The factor that makes bytes of colours: if some lie far beyond 255, they have two bytes each."""
    return 1 / 257 if values.max(initial=0) > _FAR_BEYOND_A_BYTE else 1.0


def encode(
    points: npt.NDArray[np.float32],
    faces: npt.NDArray[np.int32] | None = None,
    colours: npt.NDArray[np.uint8] | None = None,
    intensity: npt.NDArray[np.float32] | None = None,
) -> bytes:
    """A binary PLY, little-endian: vertices (V, 3) with what they have, and triangles (F, 3)."""
    fields: list[tuple[str, str]] = [(axis, "<f4") for axis in "xyz"]
    columns: list[Numbers] = list(points.T)
    if colours is not None:
        fields += [(name, "u1") for name in ("red", "green", "blue")]
        columns += list(colours.T)
    if intensity is not None:
        fields.append(("intensity", "<f4"))
        columns.append(intensity)
    rows = np.empty(len(points), fields)
    for (name, _), column in zip(fields, columns, strict=True):
        rows[name] = column
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    lines += [f"property {'uchar' if kind == 'u1' else 'float'} {name}" for name, kind in fields]
    body = rows.tobytes()
    if faces is not None:
        lines += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        triangles = np.empty(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
        triangles["count"], triangles["corners"] = 3, faces
        body += triangles.tobytes()
    return "\n".join([*lines, "end_header\n"]).encode() + body
