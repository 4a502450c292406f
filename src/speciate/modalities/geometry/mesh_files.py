"""The formats of meshes: OBJ, PLY, STL, OFF, GLB and glTF, recognised by their bytes and checked against their
declarations.

trimesh reads OBJ, STL, OFF and glTF, but takes a file that ends early, or is empty, for a smaller mesh. So the declared
size is read first, refused beyond the budget, and compared with the decoded mesh.
"""

from __future__ import annotations

import posixpath
import re
import struct
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from speciate.modalities.bundles import is_bundle, members_of
from speciate.modalities.contract import DecodeError
from speciate.modalities.geometry import obj_and_gltf, ply
from speciate.modalities.geometry.obj_and_gltf import (
    MOST,
    MOST_TEXELS,
    DeclaredMesh,
    LoadedMesh,
    arrays,
    glb_json,
    gltf_declared,
    gltf_json,
    load_gltf,
)
from speciate.modalities.geometry.triangles import fans
from speciate.modalities.image import IMAGE

_MAIN = (".obj", ".gltf")
_OFF = re.compile(rb"\s*(?:ST)?(C?)N?4?n?OFF\b")


def declared(data: bytes) -> DeclaredMesh:
    """What a mesh declares, from headers and counts of lines alone. Raises DecodeError if the bytes are no mesh."""
    return _kind(data).declared(data)


def load(data: bytes) -> LoadedMesh:
    """The mesh as triangles. Raises DecodeError if it is beyond the budget, or not as large as its file declares."""
    kind = _kind(data)
    header = kind.declared(data)
    if max(header.vertices, header.faces) > MOST:
        raise DecodeError(
            "refused", f"{header.vertices:,} vertices and {header.faces:,} faces, more than {MOST:,} of one of them."
        )
    loaded = kind.load(data, header)
    if not len(loaded.faces):
        raise DecodeError("partial" if header.vertices else "error", "There is not a single face.")
    return loaded


def main_member(names: Mapping[str, Any]) -> str:
    """Which member of a bundle is the mesh; the others are its materials, textures and buffers."""
    found = [name for name in names if name.lower().endswith(_MAIN)]
    if len(found) != 1:
        raise DecodeError("error", f"A bundle with {len(found)} meshes (.obj, .gltf) where one is wanted.")
    return found[0]


class _Kind(Protocol):
    """One format. `_kind` recognises it, in the order of the table."""

    def declared(self, data: bytes) -> DeclaredMesh: ...

    def load(self, data: bytes, header: DeclaredMesh) -> LoadedMesh: ...


def _kind(data: bytes) -> _Kind:
    head = bytes(data[:4096])
    if head.startswith(ply.MAGIC):
        return _PLY
    if head.startswith(b"glTF"):
        return _GLB
    if is_bundle(head):
        return _BUNDLE
    if _OFF.match(head):
        return _OFF_KIND
    if head.lstrip()[:1] == b"{" and b'"asset"' in data:
        return _GLTF
    if len(data) >= 84 and len(data) == 84 + 50 * _stl_count(data):
        return _STL
    if head.lstrip().startswith(b"solid") and (b"facet" in head or b"endsolid" in head):
        return _ASCII_STL
    if _is_text(head) and obj_and_gltf.looks_like_obj(data):
        return _OBJ
    if _looks_like_stl(data):
        return _STL
    raise DecodeError("error", "Not a mesh in a known format, or its header is damaged." if data else "It is empty.")


def _is_text(head: bytes) -> bool:
    return b"\0" not in head


def sniff(head: bytes, name: str) -> bool:
    """Whether the first 4 KiB look like a mesh. A PLY does if it has faces."""
    if head.startswith(ply.MAGIC):
        return bool(re.search(rb"element\s+face\s+0*[1-9]", head))
    known = head.startswith(b"glTF") or bool(_OFF.match(head)) or bool(re.match(rb"\s*solid\b[^\0]*\bfacet\b", head))
    return known or name.lower().endswith((".obj", ".stl", ".off", ".glb", ".gltf"))


