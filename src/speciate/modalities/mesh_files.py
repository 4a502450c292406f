"""The formats of meshes: OBJ, PLY, STL, OFF, GLB and glTF, told by their bytes and checked against what they declare.

trimesh reads OBJ, STL, OFF and glTF, but takes a file that ends early, or is empty, for a smaller mesh. So what each
format tells of its size is read first, refused beyond the budget, and must be found again in what was decoded. An OBJ
tells nothing: it seems cut where its last line has no end, or where many vertices belong to no face.
"""

from __future__ import annotations

import io
import json
import posixpath
import re
import struct
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from speciate.modalities import ply
from speciate.modalities.bundles import is_bundle, members_of
from speciate.modalities.contract import DecodeError
from speciate.modalities.image import IMAGE
from speciate.modalities.triangles import fans

if TYPE_CHECKING:
    import trimesh

MOST = 4_000_000
"""Vertices, and faces."""
_MOST_NODES = 20_000
_MOST_TEXELS = 32_000_000
_MAIN = (".obj", ".gltf")
_UNUSED = 0.1
"""An OBJ of which more vertices than this share belong to no face seems cut."""
_OFF = re.compile(rb"\s*(?:ST)?(C?)N?4?n?OFF\b")
_OBJ_VERTEX = re.compile(rb"(?m)^[ \t]*v[ \t]+\S")
_OBJ_FACE = re.compile(rb"(?m)^[ \t]*f[ \t]+([^\r\n#]*)")
_GLTF_READ = ("KHR_materials_", "KHR_texture_transform", "KHR_lights_punctual", "KHR_mesh_quantization")
"""Beginnings of the extensions without which a mesh's form can be read."""

Vertices = npt.NDArray[np.float32]
Faces = npt.NDArray[np.int32]
Colours = npt.NDArray[np.uint8]


class Declared(NamedTuple):
    """What a file says of itself; of an OBJ, what is counted in its lines."""

    format: str
    vertices: int
    faces: int
    units: str = "unknown"


class Loaded(NamedTuple):
    vertices: npt.NDArray[np.float64]
    """(V, 3)"""
    faces: npt.NDArray[np.int64]
    """(F, 3)"""
    colours: Colours | None = None
    """(V, 3)"""


def declared(data: bytes) -> Declared:
    """From headers and counts of lines alone. DecodeError where the bytes are no mesh."""
    return _kind(data).declared(data)


def load(data: bytes) -> Loaded:
    """The mesh as triangles, within the budget and as large as its file declares. DecodeError where it is not."""
    kind = _kind(data)
    said = kind.declared(data)
    if max(said.vertices, said.faces) > MOST:
        raise DecodeError(
            "refused", f"{said.vertices:,} vertices and {said.faces:,} faces, more than {MOST:,} of one of them."
        )
    loaded = kind.load(data, said)
    if not len(loaded.faces):
        raise DecodeError("partial" if said.vertices else "error", "There is not a single face.")
    return loaded


def main_member(names: Mapping[str, Any]) -> str:
    """Which member of a bundle is the mesh; the others are its materials, textures and buffers."""
    found = [name for name in names if name.lower().endswith(_MAIN)]
    if len(found) != 1:
        raise DecodeError("error", f"A bundle with {len(found)} meshes (.obj, .gltf) where one is wanted.")
    return found[0]


class _Kind:
    """One format: told from bytes by `_kind`, in that order."""

    def declared(self, data: bytes) -> Declared:
        raise NotImplementedError

    def load(self, data: bytes, said: Declared) -> Loaded:
        raise NotImplementedError


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
    if _is_text(head) and _OBJ_VERTEX.search(data):
        return _OBJ
    if _looks_like_stl(data):
        return _STL
    raise DecodeError("error", "Not a mesh in a known format, or its header is damaged." if data else "It is empty.")


def _is_text(head: bytes) -> bool:
    return b"\0" not in head


def sniff(head: bytes, name: str) -> bool:
    """Whether the first 4 KiB look like a mesh. A PLY does where it has faces."""
    if head.startswith(ply.MAGIC):
        return bool(re.search(rb"element\s+face\s+0*[1-9]", head))
    known = head.startswith(b"glTF") or bool(_OFF.match(head)) or bool(re.match(rb"\s*solid\b[^\0]*\bfacet\b", head))
    return known or name.lower().endswith((".obj", ".stl", ".off", ".glb", ".gltf"))


