"""glTF 2.0 (Khronos 2021) and its binary form GLB: what a file declares, held against its buffers before it is read."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from speciate.modalities.contract import DecodeError
from speciate.modalities.forms.mesh_scenes import MOST, Declared, Loaded, joined, plain, scene_of

_MOST_NODES = 20_000
_GLTF_READ = ("KHR_materials_", "KHR_texture_transform", "KHR_lights_punctual", "KHR_mesh_quantization")
"""Beginnings of the extensions without which a mesh's form can be read."""
_LISTS = ("accessors", "buffers", "bufferViews", "extensionsRequired", "images", "meshes", "nodes")
_ODD = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
"""What comes of JSON that holds other things than the format says."""


def gltf_json(data: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DecodeError("partial", f"The JSON of the glTF is cut or damaged: {str(error)[:100]}.") from error
    if not isinstance(tree, dict) or "asset" not in tree:
        raise DecodeError("error", "Not a glTF: it names no asset.")
    if odd := [key for key in _LISTS if not isinstance(tree.get(key) or [], list)]:
        raise DecodeError("error", f"The glTF contradicts itself: {odd[0]!r} is no list.")
    return tree


def glb_json(data: bytes) -> dict[str, Any]:
    if len(data) < 20:
        raise DecodeError("partial", "The GLB ends within its header.")
    length = int(struct.unpack_from("<I", data, 12)[0])
    if 20 + length > len(data):
        raise DecodeError("partial", "The GLB ends within its JSON.")
    return gltf_json(data[20 : 20 + length])


def gltf_declared(tree: dict[str, Any], name: str) -> Declared:
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
    except _ODD as error:
        raise DecodeError("error", f"The glTF contradicts itself: {type(error).__name__} {error}.") from error


def load_gltf(data: bytes, tree: dict[str, Any], kind: str, others: Mapping[str, bytes]) -> Loaded:
    """A buffer is a file beside it, data in its address, or what follows in the GLB; each as long as it says."""
    needed = [name for name in tree.get("extensionsRequired") or [] if not str(name).startswith(_GLTF_READ)]
    if needed:
        raise DecodeError("error", f"It needs the glTF extension {needed[0]}, which is not read.")
    files = {plain(name): member for name, member in others.items()}
    for buffer in tree.get("buffers") or []:
        address = buffer.get("uri") if isinstance(buffer, dict) else None
        if not isinstance(address, str) or address.startswith("data:"):
            continue
        if plain(address) not in files:
            raise DecodeError("error", f"It names the file {address[:200]!r}, which is not beside it.")
        if len(files[plain(address)]) < _length_of(buffer):
            raise DecodeError("partial", f"{address[:200]!r} is shorter than the glTF declares.")
    _check_views(tree)
    said = gltf_declared(tree, kind)
    loaded = joined(scene_of(data, kind, {**files, **{name: files[plain(name)] for name in _addresses(tree) if plain(name) in files}}))  # fmt: skip  # noqa: E501
    if len(loaded.faces) < said.faces:
        raise DecodeError("partial", f"{len(loaded.faces):,} triangles where {said.faces:,} are declared.")
    return loaded


def _length_of(buffer: dict[str, Any]) -> int:
    try:
        return int(buffer.get("byteLength", 0))
    except _ODD as error:
        raise DecodeError("error", f"The glTF contradicts itself: {type(error).__name__} {error}.") from error


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
    except _ODD as error:
        raise DecodeError("error", f"The glTF contradicts itself: {type(error).__name__} {error}.") from error