class _Ply:
    def declared(self, data: bytes) -> DeclaredMesh:
        head = ply.header(data)
        return DeclaredMesh(head.format, head.count("vertex"), head.count("face"))

    def load(self, data: bytes, header: DeclaredMesh) -> LoadedMesh:
        if not header.faces:
            raise DecodeError("error", "The PLY has points and no faces. Read it with modality='point-cloud'.")
        found = ply.read(data, ply.header(data), MOST)
        corners = next((found["face"][name] for name in ("vertex_indices", "vertex_index") if name in found["face"]), None)  # fmt: skip  # noqa: E501
        if not isinstance(corners, ply.Lists):
            raise DecodeError("error", "The faces of the PLY have no list `vertex_indices`.")
        vertices = ply.points(found.get("vertex", {}))
        if len(corners.lengths) and corners.lengths.min() < 3:
            raise DecodeError("partial", "A face has fewer than three corners.")
        faces = fans(corners.lengths, corners.values.astype(np.int64))
        return LoadedMesh(vertices, faces, ply.colours(found["vertex"]))


def _stl_count(data: bytes) -> int:
    return int(struct.unpack_from("<I", data, 80)[0])


_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def _looks_like_stl(data: bytes) -> bool:
    """Whether bytes look like STL by their first triangle, if the length is not that of a complete file."""
    if len(data) < 84 + _STL_TRIANGLE.itemsize or not _stl_count(data):
        return False
    first = np.frombuffer(data, _STL_TRIANGLE, 1, 84)[0]
    with np.errstate(all="ignore"):
        length, size = float(np.linalg.norm(first["normal"])), float(np.abs(first["corners"]).max())
    return (abs(length - 1) < 0.01 or length == 0) and 0 < size < 1e9


class _Stl:
    def declared(self, data: bytes) -> DeclaredMesh:
        count = _stl_count(data)
        return DeclaredMesh("STL (binary)", 3 * count, count)

    def load(self, data: bytes, header: DeclaredMesh) -> LoadedMesh:
        if len(data) < 84 + 50 * header.faces:
            raise DecodeError("partial", f"{(len(data) - 84) // 50:,} triangles where {header.faces:,} are declared.")
        corners = np.frombuffer(data, _STL_TRIANGLE, header.faces, 84)["corners"]
        return arrays(corners, np.arange(3 * header.faces))


class _AsciiStl:
    def declared(self, data: bytes) -> DeclaredMesh:
        return DeclaredMesh("STL (ASCII)", data.count(b"vertex"), data.count(b"endfacet"))

    def load(self, data: bytes, header: DeclaredMesh) -> LoadedMesh:
        words = data.split()
        if not data.rstrip().split(b"\n")[-1].lstrip().startswith(b"endsolid") or header.vertices != 3 * header.faces:
            raise DecodeError("partial", f"{header.faces:,} whole triangles, and no `endsolid` behind them.")
        places = [place for place, word in enumerate(words) if word == b"vertex"]
        try:
            corners = np.array([words[place + 1 : place + 4] for place in places]).astype(np.float64)
        except ValueError as error:
            raise DecodeError("error", f"A corner is no three numbers: {str(error)[:100]}.") from error
        return arrays(corners, np.arange(len(places)))


