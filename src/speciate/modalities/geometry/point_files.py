"""The formats of point clouds: PLY without faces, PCD, LAS and LAZ, NPY and NPZ, and rows of numbers as text.

They are recognised by their bytes and checked against their headers before anything is decoded. Rows of numbers (.xyz,
.txt, .csv; a .pts says first how many there are) declare nothing: a file that ends early is a smaller cloud.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import DecodeError
from speciate.modalities.geometry import las, ply

MOST = 5_000_000
"""Points."""
_MOST_BYTES = 512 << 20
_LONGEST_COUNT = 18  # digits
_PCD = re.compile(rb"(?m)^DATA[ \t]+(\w+)[ \t]*\r?\n")
_PCD_TYPES = {"F": "f", "U": "u", "I": "i"}
_WORDS = re.compile(rb"[\s,;]+")
_NAMES = {"intensity": "intensity", "i": "intensity", "r": "red", "g": "green", "b": "blue"}
_NPY = b"\x93NUMPY"
_POINTS, _COLOURS = ("points", "xyz", "pos", "vertices"), ("colors", "colours", "rgb")


class DeclaredCloud(NamedTuple):
    format: str
    points: int
    origin: tuple[float, float, float] | None = None
    """Subtracted from the coordinates, which are too long for single precision."""


class LoadedCloud(NamedTuple):
    points: npt.NDArray[np.float64]
    """(N, 3)"""
    colours: npt.NDArray[np.uint8] | None = None
    """(N, 3)"""
    intensity: npt.NDArray[np.float32] | None = None
    """(N,)"""


def sniff(head: bytes, name: str) -> bool:
    """A PLY is a cloud if its header ends and names no faces; a text only if its name says so."""
    if head.startswith(ply.MAGIC):
        return b"end_header" in head and not re.search(rb"element\s+face\s+0*[1-9]", head)
    known = head.startswith((las.MAGIC, _NPY, b"# .PCD")) or (head.startswith(b"PK\x03\x04") and b".npy" in head[:128])
    return known or name.lower().endswith((".pcd", ".las", ".laz", ".xyz", ".pts"))


def declared(data: bytes) -> DeclaredCloud:
    """Raises DecodeError if the bytes are no cloud."""
    if data.startswith(ply.MAGIC):
        polygons = ply.header(data)
        return DeclaredCloud(polygons.format, polygons.count("vertex"))
    if data.startswith(las.MAGIC):
        scan = las.head(data)
        return DeclaredCloud("LAZ" if scan.packed else "LAS", scan.points, scan.low)
    if data.startswith(_NPY):
        return DeclaredCloud("NPY", _npy_shape(io.BytesIO(data))[0])
    if data.startswith(b"PK\x03\x04"):
        return DeclaredCloud("NPZ", _npz_shape(data)[0])
    if (found := _pcd(data)) is not None:
        return DeclaredCloud(f"PCD ({found.encoding})", found.points)
    return DeclaredCloud("text", _text_rows(data))


def load(data: bytes) -> LoadedCloud:
    """The points. Raises DecodeError if they are beyond the budget, or not as many as the file declares."""
    header = declared(data)
    if header.points > MOST:
        raise DecodeError("refused", f"{header.points:,} points, more than {MOST:,}.")
    loaded = _load(data, header)
    if not len(loaded.points):
        raise DecodeError("error", "There is not a single point.")
    return loaded


def _load(data: bytes, header: DeclaredCloud) -> LoadedCloud:
    match header.format.split()[0]:
        case "PLY":
            return _ply(data)
        case "LAS" | "LAZ":
            return LoadedCloud(*las.read(data))
        case "NPY":
            return _of_array(_array(io.BytesIO(data)))
        case "NPZ":
            return _npz(data)
        case "PCD":
            return _pcd_points(data)
    return _text(data, header)


def _ply(data: bytes) -> LoadedCloud:
    head = ply.header(data)
    if head.count("face"):
        raise DecodeError("error", "The PLY has faces. Read it with modality='mesh'.")
    vertex = ply.read(data, head, MOST).get("vertex", {})
    found = vertex.get("intensity", vertex.get("scalar_intensity", vertex.get("scalar_Intensity")))
    intensity = None if found is None or isinstance(found, ply.Lists) else np.asarray(found, np.float32)
    return LoadedCloud(ply.points(vertex), ply.colours(vertex), intensity)


class _Pcd(NamedTuple):
    encoding: str
    points: int
    row: np.dtype[Any]
    end: int


def _pcd(data: bytes) -> _Pcd | None:
    """The header of a PCD; None for another file. Raises DecodeError if it is damaged."""
    head = bytes(data[:8192])
    found = _PCD.search(head)
    if found is None or b"FIELDS" not in head[: found.start()]:
        return None
    try:
        lines = [line.split() for line in head[: found.start()].decode("latin-1").splitlines()]
        about = {words[0]: words[1:] for words in lines if words and words[0] != "#"}
        counts = [int(count) for count in about.get("COUNT", ["1"] * len(about["FIELDS"]))]
        fields: list[Any] = [
            (f"{name}/{place}", f"<{_PCD_TYPES[kind]}{int(size)}", (count,))
            for place, (name, size, kind, count) in enumerate(
                zip(about["FIELDS"], about["SIZE"], about["TYPE"], counts, strict=True)
            )
        ]
        points = int(about["WIDTH"][0]) * int(about["HEIGHT"][0])
        if points != int(about.get("POINTS", [points])[0]) or points < 0 or min(counts) < 0 or max(counts) > 4096:
            raise DecodeError("error", "The PCD header contradicts itself.")
        return _Pcd(found[1].decode("latin-1"), points, np.dtype(fields), found.end())
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DecodeError("error", f"The PCD header is damaged: {error}.") from error


def _pcd_points(data: bytes) -> LoadedCloud:
    """The points of a PCD file. In an organised cloud, those that are no numbers stand for rays without a hit; they are
    left out."""
    head = _pcd(data)
    assert head is not None
    if head.encoding == "binary_compressed":
        raise DecodeError(
            "refused", "PCD with DATA binary_compressed is not read; write it as binary (pcl_convert_pcd_ascii_binary)."
        )
    if head.encoding == "binary":
        there = (len(data) - head.end) // max(head.row.itemsize, 1)
        if there < head.points:
            raise DecodeError("partial", f"{there:,} points where the header declares {head.points:,}.")
        rows: Any = np.frombuffer(data, head.row, head.points, head.end)
    elif head.encoding == "ascii":
        rows = _pcd_text(data, head)
    else:
        raise DecodeError("error", f"PCD knows no DATA {head.encoding[:40]!r}.")
    columns = {name.partition("/")[0]: rows[name][:, 0] for name in head.row.names or () if rows[name].shape[1]}
    if not {"x", "y", "z"} <= columns.keys():
        raise DecodeError("error", "The PCD has no fields x, y and z.")
    points = np.stack([columns[axis].astype(np.float64) for axis in "xyz"], axis=1)
    packed = columns.get("rgb", columns.get("rgba"))
    colours = None if packed is None or packed.dtype.itemsize != 4 else _unpacked(packed)
    intensity = columns["intensity"].astype(np.float32) if "intensity" in columns else None
    there = ~np.isnan(points).any(axis=1)
    return LoadedCloud(
        points[there], None if colours is None else colours[there], None if intensity is None else intensity[there]
    )


def _pcd_text(data: bytes, head: _Pcd) -> Any:
    lines = [line for line in data[head.end :].splitlines() if line.strip()]
    if len(lines) < head.points:
        raise DecodeError("partial", f"{len(lines):,} points where the header declares {head.points:,}.")
    names = head.row.names or ()
    try:
        cells = np.array(b" ".join(lines[: head.points]).split()).reshape(head.points, -1)
        rows, place = np.zeros(head.points, head.row), 0
        for name in names:
            kind, count = head.row[name].base, head.row[name].shape[0]
            values = cells[:, place : place + count].astype(np.float64)
            if name.startswith("rgb") and kind.kind == "f" and (values >= 1).any():  # some write the number itself
                values = values.astype(np.uint32).view(np.float32)
            with np.errstate(invalid="ignore", over="ignore"):
                rows[name] = values.astype(kind)
            place += count
    except ValueError as error:
        raise DecodeError("partial", f"A row is cut, or is no numbers: {str(error)[:100]}.") from error
    return rows


def _unpacked(packed: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """(N,) of four bytes -> (N, 3)"""
    bits = np.ascontiguousarray(packed).view("<u4")
    return np.stack([(bits >> shift) & 255 for shift in (16, 8, 0)], axis=1).astype(np.uint8)


def _npy_shape(file: Any) -> tuple[int, ...]:
    """Shape of an array, from its header. Its values are not read, and no objects ever are."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
    except Exception as error:  # numpy parses it as Python, and raises whatever comes of that
        raise DecodeError("error", f"The header of the array is damaged: {str(error)[:200]}.") from error
    if kind.hasobject or kind.kind not in "fiu" or len(shape) != 2 or shape[1] < 3:
        raise DecodeError("error", f"An array of {kind} and shape {shape} is no cloud of (N, 3) numbers.")
    if math.prod(shape) * kind.itemsize > _MOST_BYTES:
        raise DecodeError("refused", f"An array of {math.prod(shape) * kind.itemsize:,} bytes.")
    return tuple(shape)