def _arrays(vertices: Any, faces: Any) -> Loaded:
    return Loaded(np.asarray(vertices, np.float64).reshape(-1, 3), np.asarray(faces, np.int64).reshape(-1, 3))


class _Ply(_Kind):
    def declared(self, data: bytes) -> Declared:
        head = ply.header(data)
        return Declared(head.format, head.count("vertex"), head.count("face"))

    def load(self, data: bytes, said: Declared) -> Loaded:
        if not said.faces:
            raise DecodeError("error", "The PLY has points and no faces. Read it with modality='point-cloud'.")
        found = ply.read(data, ply.header(data), MOST)
        corners = next((found["face"][name] for name in ("vertex_indices", "vertex_index") if name in found["face"]), None)  # fmt: skip  # noqa: E501
        if not isinstance(corners, ply.Lists):
            raise DecodeError("error", "The faces of the PLY have no list `vertex_indices`.")
        vertices = ply.points(found.get("vertex", {}))
        if len(corners.lengths) and corners.lengths.min() < 3:
            raise DecodeError("partial", "A face has fewer than three corners.")
        faces = fans(corners.lengths, corners.values.astype(np.int64))
        return Loaded(vertices, faces, ply.colours(found["vertex"]))


def _stl_count(data: bytes) -> int:
    return int(struct.unpack_from("<I", data, 80)[0])


_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def _looks_like_stl(data: bytes) -> bool:
    """By its first triangle, where the length is not that of a whole file."""
    if len(data) < 84 + _STL_TRIANGLE.itemsize or not _stl_count(data):
        return False
    first = np.frombuffer(data, _STL_TRIANGLE, 1, 84)[0]
    with np.errstate(all="ignore"):
        length, size = float(np.linalg.norm(first["normal"])), float(np.abs(first["corners"]).max())
    return (abs(length - 1) < 0.01 or length == 0) and 0 < size < 1e9


class _Stl(_Kind):
    def declared(self, data: bytes) -> Declared:
        count = _stl_count(data)
        return Declared("STL (binary)", 3 * count, count)

    def load(self, data: bytes, said: Declared) -> Loaded:
        if len(data) < 84 + 50 * said.faces:
            raise DecodeError("partial", f"{(len(data) - 84) // 50:,} triangles where {said.faces:,} are declared.")
        corners = np.frombuffer(data, _STL_TRIANGLE, said.faces, 84)["corners"]
        return _arrays(corners, np.arange(3 * said.faces))


class _AsciiStl(_Kind):
    def declared(self, data: bytes) -> Declared:
        return Declared("STL (ASCII)", data.count(b"vertex"), data.count(b"endfacet"))

    def load(self, data: bytes, said: Declared) -> Loaded:
        words = data.split()
        if not data.rstrip().split(b"\n")[-1].lstrip().startswith(b"endsolid") or said.vertices != 3 * said.faces:
            raise DecodeError("partial", f"{said.faces:,} whole triangles, and no `endsolid` behind them.")
        places = [place for place, word in enumerate(words) if word == b"vertex"]
        try:
            corners = np.array([words[place + 1 : place + 4] for place in places]).astype(np.float64)
        except ValueError as error:
            raise DecodeError("error", f"A corner is no three numbers: {str(error)[:100]}.") from error
        return _arrays(corners, np.arange(len(places)))


class _Off(_Kind):
    def declared(self, data: bytes) -> Declared:
        rows = _off_lines(data[: 1 << 16])
        try:
            vertices, faces = (int(word) for word in rows[0].split()[:2])
        except (IndexError, ValueError) as error:
            raise DecodeError("error", "The OFF header does not say how many vertices and faces there are.") from error
        if min(vertices, faces) < 0:
            raise DecodeError("error", "The OFF header is damaged.")
        return Declared("OFF", vertices, faces)

    def load(self, data: bytes, said: Declared) -> Loaded:
        head = _OFF.match(data)
        if head is None or b"4" in head[0] or b"n" in head[0]:
            raise DecodeError("error", "Only OFF of three dimensions is read.")
        rows = _off_lines(data)[1:]
        if len(rows) < said.vertices + said.faces:
            raise DecodeError("partial", f"{len(rows):,} rows where {said.vertices + said.faces:,} are declared.")
        try:
            cells = np.array(b" ".join(rows[: said.vertices]).split()).astype(np.float64)
            vertices = cells.reshape(said.vertices, -1)[:, :3]
            polygons = [row.split() for row in rows[said.vertices : said.vertices + said.faces]]
            lengths = np.array([int(polygon[0]) for polygon in polygons], np.int64)
            if len(lengths) and (lengths.min() < 3 or any(len(p) <= n for p, n in zip(polygons, lengths, strict=True))):
                raise DecodeError("partial", "A face has fewer corners than it says.")
            corners = [cell for p, n in zip(polygons, lengths, strict=True) for cell in p[1 : n + 1]]
            faces = fans(lengths, np.array(corners).astype(np.int64) if corners else np.zeros(0, np.int64))
            return _arrays(vertices, faces)
        except (ValueError, IndexError) as error:
            raise DecodeError("partial", f"A row is cut, or is no numbers: {str(error)[:100]}.") from error


