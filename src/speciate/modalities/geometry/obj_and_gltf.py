"""OBJ, glTF 2.0 (Khronos 2021) and GLB files by trimesh: a scene of meshes, each placed by its nodes, with its colours.

An OBJ declares no size, so its lines are counted before and after trimesh reads it. It seems cut if its last line has
no end, or if many vertices belong to no face. The declarations of a glTF are checked against its buffers before it is
read."""

from __future__ import annotations

import io
import json
import posixpath
import re
import struct
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import DecodeError

if TYPE_CHECKING:
    import trimesh


MOST = 4_000_000
"""Vertices, and faces."""
MOST_TEXELS = 32_000_000

Colours = npt.NDArray[np.uint8]


class DeclaredMesh(NamedTuple):
    """A file's declarations; of an OBJ, the counts of its lines."""

    format: str
    vertices: int
    faces: int
    units: str = "unknown"


class LoadedMesh(NamedTuple):
    vertices: npt.NDArray[np.float64]
    """(V, 3)"""
    faces: npt.NDArray[np.int64]
    """(F, 3)"""
    colours: Colours | None = None
    """(V, 3)"""


def arrays(vertices: Any, faces: Any) -> LoadedMesh:
    return LoadedMesh(np.asarray(vertices, np.float64).reshape(-1, 3), np.asarray(faces, np.int64).reshape(-1, 3))


def normalized_path(name: str) -> str:
    return posixpath.normpath(unquote(name).replace("\\", "/"))


def load_scene(data: bytes, kind: str, files: Mapping[str, bytes]) -> trimesh.Scene:
    try:
        import trimesh
    except ImportError as error:
        raise DecodeError("error", "OBJ and glTF need trimesh. Run: pip install 'speciate[mesh]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on odd files
            scene: trimesh.Scene = trimesh.load_scene(
                io.BytesIO(data),
                file_type=kind,
                resolver=_Files(files),
                process=False,
                skip_materials=kind == "obj" and not files,
            )
            return scene
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
            if normalized_path(written) == other.casefold() or written.endswith(f" {other.casefold()}"):
                return self[other]
        raise FileNotFoundError(name)

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]


def join_meshes(scene: trimesh.Scene) -> LoadedMesh:
    """All meshes, placed by the nodes of the scene; other geometry has no faces and is left out."""
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
        return arrays(np.zeros((0, 3)), np.zeros((0, 3)))
    if all(each is None for each in colours):
        return LoadedMesh(np.concatenate(vertices), np.concatenate(faces))
    painted = [
        np.full((len(part), 3), 128, np.uint8) if each is None else each
        for part, each in zip(vertices, colours, strict=True)
    ]
    return LoadedMesh(np.concatenate(vertices), np.concatenate(faces), np.concatenate(painted))


def _colours(mesh: Any) -> Colours | None:
    """(V, 3) of its vertices, or of its texture at their places; None if it has none."""
    visual = mesh.visual
    if visual.kind == "texture":
        image = getattr(visual.material, "image", None) or getattr(visual.material, "baseColorTexture", None)
        if image is not None and image.size[0] * image.size[1] > MOST_TEXELS:
            raise DecodeError("refused", f"A texture of {image.size[0]} x {image.size[1]} pixels.")
        visual = visual.to_color()
    if visual.kind is None:
        return None
    found = np.asarray(visual.vertex_colors)
    return found[:, :3].astype(np.uint8) if found.shape == (len(mesh.vertices), 4) else None


_UNUSED = 0.1
"""An OBJ of which more vertices than this share belong to no face seems cut."""
_VERTEX = re.compile(rb"(?m)^[ \t]*v[ \t]+\S")
_COMMENT, _INDENT = re.compile(rb"#[^\r\n]*"), re.compile(rb"(?m)^[ \t]+")
_LF, _CR, _SPACE, _TAB = b"\n\r \t"


def looks_like_obj(data: bytes) -> bool:
    return _VERTEX.search(data) is not None