def _array(file: Any) -> npt.NDArray[Any]:
    try:
        found: npt.NDArray[Any] = np.load(file, allow_pickle=False)
    except Exception as error:
        raise DecodeError("partial", f"The array is cut or damaged: {str(error)[:200]}.") from error
    return found


def _npz_members(data: bytes) -> dict[str, zipfile.ZipInfo]:
    """Name of an array -> where it lies. Refused if it would unpack to more than the budget."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, OSError) as error:
        raise DecodeError("error", f"A damaged NPZ: {str(error)[:200]}.") from error
    if sum(info.file_size for info in members.values()) > _MOST_BYTES:
        raise DecodeError("refused", f"It unpacks to more than {_MOST_BYTES:,} bytes.")
    return members


def _opened(data: bytes, info: zipfile.ZipInfo) -> io.BytesIO:
    """The member's bytes, at most as many as it declares."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open(info) as file:
            return io.BytesIO(file.read(info.file_size))
    except Exception as error:  # zlib, lzma and zipfile each raise their own
        raise DecodeError("partial", f"A damaged NPZ: {str(error)[:200]}.") from error


def _points_of(members: dict[str, zipfile.ZipInfo]) -> zipfile.ZipInfo:
    found = next((members[name] for name in _POINTS if name in members), None)
    if found is None and len(members) == 1:
        found = next(iter(members.values()))
    if found is None:
        raise DecodeError("error", f"None of the arrays is called one of {', '.join(_POINTS)}.")
    return found