def _off_lines(data: bytes) -> list[bytes]:
    """Without comments and empty lines; the counts may stand behind the word OFF."""
    found = _OFF.match(data)
    text = data[found.end() if found else 0 :]
    if b"#" in text:
        text = re.sub(rb"#[^\r\n]*", b"", text)
    return [line for line in text.splitlines() if line.strip()]


class _Obj(_Kind):
    def declared(self, data: bytes) -> Declared:
        faces = _OBJ_FACE.findall(data)
        return Declared("OBJ", len(_OBJ_VERTEX.findall(data)), sum(max(len(face.split()) - 2, 0) for face in faces))

    def load(self, data: bytes, said: Declared) -> Loaded:
        return _obj(data, said, {})


def _obj(data: bytes, said: Declared, others: Mapping[str, bytes]) -> Loaded:
    if not data.endswith((b"\n", b"\r")) and data.rsplit(b"\n", 1)[-1].lstrip()[:1] in (b"f", b"v"):
        raise DecodeError("partial", "It ends within a line, so that nothing tells whether it is whole.")
    lines = data.replace(b"\\\n", b" ").replace(b"\\\r\n", b" ")
    faces = _OBJ_FACE.findall(lines)
    if any(len(face.split()) < 3 for face in faces):
        raise DecodeError("partial", "A face has fewer than three corners.")
    scene = _scene(lines, "obj", {_plain(name): member for name, member in others.items()})
    loaded = _joined(scene)
    if len(loaded.faces) != said.faces:
        raise DecodeError("partial", f"{len(loaded.faces):,} triangles where its lines give {said.faces:,}.")
    unused = said.vertices - _used(faces, said.vertices)
    if unused > _UNUSED * said.vertices:
        raise DecodeError("partial", f"{unused:,} of {said.vertices:,} vertices belong to no face: it seems cut.")
    return loaded


def _used(faces: list[bytes], vertices: int) -> int:
    """How many vertices the faces name; where they count backwards, as some may, all."""
    try:
        named = np.array(re.sub(rb"/\S*", b"", b" ".join(faces)).split()).astype(np.int64)
    except ValueError as error:
        raise DecodeError("error", f"A face names no number: {str(error)[:100]}.") from error
    if (named == 0).any():
        raise DecodeError("partial", "A face names vertex 0, and an OBJ counts from 1.")
    return len(np.unique(named)) if named.min(initial=1) > 0 else vertices


class _Glb(_Kind):
    def declared(self, data: bytes) -> Declared:
        return _gltf_declared(_glb_json(data), "GLB")

    def load(self, data: bytes, said: Declared) -> Loaded:
        length = int(struct.unpack_from("<I", data, 8)[0])
        if len(data) < length:
            raise DecodeError("partial", f"{len(data):,} bytes where the header declares {length:,}.")
        return _gltf(data, _glb_json(data), "glb", {})


class _Gltf(_Kind):
    def declared(self, data: bytes) -> Declared:
        return _gltf_declared(_json(data), "glTF")

    def load(self, data: bytes, said: Declared) -> Loaded:
        return _gltf(data, _json(data), "gltf", {})


class _Bundle(_Kind):
    def declared(self, data: bytes) -> Declared:
        members = members_of(data)
        main = members[main_member(members)]
        return _OBJ.declared(main) if _of_obj(members) else _GLTF.declared(main)

    def load(self, data: bytes, said: Declared) -> Loaded:
        members = members_of(data)
        name = main_member(members)
        main = members.pop(name)
        base = posixpath.dirname(name)
        others = {_below(base, other): member for other, member in members.items()}
        for member in others.values():
            _check_texture(member)
        if name.lower().endswith(".obj"):
            return _obj(main, said, others)
        return _gltf(main, _json(main), "gltf", others)