class _Off:
    def declared(self, data: bytes) -> DeclaredMesh:
        rows = _off_lines(data[: 1 << 16])
        try:
            vertices, faces = (int(word) for word in rows[0].split()[:2])
        except (IndexError, ValueError) as error:
            raise DecodeError("error", "The OFF header does not say how many vertices and faces there are.") from error
        if min(vertices, faces) < 0:
            raise DecodeError("error", "The OFF header is damaged.")
        return DeclaredMesh("OFF", vertices, faces)

    def load(self, data: bytes, header: DeclaredMesh) -> LoadedMesh:
        head = _OFF.match(data)
        if head is None or b"4" in head[0] or b"n" in head[0]:
            raise DecodeError("error", "Only OFF of three dimensions is read.")
        rows = _off_lines(data)[1:]
        if len(rows) < header.vertices + header.faces:
            raise DecodeError("partial", f"{len(rows):,} rows where {header.vertices + header.faces:,} are declared.")
        try:
            cells = np.array(b" ".join(rows[: header.vertices]).split()).astype(np.float64)
            vertices = cells.reshape(header.vertices, -1)[:, :3]
            polygons = [row.split() for row in rows[header.vertices : header.vertices + header.faces]]
            lengths = np.array([int(polygon[0]) for polygon in polygons], np.int64)
            if len(lengths) and (lengths.min() < 3 or any(len(p) <= n for p, n in zip(polygons, lengths, strict=True))):
                raise DecodeError("partial", "A face has fewer corners than it says.")
            corners = [cell for p, n in zip(polygons, lengths, strict=True) for cell in p[1 : n + 1]]
            faces = fans(lengths, np.array(corners).astype(np.int64) if corners else np.zeros(0, np.int64))
            return arrays(vertices, faces)
        except (ValueError, IndexError, OverflowError) as error:
            raise DecodeError("partial", f"A row is cut, or is no numbers: {str(error)[:100]}.") from error


def _off_lines(data: bytes) -> list[bytes]:
    """Lines without comments and empty ones; the counts may stand behind the word OFF."""
    found = _OFF.match(data)
    text = data[found.end() if found else 0 :]
    if b"#" in text:
        text = re.sub(rb"#[^\r\n]*", b"", text)
    return [line for line in text.splitlines() if line.strip()]


class _Obj:
    def declared(self, data: bytes) -> DeclaredMesh:
        return obj_and_gltf.declared_obj(data)

    def load(self, data: bytes, header: DeclaredMesh) -> LoadedMesh:
        return obj_and_gltf.load_obj(data, header, {})


class _Glb:
    def declared(self, data: bytes) -> DeclaredMesh:
        return gltf_declared(glb_json(data), "GLB")

    def load(self, data: bytes, header: DeclaredMesh) -> LoadedMesh:
        length = int(struct.unpack_from("<I", data, 8)[0])
        if len(data) < length:
            raise DecodeError("partial", f"{len(data):,} bytes where the header declares {length:,}.")
        return load_gltf(data, glb_json(data), "glb", {})


class _Gltf:
    def declared(self, data: bytes) -> DeclaredMesh:
        return gltf_declared(gltf_json(data), "glTF")

    def load(self, data: bytes, header: DeclaredMesh) -> LoadedMesh:
        return load_gltf(data, gltf_json(data), "gltf", {})


class _Bundle:
    def declared(self, data: bytes) -> DeclaredMesh:
        members = members_of(data)
        main = members[main_member(members)]
        return _OBJ.declared(main) if _of_obj(members) else _GLTF.declared(main)

    def load(self, data: bytes, header: DeclaredMesh) -> LoadedMesh:
        members = members_of(data)
        name = main_member(members)
        main = members.pop(name)
        base = posixpath.dirname(name)
        others = {_below(base, other): member for other, member in members.items()}
        for member in others.values():
            _check_texture(member)
        if name.lower().endswith(".obj"):
            return obj_and_gltf.load_obj(main, header, others)
        return load_gltf(main, gltf_json(main), "gltf", others)


def _of_obj(members: Mapping[str, bytes]) -> bool:
    return main_member(members).lower().endswith(".obj")


def _below(base: str, name: str) -> str:
    return posixpath.relpath(name, base or ".")


def _check_texture(data: bytes) -> None:
    if IMAGE.sniff(data[:4096], ""):
        fields = IMAGE.inspect(data).fields
        if int(fields["width"]) * int(fields["height"]) > MOST_TEXELS:
            raise DecodeError("refused", f"A texture of {fields['width']} x {fields['height']} pixels.")


_PLY, _STL, _ASCII_STL, _OFF_KIND, _OBJ = _Ply(), _Stl(), _AsciiStl(), _Off(), _Obj()
_GLB, _GLTF, _BUNDLE = _Glb(), _Gltf(), _Bundle()