def declared_obj(data: bytes) -> DeclaredMesh:
    """What an OBJ file declares: its lines that name vertices, and the triangles that its faces are cut into."""
    lines = _lines(data)
    return DeclaredMesh("OBJ", lines.vertices, int(np.maximum(lines.corners - 2, 0).sum()))


def load_obj(data: bytes, header: DeclaredMesh, others: Mapping[str, bytes]) -> LoadedMesh:
    """`others`: the files beside it, its materials and their textures, by their names."""
    if not data.endswith((b"\n", b"\r")) and data.rsplit(b"\n", 1)[-1].lstrip()[:1] in (b"f", b"v"):
        raise DecodeError("partial", "It ends within a line, so that nothing tells whether it is whole.")
    lines = _lines(data)
    if (lines.corners < 3).any():
        raise DecodeError("partial", "A face has fewer than three corners.")
    loaded = join_meshes(
        load_scene(lines.joined, "obj", {normalized_path(name): member for name, member in others.items()})
    )
    if len(loaded.faces) != header.faces:
        raise DecodeError("partial", f"{len(loaded.faces):,} triangles where its lines give {header.faces:,}.")
    unused = header.vertices - lines.used()
    if unused > _UNUSED * header.vertices:
        raise DecodeError("partial", f"{unused:,} of {header.vertices:,} vertices belong to no face: it seems cut.")
    return loaded


class _Lines:
    """The lines of an OBJ, counted all at once: as many as millions are no work for a loop."""

    def __init__(self, data: bytes) -> None:
        self.joined = data.replace(b"\\\n", b" ").replace(b"\\\r\n", b" ") if b"\\" in data else data
        bare = _COMMENT.sub(b"", self.joined) if b"#" in self.joined else self.joined
        if bare[:1] in (b" ", b"\t") or any(indent in bare for indent in (b"\n ", b"\n\t", b"\r ", b"\r\t")):
            bare = _INDENT.sub(b"", bare)
        self._bytes = np.frombuffer(bare + b"\n", np.uint8)
        ends = np.flatnonzero((self._bytes == _LF) | (self._bytes == _CR))
        starts = np.concatenate([[0], ends[:-1] + 1])
        there = ends - starts > 1
        self._starts, self._ends = starts[there], ends[there]
        second = self._bytes[self._starts + 1]
        begins = np.where((second == _SPACE) | (second == _TAB), self._bytes[self._starts], 0)
        self._faces = begins == ord("f")
        words = self._words()
        self.vertices = int((words[begins == ord("v")] > 1).sum())
        self.corners = words[self._faces] - 1
        """(F,) of each face."""

    def _words(self) -> npt.NDArray[np.int64]:
        """(L,) of each line."""
        blank = self._bytes <= _SPACE
        begins = ~blank
        begins[1:] &= blank[:-1]
        places = np.flatnonzero(begins)
        counts: npt.NDArray[np.int64] = np.searchsorted(places, self._ends) - np.searchsorted(places, self._starts)
        return counts

    def used(self) -> int:
        """How many vertices the faces name; all, if some faces count backwards."""
        named = self._named()
        if b"/" in named:
            named = re.sub(rb"/\S*", b"", named)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # numpy only warns if it stops early
                numbers = np.fromstring(named, np.int64, sep=" ")
        except (ValueError, DeprecationWarning) as error:
            raise DecodeError("error", f"A face names no number: {str(error)[:100]}.") from error
        if (numbers == 0).any():
            raise DecodeError("partial", "A face names vertex 0, and an OBJ counts from 1.")
        return len(np.unique(numbers)) if numbers.min(initial=1) > 0 else self.vertices

    def _named(self) -> bytes:
        """The vertices that the faces name, corner by corner."""
        edges = np.zeros(len(self._bytes) + 1, np.int8)
        edges[self._starts[self._faces] + 1] = 1
        edges[self._ends[self._faces] + 1] = -1  # with the end of the line, which parts its words from the next
        inside = np.cumsum(edges[:-1], dtype=np.int8).astype(bool)
        named: bytes = self._bytes[inside].tobytes()
        return named