def _npz_shape(data: bytes) -> tuple[int, ...]:
    return _npy_shape(_opened(data, _points_of(_npz_members(data))))


def _npz(data: bytes) -> LoadedCloud:
    members = _npz_members(data)
    loaded = _of_array(_array(_opened(data, _points_of(members))))
    count = len(loaded.points)
    colours = next((_array(_opened(data, members[name])) for name in _COLOURS if name in members), None)
    if colours is not None and colours.shape == (count, 3) and colours.dtype.kind in "fui":
        loaded = loaded._replace(colours=_as_bytes(colours))
    intensity = _array(_opened(data, members["intensity"])) if "intensity" in members else None
    if intensity is not None and intensity.size == count and intensity.dtype.kind in "fui":
        loaded = loaded._replace(intensity=intensity.astype(np.float32).reshape(count))
    return loaded


def _of_array(array: npt.NDArray[Any]) -> LoadedCloud:
    """(N, 3), or (N, 6) with colours behind; other columns are passed over."""
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise DecodeError("error", f"An array of shape {array.shape} is no cloud.")
    values = array.astype(np.float64)
    return LoadedCloud(values[:, :3], _colours_behind(values[:, 3:6]))


def _as_bytes(colours: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Colours as bytes. Of numbers up to 1, 1 is full; of those beyond a byte, 65,535 is."""
    values = np.nan_to_num(colours.astype(np.float64))
    full = 255 if colours.dtype.kind == "f" and values.max(initial=0) <= 1 else ply.scale_of(values)
    return np.asarray((values * full).clip(0, 255).round(), np.uint8)


def _colours_behind(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8] | None:
    """Three columns are colours if all are whole numbers from 0 to 255, and not all 0 or 1."""
    if values.shape[1] != 3 or not np.isfinite(values).all():
        return None
    whole = (values >= 0).all() and (values <= 255).all() and (values % 1 == 0).all() and values.max(initial=0) > 1
    return values.astype(np.uint8) if whole else None


def _text_rows(data: bytes) -> int:
    """Lines that are no comments; the first may say how many there are, or name the columns."""
    if b"\0" in data[:4096] or not data.strip():
        raise DecodeError("error", "Not a cloud in a known format." if data else "The file is empty.")
    first = _cells(_first_line(data))
    if len(first) == 1 and first[0].isdigit() and len(first[0]) <= _LONGEST_COUNT:
        return int(first[0])
    if not _is_row(first) and not {"x", "y", "z"} <= {_name(cell) for cell in first}:
        raise DecodeError("error", "Not a cloud in a known format: its first line is no point.")
    return data.count(b"\n") + 1


def _first_line(data: bytes) -> bytes:
    lines = (line.strip() for line in data[: 1 << 16].splitlines())
    return next((line for line in lines if line and not line.startswith((b"#", b"//"))), b"")


def _cells(line: bytes) -> list[bytes]:
    return [cell for cell in _WORDS.split(line) if cell]


def _name(cell: bytes) -> str:
    name = cell.decode("latin-1").strip("\"'").lower()
    return _NAMES.get(name, name)


def _is_row(cells: list[bytes]) -> bool:
    try:
        return len([float(cell) for cell in cells]) >= 3
    except ValueError:
        return False


def _text(data: bytes, header: DeclaredCloud) -> LoadedCloud:
    lines = [line for line in data.splitlines() if line.strip() and not line.lstrip().startswith((b"#", b"//"))]
    first = _cells(lines[0])
    counted = len(first) == 1
    named = not counted and not _is_row(first)
    names = [_name(cell) for cell in first] if named else []
    rows = lines[1:] if counted or named else lines
    if counted and len(rows) < header.points:
        raise DecodeError("partial", f"{len(rows):,} points where its first line declares {header.points:,}.")
    if not rows:
        raise DecodeError("error", "There is not a single point.")
    try:
        cells = np.array(_cells(b" ".join(rows))).astype(np.float64)
        width = len(_cells(rows[0]))
        if len(_cells(rows[-1])) < width:
            raise DecodeError("partial", "The last row is cut off.")
        table = cells.reshape(len(rows), width)
    except ValueError as error:
        raise DecodeError("error", f"Not a table of numbers: {str(error)[:100]}.") from error
    if table.shape[1] < 3:
        raise DecodeError("error", "A point has at least three numbers.")
    return _of_columns(table, names or _usual_names(table))


def _usual_names(table: npt.NDArray[np.float64]) -> list[str]:
    """x y z, x y z i, x y z r g b, x y z i r g b; further columns are ignored."""
    colours = ["red", "green", "blue"]
    match table.shape[1]:
        case 4:
            return [*"xyz", "intensity"]
        case 6 if _colours_behind(table[:, 3:]) is not None:
            return [*"xyz", *colours]
        case 7 if _colours_behind(table[:, 4:]) is not None:
            return [*"xyz", "intensity", *colours]
    return list("xyz")


def _of_columns(table: npt.NDArray[np.float64], names: list[str]) -> LoadedCloud:
    columns = dict(zip(names, table.T, strict=False))
    if not {"x", "y", "z"} <= columns.keys():
        raise DecodeError("error", "A row has fewer numbers than there are names.")
    colours = None
    if {"red", "green", "blue"} <= columns.keys():
        colours = _as_bytes(np.stack([columns[name] for name in ("red", "green", "blue")], axis=1))
    intensity = columns["intensity"].astype(np.float32) if "intensity" in columns else None
    return LoadedCloud(np.stack([columns[axis] for axis in "xyz"], axis=1), colours, intensity)