def _of_obj(members: Mapping[str, bytes]) -> bool:
    return main_member(members).lower().endswith(".obj")


def _below(base: str, name: str) -> str:
    return posixpath.relpath(name, base or ".")


def _plain(name: str) -> str:
    return posixpath.normpath(unquote(name).replace("\\", "/"))


def _check_texture(data: bytes) -> None:
    if IMAGE.sniff(data[:4096], ""):
        fields = IMAGE.inspect(data).fields
        if int(fields["width"]) * int(fields["height"]) > _MOST_TEXELS:
            raise DecodeError("refused", f"A texture of {fields['width']} x {fields['height']} pixels.")


def _json(data: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DecodeError("partial", f"The JSON of the glTF is cut or damaged: {str(error)[:100]}.") from error
    if not isinstance(tree, dict) or "asset" not in tree:
        raise DecodeError("error", "Not a glTF: it names no asset.")
    return tree


def _glb_json(data: bytes) -> dict[str, Any]:
    if len(data) < 20:
        raise DecodeError("partial", "The GLB ends within its header.")
    length = int(struct.unpack_from("<I", data, 12)[0])
    if 20 + length > len(data):
        raise DecodeError("partial", "The GLB ends within its JSON.")
    return _json(data[20 : 20 + length])


def _gltf_declared(tree: dict[str, Any], name: str) -> Declared:
    """As many as all nodes show, each mesh as often as a node names it. glTF counts in metres."""
    try:
        accessors, meshes, nodes = (tree.get(key) or [] for key in ("accessors", "meshes", "nodes"))
        if len(nodes) > _MOST_NODES:
            raise DecodeError("refused", f"{len(nodes):,} nodes, more than {_MOST_NODES:,}.")
        vertices = faces = 0
        for node in nodes:
            if "mesh" not in node:
                continue
            for primitive in meshes[node["mesh"]]["primitives"]:
                corners = accessors[primitive["attributes"]["POSITION"]]["count"]
                vertices += corners
                listed = accessors[primitive["indices"]]["count"] if "indices" in primitive else corners
                mode = primitive.get("mode", 4)
                faces += listed // 3 if mode == 4 else max(listed - 2, 0) if mode in (5, 6) else 0
        return Declared(name, int(vertices), int(faces), "metre")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DecodeError("error", f"The glTF contradicts itself: {type(error).__name__} {error}.") from error


def _gltf(data: bytes, tree: dict[str, Any], kind: str, others: Mapping[str, bytes]) -> Loaded:
    """A buffer is a file beside it, data in its address, or what follows in the GLB; each as long as it says."""
    needed = [name for name in tree.get("extensionsRequired") or [] if not str(name).startswith(_GLTF_READ)]
    if needed:
        raise DecodeError("error", f"It needs the glTF extension {needed[0]}, which is not read.")
    files = {_plain(name): member for name, member in others.items()}
    for buffer in tree.get("buffers") or []:
        address = buffer.get("uri") if isinstance(buffer, dict) else None
        if not isinstance(address, str) or address.startswith("data:"):
            continue
        if _plain(address) not in files:
            raise DecodeError("error", f"It names the file {address[:200]!r}, which is not beside it.")
        if len(files[_plain(address)]) < int(buffer.get("byteLength", 0)):
            raise DecodeError("partial", f"{address[:200]!r} is shorter than the glTF declares.")
    _check_views(tree)
    said = _gltf_declared(tree, kind)
    loaded = _joined(_scene(data, kind, {**files, **{name: files[_plain(name)] for name in _addresses(tree) if _plain(name) in files}}))  # fmt: skip  # noqa: E501
    if len(loaded.faces) < said.faces:
        raise DecodeError("partial", f"{len(loaded.faces):,} triangles where {said.faces:,} are declared.")
    return loaded


def _addresses(tree: dict[str, Any]) -> list[str]:
    entries = [*(tree.get("buffers") or []), *(tree.get("images") or [])]
    return [entry["uri"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("uri"), str)]


def _check_views(tree: dict[str, Any]) -> None:
    """Every view lies in its buffer, and every accessor that a mesh uses has a view."""
    try:
        buffers, views = tree.get("buffers") or [], tree.get("bufferViews") or []
        for view in views:
            end = int(view.get("byteOffset", 0)) + int(view["byteLength"])
            if end > int(buffers[view["buffer"]]["byteLength"]) or min(end, int(view["byteLength"])) < 0:
                raise DecodeError("partial", "A view of the glTF ends behind its buffer.")
        for accessor in tree.get("accessors") or []:
            if "bufferView" in accessor and not 0 <= int(accessor["bufferView"]) < len(views):
                raise DecodeError("error", "An accessor of the glTF names no view.")
            if int(accessor["count"]) > 3 * MOST:
                raise DecodeError("refused", f"An accessor of {accessor['count']:,} values.")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DecodeError("error", f"The glTF contradicts itself: {type(error).__name__} {error}.") from error


def _scene(data: bytes, kind: str, files: Mapping[str, bytes]) -> trimesh.Scene:
    try:
        import trimesh
    except ImportError as error:
        raise DecodeError("error", "OBJ and glTF need trimesh. Run: pip install 'speciate[mesh]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on odd files
            return trimesh.load_scene(
                io.BytesIO(data),
                file_type=kind,
                resolver=_Files(files),
                process=False,
                skip_materials=kind == "obj" and not files,
            )
    except IndexError as error:
        raise DecodeError("partial", f"It points at what is not there: {error}.") from error
    except Exception as error:
        raise DecodeError("error", f"It cannot be read: {type(error).__name__} {str(error)[:200]}.") from error


class _Files(dict[str, bytes]):
    """The files beside a mesh, by whatever way its own lines write their names: from another folder, in other letters,
    behind options."""

    def __missing__(self, name: str) -> bytes:
        written = str(name).replace("\\", "/").casefold()
        for other in self:
            if _plain(written) == other.casefold() or written.endswith(f" {other.casefold()}"):
                return self[other]
        raise FileNotFoundError(name)

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]


def _joined(scene: trimesh.Scene) -> Loaded:
    """All meshes where the nodes of the scene put them; other geometry has no faces and is left out."""
    vertices, faces, colours, count, triangles = [], [], [], 0, 0
    try:
        for node in scene.graph.nodes_geometry:
            transform, name = scene.graph[node]
            mesh: Any = scene.geometry[name]
            if not hasattr(mesh, "faces") or not len(mesh.faces):
                continue
            count, triangles = count + len(mesh.vertices), triangles + len(mesh.faces)
            if max(count, triangles) > MOST:
                raise DecodeError("refused", f"Together its nodes show more than {MOST:,} vertices or faces.")
            placed = np.asarray(mesh.vertices, np.float64) @ transform[:3, :3].T + transform[:3, 3]
            turned = np.linalg.det(transform[:3, :3]) < 0
            corners = np.asarray(mesh.faces, np.int64)
            faces.append((corners[:, ::-1] if turned else corners) + count - len(mesh.vertices))
            vertices.append(placed)
            colours.append(_colours(mesh))
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(
            "error", f"Its parts do not fit together: {type(error).__name__} {str(error)[:200]}."
        ) from error
    if not vertices:
        return _arrays(np.zeros((0, 3)), np.zeros((0, 3)))
    if all(each is None for each in colours):
        return Loaded(np.concatenate(vertices), np.concatenate(faces))
    painted = [
        np.full((len(part), 3), 128, np.uint8) if each is None else each
        for part, each in zip(vertices, colours, strict=True)
    ]
    return Loaded(np.concatenate(vertices), np.concatenate(faces), np.concatenate(painted))


def _colours(mesh: Any) -> Colours | None:
    """(V, 3) of its vertices, or of its texture where they lie in it; None where it has none."""
    visual = mesh.visual
    if visual.kind == "texture":
        image = getattr(visual.material, "image", None) or getattr(visual.material, "baseColorTexture", None)
        if image is not None and image.size[0] * image.size[1] > _MOST_TEXELS:
            raise DecodeError("refused", f"A texture of {image.size[0]} x {image.size[1]} pixels.")
        visual = visual.to_color()
    if visual.kind is None:
        return None
    found = np.asarray(visual.vertex_colors)
    return found[:, :3].astype(np.uint8) if found.shape == (len(mesh.vertices), 4) else None


_PLY, _STL, _ASCII_STL, _OFF_KIND, _OBJ = _Ply(), _Stl(), _AsciiStl(), _Off(), _Obj()
_GLB, _GLTF, _BUNDLE = _Glb(), _Gltf(), _Bundle()