@lru_cache(maxsize=1)
def _lines(data: bytes) -> _Lines:
    """Cached for one file, as it is needed before, with and after its contents."""
    return _Lines(data)


_MOST_NODES = 20_000
_GLTF_READ = ("KHR_materials_", "KHR_texture_transform", "KHR_lights_punctual", "KHR_mesh_quantization")
"""Beginnings of the extensions without which a mesh's shape can be read."""
_LISTS = ("accessors", "buffers", "bufferViews", "extensionsRequired", "images", "meshes", "nodes")
_ODD = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
"""Errors that malformed JSON of the format causes."""


GltfTree = dict[str, Any]
"""The JSON of a glTF 2.0 file, or an object in it, as a stranger wrote it."""


def gltf_json(data: bytes) -> GltfTree:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DecodeError("partial", f"The JSON of the glTF is cut or damaged: {str(error)[:100]}.") from error
    if not isinstance(tree, dict) or "asset" not in tree:
        raise DecodeError("error", "Not a glTF: it names no asset.")
    if odd := [key for key in _LISTS if not isinstance(tree.get(key) or [], list)]:
        raise DecodeError("error", f"The glTF contradicts itself: {odd[0]!r} is no list.")
    return tree


def glb_json(data: bytes) -> GltfTree:
    if len(data) < 20:
        raise DecodeError("partial", "The GLB ends within its header.")
    length = int(struct.unpack_from("<I", data, 12)[0])
    if 20 + length > len(data):
        raise DecodeError("partial", "The GLB ends within its JSON.")
    return gltf_json(data[20 : 20 + length])


def gltf_declared(tree: GltfTree, name: str) -> DeclaredMesh:
    """What a glTF file declares: as many as all nodes show, each mesh as often as a node names it. glTF counts in
    metres."""
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
        return DeclaredMesh(name, int(vertices), int(faces), "metre")
    except _ODD as error:
        raise DecodeError("error", f"The glTF contradicts itself: {type(error).__name__} {error}.") from error


def load_gltf(data: bytes, tree: GltfTree, kind: str, others: Mapping[str, bytes]) -> LoadedMesh:
    """A buffer is a file beside it, data in its address, or what follows in the GLB; each as long as it declares."""
    needed = [name for name in tree.get("extensionsRequired") or [] if not str(name).startswith(_GLTF_READ)]
    if needed:
        raise DecodeError("error", f"It needs the glTF extension {needed[0]}, which is not read.")
    files = {normalized_path(name): member for name, member in others.items()}
    for buffer in tree.get("buffers") or []:
        address = buffer.get("uri") if isinstance(buffer, dict) else None
        if not isinstance(address, str) or address.startswith("data:"):
            continue
        if normalized_path(address) not in files:
            raise DecodeError("error", f"It names the file {address[:200]!r}, which is not beside it.")
        if len(files[normalized_path(address)]) < _length_of(buffer):
            raise DecodeError("partial", f"{address[:200]!r} is shorter than the glTF declares.")
    _check_views(tree)
    header = gltf_declared(tree, kind)
    loaded = join_meshes(load_scene(data, kind, {**files, **{name: files[normalized_path(name)] for name in _addresses(tree) if normalized_path(name) in files}}))  # fmt: skip  # noqa: E501
    if len(loaded.faces) < header.faces:
        raise DecodeError("partial", f"{len(loaded.faces):,} triangles where {header.faces:,} are declared.")
    return loaded


def _length_of(buffer: GltfTree) -> int:
    try:
        return int(buffer.get("byteLength", 0))
    except _ODD as error:
        raise DecodeError("error", f"The glTF contradicts itself: {type(error).__name__} {error}.") from error


def _addresses(tree: GltfTree) -> list[str]:
    entries = [*(tree.get("buffers") or []), *(tree.get("images") or [])]
    return [entry["uri"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("uri"), str)]


def _check_views(tree: GltfTree) -> None:
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
    except _ODD as error:
        raise DecodeError("error", f"The glTF contradicts itself: {type(error).__name__} {error}.") from error
