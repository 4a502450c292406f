"""What trimesh reads of OBJ and glTF: a scene of meshes, put together where its nodes put them, with its colours."""

from __future__ import annotations

import io
import posixpath
import warnings
from collections.abc import Mapping
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


def arrays(vertices: Any, faces: Any) -> Loaded:
    return Loaded(np.asarray(vertices, np.float64).reshape(-1, 3), np.asarray(faces, np.int64).reshape(-1, 3))


def plain(name: str) -> str:
    return posixpath.normpath(unquote(name).replace("\\", "/"))


def scene_of(data: bytes, kind: str, files: Mapping[str, bytes]) -> trimesh.Scene:
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
            if plain(written) == other.casefold() or written.endswith(f" {other.casefold()}"):
                return self[other]
        raise FileNotFoundError(name)

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]


def joined(scene: trimesh.Scene) -> Loaded:
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
        return arrays(np.zeros((0, 3)), np.zeros((0, 3)))
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
        if image is not None and image.size[0] * image.size[1] > MOST_TEXELS:
            raise DecodeError("refused", f"A texture of {image.size[0]} x {image.size[1]} pixels.")
        visual = visual.to_color()
    if visual.kind is None:
        return None
    found = np.asarray(visual.vertex_colors)
    return found[:, :3].astype(np.uint8) if found.shape == (len(mesh.vertices), 4) else None
